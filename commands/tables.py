"""Tables for people, by rich: as wide as the terminal, plain text where there is none."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..store.catalogue import Shelf


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


def rendered(table: object) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=140, markup=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
