"""Tables for people, by rich: as wide as the terminal, plain text where there is none."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..fuse.summary import Summary
    from ..store.catalogue import Shelf

NOTE_WIDTH = 120


def shelves_table(shelves: "Sequence[Shelf]") -> str:
    """The catalogue of stores, a row each."""
    from rich.table import Table

    table = Table("store", "data set", "streams (clips done)", "clips", "size", "date", "provenance", box=None)
    for s in shelves:
        if s.problem:
            table.add_row(s.path, f"unreadable: {s.problem}")
            continue
        streams, provenance = s.streams or {}, s.provenance or {}
        table.add_row(
            s.path,
            s.dataset,
            "\n".join(f"{name} ({done})" for name, done in streams.items()),
            str(s.clips),
            f"{s.bytes / 1e6:.1f} MB",
            datetime.fromtimestamp(s.modified_s).strftime("%Y-%m-%d %H:%M"),
            "\n".join(digest[:12] for digest in provenance.values()),
        )
    return rendered(table)


def show_summary(summary: "Summary") -> None:
    """The main table of a summary on stdout, and which setting is the best."""
    from ..fuse.tables import spread, table_columns

    columns = table_columns(summary.rows)
    lines = list(zip(*(cells for _, cells in columns), strict=True))
    show_lines([head for head, _ in columns], lines, bold=summary.best)
    best = summary.rows[summary.best]
    click.echo(f"best on dev: {best.label}, {spread(best.clean)} % of {best.clean.clips} test clips")


def show_further(summary: "Summary") -> None:
    """All other tables, each with its title and note."""
    from ..fuse.tables import further_tables

    for table in further_tables(summary):
        click.echo(f"\n{table.title}")
        show_lines(table.heads, table.lines)
        show_note(table.note)


def show_note(note: str) -> None:
    if note:
        click.echo(click.wrap_text(note, NOTE_WIDTH, "  ", "  "))


def show_lines(heads: Sequence[str], lines: Sequence[Sequence[str]], bold: int | None = None) -> None:
    """A table as wide as it needs to be: a line is a line, also in a file."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left", no_wrap=True)
    for i, cells in enumerate(lines):
        table.add_row(*cells, style="bold" if i == bold else "")
    widths = [max(map(len, column)) + 2 for column in zip(heads, *lines, strict=True)]
    Console(width=max(sum(widths), 80), highlight=False, markup=False).print(table)


def rendered(table: object) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=140, markup=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
