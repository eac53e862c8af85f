"""Which clips train, which choose (dev) and which test: the store's splits or those of a fold.

Where the store has no dev split, one is carved out of train.
"""

import hashlib
import re

import numpy as np

from ..store.clips import SPLITS
from ..store.errors import UsageError

DEV_SHARE = 0.1  # of the training clips, where the data set has no dev split
DEV_SEED = 0  # not the run's seed: all runs of a sweep choose on the same clips


def usable_splits(
    split: np.ndarray, groups: np.ndarray, usable: np.ndarray, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The split of every clip that can be used.

    Args:
        split: (n,) "train", "dev", "test" or None.
        groups: (n,) text; a group never gets into two splits.
        usable: (n,) bool.
        where: the data, for messages.

    Returns:
        (n,) split or None (not usable), and notes for the user.

    Raises:
        UsageError: no training or no test clips, or no way to carve out a dev split.
    """
    if unknown := sorted({str(s) for s in split if s is not None} - set(SPLITS)):
        raise UsageError(f"{where}: unknown split {', '.join(unknown)}; expected {', '.join(SPLITS)}")
    result = split.copy()
    result[~usable] = None
    for name in ("train", "test"):
        if not (result == name).any():
            raise UsageError(f"{where}: no usable clip in the {name} split: nothing to {name} with")
    notes = []
    if left_out := int((split != None).sum() - (result != None).sum()):  # noqa: E711 - elementwise
        notes.append(
            f"{left_out} clips are left out: no label among the classes, or no valid step in any loaded stream"
        )
    if not (result == "dev").any():
        chosen = carve(groups, result == "train", where, DEV_SHARE)
        result[chosen] = "dev"
        notes.append(
            f"no dev split: {len(chosen)} of the training clips choose the epoch instead (whole recordings, seed {DEV_SEED})"
        )
    return result, tuple(notes)


def carve(groups: np.ndarray, train: np.ndarray, where: str, share: float) -> np.ndarray:
    """Clips of the groups whose hash is lowest, until they are that share of the training clips: stable and group-disjoint."""
    names, counts = np.unique(groups[train].astype(str), return_counts=True)
    if len(names) < 2:
        raise UsageError(
            f"{where}: all training clips are of one group ({names[0]}): none can be set apart, to choose or to judge by"
        )
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(f"{DEV_SEED}:{names[i]}".encode()).digest())
    enough = int(np.searchsorted(np.cumsum(counts[order]), share * counts.sum())) + 1
    chosen = names[order[: min(enough, len(names) - 1)]]
    return np.flatnonzero(train & np.isin(groups.astype(str), chosen))


def fold_splits(units: np.ndarray, folds: int, fold: int, of_all: np.ndarray | None = None) -> np.ndarray:
    """The splits of one fold of a cross-validation: a fold is test, the one after it dev, all others train.

    Units are dealt in turn in the order of a seeded hash, the largest first: the same on every machine, and about as many clips
    in each fold. Over all folds, every clip is a test clip once.

    Args:
        units: (n,) text; clips of one unit stay together.
        of_all: (m,) text, the units of all clips that there are, used or not: a clip that fails then moves no other to another fold,
            and models of different streams have the same folds; None: `units`.

    Raises:
        UsageError: fewer units than folds.
    """
    names, counts = np.unique((units if of_all is None else of_all).astype(str), return_counts=True)
    if len(names) < folds:
        raise UsageError(
            f"{folds} folds of {len(names)} units ({', '.join(names[:3])}, …): expected at most one a unit"
        )
    key = [(-int(counts[i]), hashlib.sha256(f"{DEV_SEED}:{names[i]}".encode()).digest()) for i in range(len(names))]
    fold_of = np.empty(len(names), int)
    fold_of[sorted(range(len(names)), key=key.__getitem__)] = np.arange(len(names)) % folds
    mine = fold_of[np.searchsorted(names, units.astype(str))]
    result = np.full(len(units), "train", object)
    result[mine == fold] = "test"
    result[mine == (fold + 1) % folds] = "dev"
    return result


def session_of(speaker: str | None) -> str | None:
    """IEMOCAP's session of a speaker, who is named after it (`Ses01F`); None for any other name."""
    return speaker[:5] if speaker is not None and re.fullmatch(r"Ses0[1-5][FM]", speaker) else None
