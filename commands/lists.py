"""`bmla models`, `bmla balances`, `bmla encoders`: what there is, a line each."""

from collections.abc import Iterable

import click

from .own import FORM


@click.command()
def models() -> None:
    """The fusion models, a line each, and where each comes from."""
    from ..fuse.models.table import MODELS

    rows = [(name, f"{entry.summary} [{entry.source}]") for name, entry in MODELS.items()]
    show([*rows, (FORM, "a class of your own: docs/python.md")])


@click.command()
def balances() -> None:
    """The ways to balance modalities, a line each, and who proposed them."""
    from ..fuse.balance.table import BALANCES

    show((name, f"{e.summary}{'' if e.source == '-' else f' [{e.source}]'}") for name, e in BALANCES.items())


@click.command()
def encoders() -> None:
    """The streams that can be extracted and their encoders; below each, what --parameter may set, with the defaults."""
    from ..extract.encoders.options import defaults
    from ..extract.encoders.table import TABLE

    rows = []
    for name, entry in TABLE.items():
        parameters = " ".join(f"{key}={value}" for key, value in defaults(entry.options).items())
        rows += [(name, entry.description), ("", parameters)]
    show(rows)


def show(rows: Iterable[tuple[str, str]]) -> None:
    """Names and summaries in two columns."""
    table = list(rows)
    width = max(len(name) for name, _ in table)
    for name, summary in table:
        click.echo(f"{name:<{width}}  {summary}")
