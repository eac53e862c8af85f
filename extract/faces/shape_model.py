"""The file of one of dlib's shape predictors, as arrays: its Python binding says what it predicts, not what it holds.

*Source:* dlib's serialize.h, float_details.h and image_processing/shape_predictor.h. A file is one row of whole numbers, each a byte
with its sign (the highest bit) and its size (the lowest four), then so many bytes, the lowest first. A float is two of them, m and e, for
m times 2 to the e. A list is its length and its items; a column is minus its rows, minus one, and its items.

Shape legend: P points, S stages, F pixels that a stage looks at, N trees of a stage, I splits and I + 1 leaves of a tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...store.errors import BmlaError

VERSION = 1
BYTES_A_NUMBER = 16  # at most, with the first, as much as its four bits can say
LANE_BYTES = 2048
INFINITE = 32_000  # exponents from here on stand for numbers that are none


@dataclass(frozen=True)
class ShapeModel:
    """A cascade of regression trees (Kazemi and Sullivan 2014). Places are in units of the face's box.

    Attributes:
        mean: (P, 2) float32, where the points are to begin with.
        anchors, offsets: (S, F) int64 and (S, F, 2) float32: each pixel lies so far from this point of the mean face.
        first, second, thresholds: (S, N, I): split i goes to 2 i + 1 where pixel `first` is brighter than pixel `second` by more
            than the threshold, else to 2 i + 2.
        leaves: (S, N, I + 1, P, 2) float32: by how much the points move.
    """

    mean: Tensor
    anchors: Tensor
    offsets: Tensor
    first: Tensor
    second: Tensor
    thresholds: Tensor
    leaves: Tensor


def read_shape_model(path: Path, device: torch.device) -> ShapeModel:
    """Reads a file, on the device: dlib's 68 points are 33 million numbers, for which a CPU takes long.

    Raises:
        BmlaError: it can't be read, or is none of a cascade whose stages and trees are all of a size.
    """
    try:
        data = torch.from_numpy(np.fromfile(path, np.uint8)).to(device)
        return _model(_Numbers(numbers_in(data)))
    except (OSError, ValueError) as error:
        raise BmlaError(f"{path}: can't be read as a shape predictor of dlib ({error})") from error


def numbers_in(data: Tensor) -> Tensor:
    """All whole numbers of a file, (m,) int64. Where one begins is known from the one before it alone, so all of a file
    would be read number by number; here many stretches are read at once, each from every place where its first number may begin.

    Args:
        data: (n,) uint8.

    Raises:
        ValueError: the last number is cut off.
    """
    n = len(data)
    if not n:
        return data.long()
    sizes = (data & 15) + 1
    ends = torch.arange(LANE_BYTES, n + LANE_BYTES, LANE_BYTES, device=data.device).clamp(max=n)[:, None]

    def onwards(at: Tensor) -> Tensor:
        return torch.where(at < ends, at + sizes[at.clamp(max=n - 1)], at)

    begins = torch.arange(0, n, LANE_BYTES, device=data.device)[:, None] + torch.arange(
        BYTES_A_NUMBER, device=data.device
    )
    at = begins
    while bool((at < ends).any()):
        at = onwards(at)
    into = (at - ends).tolist()  # how far into the next stretch each of them gets
    entered = [0]
    for stretch in into:
        entered.append(stretch[entered[-1]])
    if entered[-1] != 0:
        raise ValueError("it ends within a number")
    at = begins.gather(1, torch.tensor(entered[:-1], device=data.device)[:, None])
    found = []
    while bool((inside := at < ends).any()):
        found.append(torch.where(inside, at, n))
        at = onwards(at)
    places = torch.cat(found, 1)  # (stretches, numbers of each)
    places = places[places < n]
    head = data[places]
    size = head & 15
    values = torch.zeros(len(places), dtype=torch.int64, device=data.device)
    for k in range(int(size.max())):
        byte = data[(places + 1 + k).clamp(max=n - 1)].long()
        values += torch.where(size > k, byte << (8 * k), 0)
    return torch.where(head >= 128, -values, values)


class _Numbers:
    """Numbers that are taken one after the other. Raises ValueError where there are too few, or other ones than there should be."""

    def __init__(self, values: Tensor):
        self.values, self.at = values, 0

    def take(self, *shape: int) -> Tensor:
        count = int(np.prod(shape))
        if self.at + count > len(self.values):
            raise ValueError("it ends too early")
        taken = self.values[self.at : self.at + count].view(shape)
        self.at += count
        return taken

    def one(self) -> int:
        return int(self.take(1))

    def expect(self, number: int, what: str) -> None:
        if (found := self.one()) != number:
            raise ValueError(f"{what}: {found}, expected {number}")


def _model(numbers: _Numbers) -> ShapeModel:
    numbers.expect(VERSION, "version")
    rows = -numbers.one()
    numbers.expect(-1, "columns of the mean shape")
    if not 0 < rows < 10_000 or rows % 2:
        raise ValueError(f"{rows} numbers of the mean shape")
    mean = _floats(numbers.take(rows, 2)).view(-1, 2)
    stages = _count(numbers, "stages")
    trees = [_trees(numbers, rows) for _ in range(stages)]
    numbers.expect(stages, "stages with points")
    anchors = _stacked([numbers.take(_count(numbers, "points")) for _ in range(stages)])
    numbers.expect(stages, "stages with offsets")
    offsets = _stacked([_floats(numbers.take(_count(numbers, "offsets"), 2, 2)) for _ in range(stages)])
    if numbers.at != len(numbers.values):
        raise ValueError("it goes on after its end")
    first, second, thresholds, leaves = (_stacked(parts) for parts in zip(*trees, strict=True))
    for index, end in ((anchors, len(mean)), (first, anchors.shape[1]), (second, anchors.shape[1])):
        if not bool(((index >= 0) & (index < end)).all()):
            raise ValueError("it names a point or pixel that is not there")
    if offsets.shape[:2] != anchors.shape:
        raise ValueError("not as many offsets as points")
    return ShapeModel(mean, anchors, offsets, first, second, thresholds, leaves)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    if len({part.shape for part in parts}) > 1:
        raise ValueError("its stages are not all of a size")
    return torch.stack(list(parts))


def _count(numbers: _Numbers, what: str) -> int:
    count = numbers.one()
    if not 0 < count < 1_000_000:
        raise ValueError(f"{count} {what}")
    return count


def _trees(numbers: _Numbers, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a stage: (N, I) three times and (N, I + 1, P, 2). All trees are as deep as the first."""
    count, splits = _count(numbers, "trees"), _count(numbers, "splits")
    leaves = splits + 1
    if leaves & splits:
        raise ValueError(f"{splits} splits of a tree are no full tree")
    numbers.at -= 1  # each tree says it again
    parts = numbers.take(count, 1 + 4 * splits + 1 + leaves * (2 + 2 * rows))
    split, leaf = (
        parts[:, 1 : 1 + 4 * splits].reshape(count, splits, 4),
        parts[:, 2 + 4 * splits :].reshape(count, leaves, -1),
    )
    told = torch.tensor([splits, leaves], device=parts.device), torch.tensor([-rows, -1], device=parts.device)
    if not bool((parts[:, [0, 1 + 4 * splits]] == told[0]).all() and (leaf[..., :2] == told[1]).all()):
        raise ValueError("its trees are not all of a size")
    moves = _floats(leaf[..., 2:].reshape(count, leaves, rows // 2, 2, 2))
    return split[..., 0], split[..., 1], _floats(split[..., 2:]), moves


def _floats(pairs: Tensor) -> Tensor:
    """(..., 2) of m and e -> (...) float32. Raises ValueError where one is not finite."""
    mantissa, exponent = pairs.unbind(-1)
    if bool((exponent >= INFINITE).any()):
        raise ValueError("it holds numbers that are not finite")
    return torch.ldexp(mantissa.double(), exponent).float()
