"""When a model has learnt what it will learn: the first epoch from which accuracy on dev stays near its best.

*Source:* Sec. 3.1 and Fig. 1a give convergence epochs (45 and 69) without saying how they are read off the curves. Ours: accuracy is
smoothed over three epochs; converged is the first epoch from which it stays within half a point of its best, or one dev clip where
that is more, for five epochs. A curve that never does so long enough has not converged: it has no epoch, not its last one.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import Interval, interval, over_seeds, seed_draws

SMOOTHED_EPOCHS = 3
TOLERANCE = 0.005
STAYS_EPOCHS = 5
ROUNDING = 1e-9


@dataclass(frozen=True)
class Convergence:
    """Of one curve over several runs.

    Attributes:
        epochs: one a run; None: it had not converged when it ended.
        best_epochs: where each run's accuracy was highest, the first of equals.
    """

    epochs: tuple[int | None, ...]
    best_epochs: tuple[int, ...]

    @property
    def known(self) -> tuple[int, ...]:
        return tuple(e for e in self.epochs if e is not None)

    @property
    def mean(self) -> float | None:
        """Of those that had converged."""
        return statistics.fmean(self.known) if self.known else None

    @property
    def interval(self) -> Interval | None:
        """Of the mean: a bootstrap over runs; None for fewer than two."""
        known = np.array(self.known, float)
        if len(known) < 2:
            return None
        return interval(over_seeds(np.broadcast_to(known, (len(seed_draws(len(known))), len(known)))))

    @property
    def best(self) -> float:
        return statistics.fmean(self.best_epochs)


def convergence_epoch(accuracies: Sequence[float], dev_clips: int) -> int | None:
    """The epoch, counted from 1, or None. See the module.

    Args:
        accuracies: on dev, one an epoch.
        dev_clips: how many clips they are of: no tolerance is finer than one of them.
    """
    smooth = smoothed(accuracies)
    tolerance = max(TOLERANCE, 1 / dev_clips) + ROUNDING
    near = smooth >= smooth.max(initial=0) - tolerance
    for start in range(len(smooth) - STAYS_EPOCHS + 1):
        if near[start : start + STAYS_EPOCHS].all():
            return start + 1
    return None


def smoothed(accuracies: Sequence[float]) -> np.ndarray:
    """Each epoch's mean with its two neighbours; at the ends with the one there is."""
    values = np.asarray(accuracies, float)
    reach = SMOOTHED_EPOCHS // 2
    return np.array([values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))])


def convergence(curves: Sequence[Sequence[float]], dev_clips: Sequence[int]) -> Convergence:
    """Of the curves of several runs, one each."""
    return Convergence(
        tuple(convergence_epoch(curve, clips) for curve, clips in zip(curves, dev_clips, strict=True)),
        tuple(int(np.argmax(curve)) + 1 for curve in curves),
    )
