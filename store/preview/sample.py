"""Some clips of a stream, chosen so that the same store gives the same ones, and what they show: bounded, however large the
store is.

Shape legend: N clips of the store, n steps of a clip, F the shape of one step's feature, L numbers of a step, H x W a picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from ..reading.files import StreamFiles
from ..reading.reader import Reader, choose
from ..reading.tiers import Rows
from ..store import Store
from .facts import StreamFacts

SEED = 0
SAMPLE_CLIPS = 256
SAMPLE_BYTES = 96 << 20
LARGEST_CLIP_BYTES = 256 << 20  # a longer clip is left out, for it would be read whole
VALID_SHARDS = 512  # whose validity is read
VALUES_A_CLIP = 512  # for the histogram
NORMAL_MAD = 1.4826  # times the median absolute deviation is the standard deviation, for normally distributed numbers


class ClipSteps(NamedTuple):
    """One clip that was read: its row in the clip table, values (n, *F), valid (n,)."""

    row: int
    values: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class ValueFacts:
    """What the numbers of some clips are like. Steps that hold NaN or infinity are counted and left out of the rest.

    Attributes:
        clips, steps: how many were read.
        not_finite: NaN and infinities among their numbers.
        least, most: of all numbers.
        mean, std: (L,) float64 of each feature over the steps.
        some: numbers from every clip, for a histogram.
    """

    clips: int
    steps: int
    not_finite: int
    least: float
    most: float
    mean: np.ndarray
    std: np.ndarray
    some: np.ndarray

    @property
    def constant(self) -> int:
        """How many features never change."""
        return int((self.std == 0).sum())


def stream_files(store: Store, stream: StreamFacts) -> StreamFiles:
    return StreamFiles(store.place, stream.head, store.identity.clips, store.shard_size, stream.entries)


def readable(stream: StreamFacts) -> np.ndarray:
    """(N,) bool: the clip has features and is not too long to be looked at."""
    step_bytes = prod(stream.head.spec.feature_shape) * np.dtype(stream.head.spec.dtype).itemsize
    return (stream.lengths > 0) & (stream.lengths * step_bytes <= LARGEST_CLIP_BYTES)


def choose_rows(stream: StreamFacts) -> np.ndarray:
    """Rows of a random sample, ascending: as many as the bounds on clips and bytes allow."""
    rows = np.random.default_rng(SEED).permutation(np.flatnonzero(readable(stream)))[:SAMPLE_CLIPS]
    step_bytes = prod(stream.head.spec.feature_shape) * np.dtype(stream.head.spec.dtype).itemsize
    fits = np.cumsum(stream.lengths[rows] * step_bytes) <= SAMPLE_BYTES
    return np.sort(rows[: max(int(fits.sum()), 1)])


def choose_of_classes(store: Store, can: np.ndarray, classes: Sequence[int], each: int) -> list[tuple[int, list[int]]]:
    """Rows of a few clips a class, the same ones whatever stream is looked at, as far as it has them.

    Args:
        can: (N,) bool: clips that can be shown.
        classes: indices of classes; -1 is no class.

    Returns:
        (class, rows) of those that have any.
    """
    labels = store.clips.labels(store.classes)
    chosen = []
    for label in classes:
        rows = np.random.default_rng([SEED, label + 1]).permutation(np.flatnonzero(labels == label))
        if len(rows := rows[can[rows]][:each]):
            chosen.append((label, np.sort(rows).tolist()))
    return chosen


def read_clips(files: StreamFiles, rows: Sequence[int] | np.ndarray) -> Iterator[ClipSteps]:
    """Clips that have features, in the order asked for. Raises StoreError where a shard is missing or damaged."""
    wanted = np.asarray(rows, np.int64)
    ascending = np.unique(wanted)
    found = Rows.of(files, ascending)
    reader = Reader(files, found, choose(files, found, "shard", None, None))
    for row in wanted:
        values, _, valid = reader.read_many([int(np.searchsorted(ascending, row))])
        yield ClipSteps(int(row), values[0], valid[0])


def invalid_shares(files: StreamFiles, stream: StreamFacts) -> tuple[np.ndarray, np.ndarray]:
    """Which share of each clip's steps is not valid, of the clips in evenly spread shards.

    Returns:
        (m,) rows and (m,) shares.
    """
    entries = stream.entries
    if len(entries) > VALID_SHARDS:
        entries = tuple(entries[i] for i in np.linspace(0, len(entries) - 1, VALID_SHARDS).round().astype(int))
    rows, shares = [np.zeros(0, np.int64)], [np.zeros(0)]
    for entry in entries:
        lengths = stream.lengths[entry.start : entry.stop]
        valid = files.valid(entry.shard)[: len(lengths)]
        count = (valid & (np.arange(valid.shape[1]) < lengths[:, None])).sum(1)
        has = np.flatnonzero(lengths)
        rows.append(entry.start + has)
        shares.append(1 - count[has] / lengths[has])
    return np.concatenate(rows), np.concatenate(shares)


def jump_of(pictures: np.ndarray) -> float:
    """The largest difference between neighbouring pictures: root mean square over pixels, in grey levels; NaN for one alone.

    Args:
        pictures: (n, H, W) or (n, H, W, 3) uint8.
    """
    steps = (np.float32(b) - a for a, b in pairwise(pictures))
    return max((float(np.sqrt(np.mean(step * step))) for step in steps), default=float("nan"))


def robust_z(values: np.ndarray) -> np.ndarray:
    """How far each number lies from the median, in robust standard deviations (median absolute deviation x 1.4826).

    A NaN stays one; NaN throughout where most numbers are equal, so that there is no scale.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.full(len(values), np.nan)
    distance = values - np.median(known)
    scale = NORMAL_MAD * np.median(np.abs(known - np.median(known)))
    return distance / scale if scale > 0 else np.full(len(values), np.nan)


def value_facts(clips: Iterator[ClipSteps], length: int) -> ValueFacts:
    """Sums over clips, so that one at a time is in memory.

    Args:
        length: L.
    """
    steps, mean, squares = 0, np.zeros(length), np.zeros(length)
    count, not_finite, least, most = 0, 0, np.inf, -np.inf
    some = [np.zeros(0)]
    for clip in clips:
        count += 1
        values = clip.values.reshape(len(clip.values), length).astype(np.float64)
        finite = np.isfinite(values)
        not_finite += int((~finite).sum())
        values = values[finite.all(1)]
        if not len(values):
            continue
        least, most = min(least, float(values.min())), max(most, float(values.max()))
        # Chan, Golub and LeVeque (1983): mean and sum of squares of two parts joined
        n, part = len(values), values.mean(0)
        shift = part - mean
        squares += ((values - part) ** 2).sum(0) + shift**2 * (steps * n / (steps + n))
        mean += shift * (n / (steps + n))
        steps += n
        some.append(values.ravel()[:: max(values.size // VALUES_A_CLIP, 1)])
    std = np.sqrt(squares / max(steps, 1))
    return ValueFacts(count, steps, not_finite, least, most, mean, std, np.concatenate(some))
