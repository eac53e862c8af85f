"""Two settings on the same clips: how far apart they are, and whether that can be told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .answers import Answers, difference, mcnemar_p, permutation_p, shared
from .statistics import Interval, bootstrap_mean, holm, interval

FALSE_ALARM = 0.05


@dataclass(frozen=True)
class Pair:
    """Two settings on the same clips under one condition. p-values are two-sided; what each can be trusted with: `statistics.py`.

    Attributes:
        a, b: indices of rows.
        clips, groups: that both were tested on.
        seeds: compared with each other.
        difference: in mean accuracy, a - b; interval: 95 %.
        mcnemar: all seeds pooled; mcnemar_each: of each of `compared`.
        compared: the seeds, ascending; those of `a` where the two have none in common.
        permutation: whole recordings swapped.
        holm: `permutation`, corrected for all pairs and conditions of the table.
    """

    a: int
    b: int
    condition: str
    clips: int
    groups: int
    seeds: int
    difference: float
    interval: Interval
    mcnemar: float
    mcnemar_each: tuple[float, ...]
    compared: tuple[int, ...]
    permutation: float
    holm: float = math.nan

    @property
    def mcnemar_seeds(self) -> Interval:
        """The least and the greatest of single seeds."""
        return min(self.mcnemar_each), max(self.mcnemar_each)

    @property
    def told_apart(self) -> bool:
        return self.holm < FALSE_ALARM


def make_pairs(
    against: Sequence[tuple[int, int]], answers: Sequence[dict[str, Answers]], conditions: Sequence[str]
) -> tuple[Pair, ...]:
    """Every pair under every condition that both were tested under; condition by condition."""
    pairs = [
        pair
        for condition in conditions
        for a, b in against
        if condition in answers[a] and condition in answers[b]
        if (pair := make_pair(a, b, condition, answers[a][condition], answers[b][condition])) is not None
    ]
    corrected = holm([pair.permutation for pair in pairs])
    return tuple(replace(pair, holm=p) for pair, p in zip(pairs, corrected, strict=True))


def make_pair(a: int, b: int, condition: str, of_a: Answers, of_b: Answers) -> Pair | None:
    """None where they share no clip."""
    both = shared(of_a, of_b)
    if both is None:
        return None
    values, groups = difference(*both), both[0].groups
    return Pair(
        a,
        b,
        condition,
        clips=values.shape[1],
        groups=len(np.unique(groups)),
        seeds=len(values),
        difference=float(values.mean()),
        interval=interval(bootstrap_mean(values, groups)),
        mcnemar=mcnemar_p(values),
        mcnemar_each=tuple(mcnemar_p(row) for row in values),
        compared=both[0].seeds,
        permutation=permutation_p(values, groups),
    )
