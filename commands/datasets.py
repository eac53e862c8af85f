"""`bmla datasets`: the data sets that can be read; `bmla datasets check`: what a copy of one holds."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..extract.datasets.table import ADAPTERS
from ..store.errors import UsageError
from .extract import data_root
from .options import JSON, echo_json, key_values

if TYPE_CHECKING:
    from ..extract.datasets.base import DataSet
    from ..extract.datasets.known import Comparison

MOST_CLASSES = 20  # more are shown by their extremes

EXAMPLES = """\b
Examples:
  bmla datasets check lrw --root data/lrw
  bmla datasets check iemocap --root IEMOCAP_full_release --option classes=6 --json
"""


@click.group(invoke_without_command=True, epilog=EXAMPLES)
@JSON
@click.pass_context
def datasets(ctx: click.Context, as_json: bool) -> None:
    """The data sets that can be read: classes, licence, expected files, options."""
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise UsageError(f"--json: goes behind {ctx.invoked_subcommand}")
        return
    if as_json:
        keys = ("task", "classes", "licence", "layout", "options")
        echo_json({name: {key: getattr(entry, key) for key in keys} for name, entry in ADAPTERS.items()})
        return
    for name, entry in ADAPTERS.items():
        click.echo(f"{name:<9} {entry.task}, {entry.classes}")
        click.echo(f"{'':<9}   licence  {entry.licence}")
        click.echo(f"{'':<9}   files    {entry.layout}")
        for option, meaning in entry.options.items():
            click.echo(f"{'':<9}   option   {option} = {meaning}")


@datasets.command(epilog=EXAMPLES)
@click.argument("name", metavar="NAME", type=click.Choice(list(ADAPTERS)))
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Its folder (or manifest).  [default: $BMLA_DATA/NAME or data/NAME]",
)
@click.option("--option", "adapter_options", multiple=True, metavar="NAME=VALUE", help="As of `bmla extract`.")
@click.option(
    "--show",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="How many left-out items and incomplete clips to list; --json lists all.",
)
@JSON
def check(name: str, root: Path | None, adapter_options: tuple[str, ...], show: int, as_json: bool) -> None:
    """What a copy of the data set holds, beside what it is known to hold, and all that is left out, with reasons.

    Decodes nothing. Exits with 1 where no clip is usable. A count that differs from the known one is no error.
    """
    from ..extract.datasets.known import compare
    from ..extract.datasets.table import find

    found = find(name).adapter()(root or data_root(name), **key_values("--option", adapter_options))
    counts = compare(found)
    echo_json(to_json(found, counts)) if as_json else show_check(found, counts, show)
    if not found.clips:
        raise click.exceptions.Exit(1)


def to_json(found: "DataSet", counts: "list[Comparison]") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "dataset": found.name,
        "task": found.task,
        "root": str(found.root),
        "options": found.options,
        "hours": sum(clip.duration_s for clip in found.clips) / 3600,
        "counts": [asdict(count) for count in counts],
        "notes": list(found.notes),
        "incomplete": [asdict(item) for item in found.incomplete],
        "dropped": [asdict(item) for item in found.dropped],
    }


def show_check(found: "DataSet", counts: "list[Comparison]", most: int) -> None:
    """The counts in columns, then the first of what is incomplete or left out."""
    hours = sum(clip.duration_s for clip in found.clips) / 3600
    options = ", ".join(f"{key}={value}" for key, value in found.options.items()) or "none"
    click.echo(f"{found.name} in {found.root}: {len(found.clips)} clips, {hours:.2f} hours; options: {options}")
    for note in found.notes:
        click.echo(f"  note: {note}")
    classes = [c for c in counts if c.what.startswith("class ")]
    many = len(classes) > MOST_CLASSES
    shown = [c for c in counts if not (many and c in classes)]
    width = max(len(c.what) for c in shown)
    click.echo(f"  {'':<{width}}  {'found':>8}  {'known':>8}")
    for c in shown:
        known = "-" if c.known is None else str(c.known)
        click.echo(f"  {c.what:<{width}}  {c.found:>8}  {known:>8}  {remark(c)}".rstrip())
    if many:
        least, largest = min(classes, key=lambda c: c.found), max(classes, key=lambda c: c.found)
        click.echo(f"  a class holds {least.found} ({least.what[6:]}) to {largest.found} ({largest.what[6:]}) clips")
    show_items("incomplete", "clips", [(i.clip, i.reason) for i in found.incomplete], most)
    show_items("left out", "items", [(d.item, d.reason) for d in found.dropped], most)


def remark(count: "Comparison") -> str:
    if count.known is None:
        return ""
    return f"{'' if count.found == count.known else f'differs by {count.found - count.known:+}; '}{count.certainty}"


def show_items(title: str, kind: str, items: list[tuple[str, str]], most: int) -> None:
    if not items:
        return
    click.echo(f"{title}: {len(items)} {kind}")
    for reason, count in Counter(reason for _, reason in items).most_common(5):
        if count > 1:
            click.echo(f"  {count} x {reason}")
    for item, reason in items[:most]:
        click.echo(f"    {item}: {reason}")
    if len(items) > most:
        click.echo(f"    ... and {len(items) - most} more: --json lists all")
