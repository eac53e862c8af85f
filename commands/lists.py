"""`bmla models`, `bmla balances`, `bmla encoders`: what there is, a line each."""

from collections.abc import Iterable

import click

from .options import JSON, echo_json
from .own import FORM


@click.command()
@JSON
def models(as_json: bool) -> None:
    """The fusion models, a line each, and where each comes from."""
    from ..fuse.models.table import MODELS

    if as_json:
        echo_json({name: {"summary": e.summary, "source": e.source} for name, e in MODELS.items()})
        return
    rows = [(name, f"{entry.summary} [{entry.source}]") for name, entry in MODELS.items()]
    show([*rows, (FORM, "a class of your own: docs/python.md")])


@click.command()
@JSON
def balances(as_json: bool) -> None:
    """The ways to balance modalities, a line each, and who proposed them."""
    from ..fuse.balance.table import BALANCES

    if as_json:
        echo_json({name: {"summary": e.summary, "source": e.source} for name, e in BALANCES.items()})
        return
    show((name, f"{e.summary}{'' if e.source == '-' else f' [{e.source}]'}") for name, e in BALANCES.items())


@click.command()
@JSON
def encoders(as_json: bool) -> None:
    """The streams that can be extracted and their encoders; below each, what --parameter may set, with the defaults."""
    from ..extract.encoders.options import defaults
    from ..extract.encoders.table import TABLE

    if as_json:
        echo_json({n: {"summary": e.description, "parameters": defaults(e.options)} for n, e in TABLE.items()})
        return
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
