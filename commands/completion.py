"""`bmla completion`: what a shell needs to complete commands, options and their choices."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

EXAMPLES = """\b
Examples:
  eval "$(bmla completion bash)"                                       in ~/.bashrc
  eval "$(bmla completion zsh)"                                        in ~/.zshrc
  bmla completion fish > ~/.config/fish/completions/bmla.fish
"""


def lists_of(names: Callable[[], Iterable[str]]) -> Callable[..., list[CompletionItem]]:
    """The shell_complete of an option that takes names with commas between them: completes the last one."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(f"{before}{comma}{name}") for name in names() if name.startswith(last)]

    return complete


def known_models() -> Iterable[str]:
    from ..fuse.models.table import MODELS

    return MODELS


def known_balances() -> Iterable[str]:
    from ..fuse.balance.table import BALANCES

    return BALANCES


def known_streams() -> Iterable[str]:
    from ..extract.encoders.table import TABLE

    return TABLE


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    made = get_completion_class(shell)
    assert made is not None  # click knows the three
    click.echo(made(ctx.find_root().command, {}, "bmla", "_BMLA_COMPLETE").source())
