"""`bmla models`, `bmla encoders`, `bmla datasets`: what there is, a line each."""

from collections.abc import Iterable

import click


@click.command()
def models() -> None:
    """The fusion models, a line each."""
    from ..fuse.models.table import MODELS

    show((name, entry.summary) for name, entry in MODELS.items())


@click.command()
def encoders() -> None:
    """The streams that can be extracted and their encoders, a line each."""
    from ..extract.encoders.table import TABLE

    show((name, entry.description) for name, entry in TABLE.items())


@click.command()
def datasets() -> None:
    """The data sets that can be read, a line each."""
    from ..extract.datasets.table import ADAPTERS

    show((name, entry.summary) for name, entry in ADAPTERS.items())


def show(rows: Iterable[tuple[str, str]]) -> None:
    """Names and summaries in two columns."""
    table = list(rows)
    width = max(len(name) for name, _ in table)
    for name, summary in table:
        click.echo(f"{name:<{width}}  {summary}")
