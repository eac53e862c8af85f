"""`bmla extract --derive`: new streams from those that a store has."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..store.errors import UsageError
from .options import echo_json
from .progress import clip_progress

if TYPE_CHECKING:
    from ..extract.derive import Training

SERVES = {"derivation", "store", "streams", "folds", "fold_by", "compression", "max_failed", "as_json", "quiet"}


def derive(
    text: str,
    store: Path | None,
    streams: tuple[str, ...],
    compression: str,
    as_json: bool,
    quiet: bool,
    folds: int = 0,
    fold_by: str = "group",
) -> float:
    """Derives, prints the summary, and returns the largest share of failed clips.

    Raises:
        UsageError: options that have nothing to do with it; no store or no stream named.
    """
    from ..extract.derive import DeriveConfig, Training, read_derivation
    from ..extract.derive import derive as work
    from ..extract.report import summary_lines

    derivation = read_derivation(text)
    check_idle(SERVES, "--derive")
    if store is None or not streams:
        raise UsageError("--derive: name the store by --store and what to derive from by --stream")
    if folds and derivation.kind == "subsample":
        raise UsageError("--folds: subsample has no statistics: its stream is the same for all folds")
    training = training_of_folds(store, folds, fold_by) if folds else (Training(),)
    config = DeriveConfig(store, derivation, streams, compression, training)
    with clip_progress(quiet, "derive") as progress:
        summary = work(
            config, progress.begin, progress.advance, lambda line: None if quiet else click.echo(line, err=True)
        )
    if as_json:
        echo_json(asdict(summary))
    else:
        for line in summary_lines(summary):
            click.echo(line)
    return summary.failed_share


def training_of_folds(path: Path, folds: int, by: str) -> "tuple[Training, ...]":
    """The training clips of each fold, as `bmla fuse` deals them. Raises UsageError where it could not."""
    import numpy as np

    from ..extract.derive import Training
    from ..fuse.data import units_of_store
    from ..fuse.fold_streams import fold_name
    from ..fuse.leakage import to_bits
    from ..fuse.splits import fold_splits
    from ..store import open_store

    store = open_store(path)
    units = units_of_store(store).get(by)
    if units is None:
        raise UsageError(f"{store.place}: no {by} is known of all clips: --fold-by group keeps recordings together")
    used = store.clips.column("split") != None  # noqa: E711 - elementwise
    found = []
    for fold in range(folds):
        mine = (fold_splits(units, folds, fold) == "train") & used
        about = {"folds": folds, "fold": fold, "fold_by": by, "rows": to_bits(mine)}
        found.append(Training(np.flatnonzero(mine), fold_name("", fold), about, f"the training clips of fold {fold}"))
    return tuple(found)


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
