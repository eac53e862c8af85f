"""`bmla report`: finished runs -> tables and a page, from the kept test predictions alone."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..store.errors import UsageError
from .options import JSON, echo_json

if TYPE_CHECKING:
    from ..fuse.run import Run

EXAMPLES = """\b
Examples:
  bmla report runs/words                              all runs of a folder
  bmla report runs/words/transformer_1-* --csv tables
  bmla report runs/words runs/words-more --pairs all --json > words.json
"""


@click.command(epilog=EXAMPLES)
@click.argument("folders", metavar="RUNS…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--pairs",
    type=click.Choice(["best", "all"]),
    default="best",
    show_default=True,
    help="Compare the best setting with each, or all with all; p-values are corrected for their number.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the page and its figures.  [default: the first RUNS folder]",
)
@click.option("--csv", "csv_folder", type=click.Path(path_type=Path), help="Also write the tables as CSV files here.")
@JSON
def report(folders: tuple[Path, ...], pairs: str, out: Path | None, csv_folder: Path | None, as_json: bool) -> None:
    """Make the tables and the report of finished runs again.

    RUNS are folders of single runs, or folders that hold runs. The store is not needed: every table comes from the test
    predictions that each run keeps.
    """
    runs = load_runs(folders)
    from ..fuse.facts import facts_of_runs
    from ..fuse.report import results, write_report
    from ..fuse.summary import summarise
    from ..fuse.tables import write_csv

    summary = summarise(runs, all_pairs=pairs == "all")
    facts = facts_of_runs(summary)
    page = write_report(out or home_of(folders[0]), summary, facts, {"report made of": f"{len(runs)} finished runs"})
    written = write_csv(csv_folder, summary) if csv_folder else []
    if as_json:
        document = {**results(summary, facts), "report": str(page)}
        echo_json(document)
        return
    from .tables import show_further, show_summary

    show_summary(summary)
    show_further(summary)
    click.echo("")
    for path in written:
        click.echo(f"table: {path}")
    click.echo(f"report: {page}")


def load_runs(folders: tuple[Path, ...]) -> "list[Run]":
    """Every finished run in some folders, each once.

    Raises:
        UsageError: there is none in one of them.
        RunDamaged: one can't be read.
    """
    from ..fuse.run import load_run

    found: dict[Path, None] = {}
    for folder in folders:
        inside = [folder] if is_run(folder) else sorted(p for p in folder.glob("*") if is_run(p))
        if not inside:
            raise UsageError(
                f"{folder}: no finished run here: expected a run's folder or one that `bmla fuse` wrote runs to"
            )
        found |= dict.fromkeys(path.resolve() for path in inside)
    return [load_run(path) for path in found]


def is_run(path: Path) -> bool:
    """A finished one; what is still being written begins with a dot."""
    return not path.name.startswith(".") and (path / "config.json").is_file()


def home_of(folder: Path) -> Path:
    """Where runs are kept: the folder itself, or that of a single run."""
    return folder.parent if is_run(folder) else folder
