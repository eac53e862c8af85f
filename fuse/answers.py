"""What a setting answered about its test clips, over all seeds, and over all folds of a cross-validation joined.

Shape legend: s seeds, n clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..store.errors import UsageError
from .predictions import Predictions
from .statistics import cluster_permutation, mcnemar, per_group


@dataclass(frozen=True)
class Answers:
    """One setting under one condition, clips by id.

    Attributes:
        seeds: ascending.
        ids, groups: (n,) text.
        labels: (n,) int64.
        both: (n,) bool: the clip has both modalities.
        predicted: (s, n) int64.
    """

    seeds: tuple[int, ...]
    ids: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    both: np.ndarray
    predicted: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(s, n) bool."""
        return np.asarray(self.predicted == self.labels)

    def take(self, clips: np.ndarray) -> "Answers":
        """Some of the clips, by index or mask."""
        parts = {name: getattr(self, name)[clips] for name in ("ids", "groups", "labels", "both")}
        return replace(self, **parts, predicted=self.predicted[:, clips])

    def of_seeds(self, positions: Sequence[int]) -> "Answers":
        return replace(self, seeds=tuple(self.seeds[i] for i in positions), predicted=self.predicted[list(positions)])


def join(predictions: Mapping[int, Sequence[Predictions]], who: str) -> Answers:
    """Joins the predictions of a setting.

    Args:
        predictions: by seed, those of every fold (one without folds).
        who: for messages.

    Raises:
        UsageError: seeds were tested on unequal clips, or one of them on a clip twice.
    """
    seeds = tuple(sorted(predictions))
    rows: list[np.ndarray] = []
    ids = np.empty(0, str)
    for seed in seeds:
        parts = predictions[seed]
        given = np.concatenate([p.ids.astype(str) for p in parts])
        order = np.argsort(given, kind="stable")
        if not rows:
            ids = given[order]
            first = [np.concatenate([getattr(p, name) for p in parts])[order] for name in ("groups", "labels")]
            both = np.concatenate([p.audio_present & p.visual_present for p in parts])[order]
            if len(np.unique(ids)) < len(ids):
                raise UsageError(f"{who}, seed {seed}: a clip was tested twice: the folds are not of one division")
        elif not np.array_equal(given[order], ids):
            raise UsageError(f"{who}: seeds {seeds[0]} and {seed} were tested on other clips: they can't be joined")
        rows.append(np.concatenate([p.predicted for p in parts])[order])
    return Answers(seeds, ids, first[0].astype(str), first[1], both, np.stack(rows))


def shared(a: Answers, b: Answers) -> tuple[Answers, Answers] | None:
    """The clips that both have, for the seeds that both have; None where there is no such clip.

    Where no seed is the same, they are put side by side in order: any pairs of them are as good.
    """
    _, in_a, in_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    if not len(in_a):
        return None
    seeds = sorted(set(a.seeds) & set(b.seeds))
    if seeds:
        places = [a.seeds.index(s) for s in seeds], [b.seeds.index(s) for s in seeds]
    else:
        count = min(len(a.seeds), len(b.seeds))
        places = list(range(count)), list(range(count))
    return a.take(in_a).of_seeds(places[0]), b.take(in_b).of_seeds(places[1])


def difference(a: Answers, b: Answers) -> np.ndarray:
    """(s, n) by how much `a` is better: 1, 0 or -1. Both as `shared` gives them."""
    return a.right.astype(np.int64) - b.right


def mcnemar_p(values: np.ndarray) -> float:
    """Of the (…, n) differences of two settings, however many seeds there are in them."""
    return mcnemar(int((values > 0).sum()), int((values < 0).sum()))


def permutation_p(values: np.ndarray, groups: np.ndarray) -> float:
    """Of the (s, n) differences of two settings; groups (n,) are swapped whole."""
    sums, _ = per_group(values, groups)
    return cluster_permutation(sums.sum(0).round().astype(np.int64))
