"""The command reference, docs/commands.md, made from the commands themselves: `bmla reference`.

A test holds the file against what this makes, so that it cannot fall behind.
"""

from collections.abc import Iterator

import click

WIDTH = 100
HEAD = """# Commands

Made from the commands by `bmla reference > docs/commands.md`; each says the same under `--help`.
Exit codes: 0 all went well; 1 something failed, which is named; 2 the command was not understood, nothing was done.
"""


def reference(main: click.Group) -> str:
    """Every command's help as Markdown, groups before their members, in the order of `bmla --help`."""
    parts = [HEAD]
    for path, command, parent in walk(main, ("bmla",), None):
        context = click.Context(
            command, parent, path[-1], terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
        )
        text = command.get_help(context).replace("\b\n", "")
        parts.append(f"## {' '.join(path)}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def walk(
    command: click.Command, path: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context | None]]:
    """(names, command, its parent's context) of a command and everything below it that is not hidden."""
    if command.hidden:
        return
    yield path, command, parent
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent, info_name=path[-1])
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            if member is not None:
                yield from walk(member, (*path, name), context)


@click.command("reference", hidden=True, epilog="\b\nExample:\n  bmla reference > docs/commands.md")
@click.pass_context
def print_reference(ctx: click.Context) -> None:
    """Print the command reference."""
    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    click.echo(reference(root), nl=False)
