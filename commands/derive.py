"""`bmla extract --derive`: new streams from those that a store has."""

import json
from dataclasses import asdict
from pathlib import Path

import click
from click.core import ParameterSource

from ..store.errors import UsageError
from .progress import clip_progress

SERVES = {"derivation", "store", "streams", "compression", "max_failed", "as_json", "quiet"}


def derive(
    text: str, store: Path | None, streams: tuple[str, ...], compression: str, as_json: bool, quiet: bool
) -> float:
    """Derives, prints the summary, and returns the largest share of failed clips.

    Raises:
        UsageError: options that have nothing to do with it; no store or no stream named.
    """
    from ..extract.derive import DeriveConfig, read_derivation
    from ..extract.derive import derive as work
    from ..extract.report import summary_lines

    derivation = read_derivation(text)
    check_idle(SERVES, "--derive")
    if store is None or not streams:
        raise UsageError("--derive: name the store by --store and what to derive from by --stream")
    config = DeriveConfig(store, derivation, streams, compression)
    with clip_progress(quiet, "derive") as progress:
        summary = work(config, progress.begin, progress.advance, lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(asdict(summary), indent=2))
    else:
        for line in summary_lines(summary):
            click.echo(line)
    return summary.failed_share


def check_idle(serves: set[str], option: str) -> None:
    """Raises UsageError for an option that was given and has no use beside this one."""
    context = click.get_current_context()
    idle = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in serves
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if idle:
        raise UsageError(f"{idle[0]}: has nothing to do with {option}, which reads a store alone")
