"""`bmla fuse export`: a run's model as a file that runs without bmla, with a model card."""

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..store.errors import UsageError
from .options import JSON, echo_json

EXAMPLES = """\b
Examples:
  bmla fuse export RUN --format onnx
  bmla fuse export RUN --format torch --format onnx --out lipreader
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kinds",
    multiple=True,
    required=True,
    type=click.Choice(["torch", "onnx"]),
    help="torch: model.pt2, by torch.export. onnx: model.onnx. Repeatable.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the files.  [default: RUN-export]")
@JSON
def export(run_folder: Path, kinds: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Write the model of RUN as a file, proven to answer as the model does, with a model card.

    Takes features of any number of clips and steps with their masks, not standardised; `bmla predict` goes from a clip to an answer.
    """
    from ..apply.card import model_card
    from ..fuse.export import export as work
    from ..fuse.export import write_beside
    from ..fuse.run import load_run

    run = load_run(run_folder)
    folder = out or run.path.with_name(f"{run.name}-export")
    files = work(run, tuple(dict.fromkeys(kinds)), folder)
    others = {
        "README.md": model_card(run, files),
        "classes.json": json.dumps({"classes": list(run.classes)}, ensure_ascii=False, indent=2) + "\n",
    }
    write_beside(folder, others)
    if as_json:
        written = [
            {"path": str(f.path), "inputs": f.inputs, "outputs": f.outputs, "difference": f.difference} for f in files
        ]
        echo_json({"run": run.name, "files": written, "card": str(folder / "README.md")})
        return
    for file in files:
        click.echo(f"{file.path}: differs from the model by at most {file.difference:.1g}")
    click.echo(f"model card: {folder / 'README.md'}")


def with_subcommands(command: click.Command, *others: click.Command) -> click.Group:
    """The command as a group: by itself it does what it did, and the others go by their names behind it."""
    work = command.callback
    assert work is not None

    def callback(**words: Any) -> Any:
        context = click.get_current_context()
        if context.invoked_subcommand is None:
            return work(**words)
        given = [p for p in words if context.get_parameter_source(p) is ParameterSource.COMMANDLINE]
        if given:
            option = next(p.opts[0] for p in command.params if p.name == given[0])
            raise UsageError(f"{option}: has nothing to do with `bmla {command.name} {context.invoked_subcommand}`")
        return None

    group = click.Group(
        command.name,
        callback=callback,
        params=command.params,
        help=command.help,
        epilog=command.epilog,
        invoke_without_command=True,
        subcommand_metavar="[COMMAND]",
    )
    for other in others:
        group.add_command(other)
    return group
