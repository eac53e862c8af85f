"""Are two settings told apart by their test clips? Tests on the same clips, and intervals over recordings and seeds.

What each one can be trusted with:

- `mcnemar` (McNemar, 1947) is what readers expect. It takes every clip for independent of every other. Clips cut from one recording
  are not, and pooled over seeds each clip counts several times: its p-value is too small then.
- `cluster_permutation` swaps the two settings' answers recording by recording, all clips and seeds of it together. So neither of
  the two dependences shortens its p-value. It speaks of new recordings for these trained models, not of new seeds.
- The bootstrap draws recordings and seeds anew, both with replacement, the same for every setting. It errs to the wide side: what is
  particular to a seed and a clip is counted in both draws (Owen, 2007, on crossed data). A few seeds drawn with replacement vary
  too little, by (s - 1) / s; their deviations are stretched by sqrt(s / (s - 1)) (Hesterberg, 2015). Of one seed, the interval
  speaks of that seed alone.

Shape legend: s seeds, n clips, g groups (recordings), r rounds, c classes.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import binom, chi2

ROUNDS = 2000
F1_ROUNDS = 500
CHUNK_ROUNDS = 100
BOOTSTRAP_SEED = 0
INTERVAL = (2.5, 97.5)  # per cent
EXACT_BELOW = 25  # discordant pairs: fewer are counted out, more are close enough to chi-square

Interval = tuple[float, float]


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p-value that clips which only one of two settings gets right fall to either alike.

    Exact binomial below EXACT_BELOW such clips, else chi-square with continuity correction (Edwards, 1948).

    Args:
        only_a, only_b: clips that only the one, only the other got right.
    """
    total = only_a + only_b
    if total == 0:
        return 1.0
    if total < EXACT_BELOW:
        return min(1.0, 2 * float(binom.cdf(min(only_a, only_b), total, 0.5)))
    return float(chi2.sf(max(abs(only_a - only_b) - 1, 0) ** 2 / total, 1))


def cluster_permutation(differences: np.ndarray) -> float:
    """Exact two-sided p-value of a sum under all swaps of the two settings within whole groups.

    Every group's difference keeps its size and has either sign alike; all 2^g cases are counted, group sizes at a time. With groups
    of one clip and one seed it is McNemar's exact test.

    Args:
        differences: (g,) whole numbers: how many more right answers, over clips and seeds, the first setting has in each group.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    distribution = np.ones(1)  # of the sum; its middle is zero
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        step = np.zeros(2 * size * count + 1)
        step[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, step)
    reach = len(distribution) // 2
    observed = abs(int(differences.sum()))
    outside = distribution[reach + observed :].sum() + distribution[: reach - observed + 1].sum()
    return 1.0 if observed == 0 else float(min(1.0, outside))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm, 1979): below 5 %, they are wrong about any of them in 5 % at most."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def interval(rounds: np.ndarray) -> Interval:
    """The middle 95 % of a bootstrap's rounds."""
    low, high = np.percentile(rounds, INTERVAL)
    return float(low), float(high)


def centred(rounds: np.ndarray, value: float) -> np.ndarray:
    """A bootstrap's rounds without their bias: moved so that their mean is the value itself.

    Macro F1 needs it. A round lacks classes of few clips, which do not count in it then, and the classes that are hard to answer are
    rarely answered elsewhere: its mean over rounds is above that of all clips, by half an interval where a class has a handful of clips.
    """
    return np.asarray(rounds - rounds.mean() + value)


def per_group(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(s, g) sums over each group's clips, and (g,) clips; groups by name.

    Args:
        values: (s, n).
        groups: (n,) text.
    """
    _, number = np.unique(groups.astype(str), return_inverse=True)
    sums = np.stack([np.bincount(number, row) for row in values])
    return sums, np.bincount(number).astype(np.float64)


def bootstrap_mean(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(r,) means over seeds and clips, in each round over groups and seeds drawn anew.

    The same groups in the same order are drawn alike in the same round, and as many seeds too.

    Args:
        values: (s, n): 1 for a right answer, or a difference of two settings.
        groups: (n,) text.
    """
    sums, sizes = per_group(values, groups)
    weights = group_draws(len(sizes))
    means = []
    for start in range(0, ROUNDS, CHUNK_ROUNDS):
        drawn = weights[start : start + CHUNK_ROUNDS].astype(np.float64)
        means.append((drawn @ sums.T) / (drawn @ sizes)[:, None])
    return over_seeds(np.concatenate(means))


def bootstrap_macro_f1(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(F1_ROUNDS,) macro F1, the mean over seeds, in each round over groups and seeds drawn anew.

    A class that neither occurs nor is answered in a round does not count in it.

    Args:
        predicted: (s, n) class indices.
        labels: (n,).
        groups: (n,) text.
    """
    _, number = np.unique(groups.astype(str), return_inverse=True)
    shape = (int(max(predicted.max(), labels.max())) + 1, int(number.max()) + 1)
    weights = group_draws(shape[1])[:F1_ROUNDS].T.astype(np.float64)  # (g, r)

    def counted(classes: np.ndarray, which: np.ndarray) -> np.ndarray:
        """(c, r) clips of each class in each round."""
        table = csr_matrix((which.astype(np.float64), (classes, number)), shape)
        return np.asarray(table @ weights)

    truth = counted(labels, np.ones(len(labels)))
    scores = []
    for answers in predicted:
        total = truth + counted(answers, np.ones(len(labels)))
        f1 = np.divide(2 * counted(labels, answers == labels), total, out=np.zeros_like(total), where=total > 0)
        scores.append(f1.sum(0) / (total > 0).sum(0))
    return over_seeds(np.stack(scores, 1))


def over_seeds(rounds: np.ndarray) -> np.ndarray:
    """(r,) means over seeds drawn with replacement; see the module for how few are stretched.

    Args:
        rounds: (r, s) of each seed.
    """
    s = rounds.shape[1]
    if s == 1:
        return rounds[:, 0]
    middle = rounds.mean(1)
    drawn = np.take_along_axis(rounds, seed_draws(s)[: len(rounds)], 1).mean(1)
    return middle + (drawn - middle) * math.sqrt(s / (s - 1))


@lru_cache(maxsize=2)
def group_draws(groups: int) -> np.ndarray:
    """(ROUNDS, g) uint8: how often each group is drawn in each round."""
    generator = np.random.default_rng([BOOTSTRAP_SEED, 0])
    rows = np.arange(CHUNK_ROUNDS)[:, None] * groups
    counts = np.empty((ROUNDS, groups), np.uint8)  # no group comes near 256 times
    for start in range(0, ROUNDS, CHUNK_ROUNDS):
        drawn = (generator.integers(groups, size=(CHUNK_ROUNDS, groups)) + rows).ravel()
        counts[start : start + CHUNK_ROUNDS] = np.bincount(drawn, minlength=CHUNK_ROUNDS * groups).reshape(-1, groups)
    return counts


@lru_cache(maxsize=8)
def seed_draws(seeds: int) -> np.ndarray:
    """(ROUNDS, s) indices of the seeds of each round."""
    return np.random.default_rng([BOOTSTRAP_SEED, 1]).integers(seeds, size=(ROUNDS, seeds))
