"""Mean and scatter of many steps, gathered a clip at a time without loss: what derived streams are computed with.

*Source:* the pairwise update of Chan, Golub and LeVeque 1979. Everything in float64.

Shape legend: n steps, F the shape of one step's feature, L features, k components.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Moments:
    """Of the steps seen so far.

    Attributes:
        cross: whether products of different features are summed up too; then F is (L,).
        count: steps.
        mean: F.
        scatter: summed squares about the mean, F; with `cross` (L, L).
    """

    cross: bool
    count: int = 0
    mean: np.ndarray | None = None
    scatter: np.ndarray | None = None

    def add(self, values: np.ndarray) -> None:
        """values: (n, *F), none of them NaN; n may be 0."""
        if not len(values):
            return
        values = values.astype(np.float64)
        count, mean = len(values), values.mean(axis=0)
        centred = values - mean
        scatter = centred.T @ centred if self.cross else np.square(centred).sum(axis=0)
        if self.mean is not None and self.scatter is not None:
            apart, total = mean - self.mean, self.count + count
            spread = np.outer(apart, apart) if self.cross else np.square(apart)
            scatter = self.scatter + scatter + spread * (self.count * count / total)
            mean = self.mean + apart * (count / total)
        self.count, self.mean, self.scatter = self.count + count, mean, scatter


def deviations(moments: Moments) -> np.ndarray:
    """The standard deviation of each feature (of the population), 1 where a feature never changes: F."""
    assert moments.scatter is not None
    spread = np.sqrt(moments.scatter / moments.count)
    return np.where(spread > 0, spread, 1.0)


def principal(moments: Moments, components: int) -> tuple[np.ndarray, float]:
    """The directions of the largest variance, (L, k), the largest first, and the share of all variance that they hold.

    Each points to where its largest entry is positive: a direction and its opposite are the same to the eigenvectors.
    """
    assert moments.scatter is not None
    values, vectors = np.linalg.eigh(moments.scatter / moments.count)
    kept = vectors[:, ::-1][:, :components]
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(components)])
    total = values.sum()
    return kept * signs, float(values[::-1][:components].sum() / total) if total > 0 else 1.0
