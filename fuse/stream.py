"""One stream of all clips, given out in padded batches: from tensors on the device, or from where a store's reader keeps it.

Shape legend: n clips, l feature length, b clips of a batch, t steps of its longest clip. Where (l,) stands for a step, a picture
(height, width) or (height, width, 3) or a stack (k, l) may stand as well.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .models.base import Input, Steps

if TYPE_CHECKING:
    from ..store import Packed, Reader
    from ..store.spec import StreamSpec

STATISTICS_CLIPS = 256  # looked at together, at most
STATISTICS_NUMBERS = 1 << 24  # of them
CONSTANT_STD = 1e-6  # a feature that varies less than this share of the largest is constant


@dataclass(frozen=True)
class Stream(ABC):
    """What every stream has.

    Attributes:
        name: such as "audio.hubert".
        rate_hz: steps a second.
        shape: of a step.
        pixels: a step is a picture of uint8.
        lengths: (n,) int64 on the CPU: steps of each clip; 0: it has none.
        present: (n,) bool: the clip has at least one valid step.
        digest: of the stream's specification.
        known: statistics that were computed, by their clips: all runs of a fold ask for the same.
    """

    name: str
    rate_hz: float
    shape: tuple[int, ...]
    pixels: bool
    lengths: Tensor
    present: np.ndarray
    digest: str
    known: dict[bytes, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def length(self) -> int:
        """How many numbers a step has."""
        return math.prod(self.shape)

    @property
    def input(self) -> Input:
        return Input(self.length, self.rate_hz, () if len(self.shape) == 1 else self.shape, self.pixels)

    @abstractmethod
    def batch(self, clips: Tensor) -> Steps:
        """Some clips, padded to the longest of them.

        Args:
            clips: (b,) int64 on the CPU.
        """

    @abstractmethod
    def select(self, clips: Tensor) -> "Stream":
        """The same stream of these clips alone, (n',) int64."""

    def statistics(self, clips: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature over the valid steps of some clips, float32 on the CPU.

        A feature that is constant there gets a standard deviation of 1. Of pictures, a feature is a colour: all pixels alike.

        Returns:
            two of the shape of a step; of pictures, (1,) or (3,).
        """
        name = hashlib.sha256(clips.tobytes()).digest()
        if name not in self.known:
            self.known[name] = self.computed(clips)
        return self.known[name]

    def computed(self, clips: np.ndarray) -> tuple[Tensor, Tensor]:
        """See `statistics`."""
        longest = max(int(self.lengths[clips].max()), 1) if len(clips) else 1
        size = max(1, min(STATISTICS_CLIPS, STATISTICS_NUMBERS // (longest * self.length)))
        parts = (valid_steps(self.batch(group)) for group in torch.from_numpy(clips).split(size))
        if self.pixels:
            mean, square = pixel_moments(parts, 3 if len(self.shape) == 3 else 1)
        else:
            mean, square = (m.view(self.shape) for m in moments((part.flatten(1) for part in parts), self.length))
        std = square.sqrt()
        constant = std <= CONSTANT_STD * torch.maximum(mean.abs(), std.max())
        return mean.float(), torch.where(constant, torch.ones_like(std), std).float()


@dataclass(frozen=True)
class Resident(Stream):
    """A stream that stays where it is computed on; batches by index arithmetic.

    Attributes:
        values: (steps, l) in the stored dtype.
        valid: (steps,) bool.
        starts: (n,) int64 on the CPU: clip i has values[starts[i] : starts[i] + lengths[i]].
    """

    values: Tensor = field(repr=False)
    valid: Tensor = field(repr=False)
    starts: Tensor = field(repr=False)

    def batch(self, clips: Tensor) -> Steps:
        lengths = self.lengths[clips]
        if not len(self.values):
            return Steps(self.values.new_zeros(len(clips), 1, *self.shape), self.valid.new_zeros(len(clips), 1))
        within = torch.arange(max(int(lengths.max()), 1))
        inside = within < lengths[:, None]  # (b, t)
        index = (self.starts[clips][:, None] + within).where(inside, 0).to(self.values.device, non_blocking=True)
        return Steps(self.values[index], self.valid[index] & inside.to(self.values.device, non_blocking=True))

    def select(self, clips: Tensor) -> "Resident":
        index = clips.numpy()
        return replace(self, lengths=self.lengths[clips], present=self.present[index], starts=self.starts[clips])


@dataclass(frozen=True)
class Stored(Stream):
    """A stream too large for the device or for memory: each batch is read when it is wanted.

    Attributes:
        reader: makes batches on the device.
        rows: (n,) int64: the clip's position in the reader; -1: it has none there.
    """

    reader: "Reader" = field(repr=False)
    rows: np.ndarray = field(repr=False)

    def batch(self, clips: Tensor) -> Steps:
        rows = self.rows[clips.numpy()]
        there = np.flatnonzero(rows >= 0)
        values, _, valid = self.reader.read_many(rows[there])
        if len(there) == len(rows) and values.shape[1]:
            return Steps(values, valid)
        index = torch.from_numpy(there).to(values.device)
        shape = (len(rows), max(values.shape[1], 1))
        all_values, all_valid = values.new_zeros((*shape, *self.shape)), valid.new_zeros(shape)
        all_values[index, : values.shape[1]], all_valid[index, : valid.shape[1]] = values, valid
        return Steps(all_values, all_valid)

    def select(self, clips: Tensor) -> "Stored":
        index = clips.numpy()
        return replace(self, lengths=self.lengths[clips], present=self.present[index], rows=self.rows[index])


@dataclass(frozen=True)
class Constant(Stream):
    """A stream whose every step has one value; lengths and masks are those of another."""

    like: Stream = field(repr=False)
    value: Tensor = field(repr=False)

    def batch(self, clips: Tensor) -> Steps:
        steps = self.like.batch(clips)
        return Steps(self.value.to(steps.values.device).expand(steps.values.shape), steps.mask)

    def select(self, clips: Tensor) -> "Constant":
        return constant(self.like.select(clips), self.value)


def constant(like: Stream, value: Tensor) -> Constant:
    """Args: value: of every step, or broadcast over it."""
    return Constant(
        like.name, like.rate_hz, like.shape, like.pixels, like.lengths, like.present, like.digest, like, value
    )


@dataclass(frozen=True)
class Versions:
    """A stream and its noise variants: which of them a clip is taken from is chosen anew for every batch.

    Attributes:
        streams: the clean one first; all of the same clips and features.
    """

    streams: tuple[Stream, ...]

    def batch(self, clips: Tensor, versions: Tensor) -> Steps:
        """Some clips, each from the version of that number, padded to the longest of them.

        Args:
            clips, versions: (b,) int64 on the CPU.
        """
        parts = [(index, self.streams[v].batch(clips[index])) for v in versions.unique().tolist()
                 for index in [torch.nonzero(versions == v).flatten()]]  # fmt: skip
        if len(parts) == 1:
            return parts[0][1]
        like = parts[0][1].values
        t = max(steps.mask.shape[1] for _, steps in parts)
        values = like.new_zeros(len(clips), t, *like.shape[2:])
        mask = torch.zeros(len(clips), t, dtype=torch.bool, device=like.device)
        for index, steps in parts:
            rows = index.to(like.device)
            values[rows, : steps.mask.shape[1]], mask[rows, : steps.mask.shape[1]] = steps.values, steps.mask
        return Steps(values, mask)


def from_packed(packed: "Packed", spec: "StreamSpec", clips: int, device: torch.device) -> Resident:
    """A stream as the store loads it, with a place for each of all its clips."""
    starts, lengths, present = np.zeros(clips, np.int64), np.zeros(clips, np.int64), np.zeros(clips, bool)
    starts[packed.clips], lengths[packed.clips] = packed.offsets[:-1], packed.lengths
    present[packed.clips] = any_of_each(packed.valid, packed.offsets)
    return Resident(
        spec.name,
        spec.rate_hz,
        packed.values.shape[1:],
        spec.dtype == "uint8",
        torch.from_numpy(lengths),
        present,
        spec.digest(),
        torch.from_numpy(packed.values).to(device),
        torch.from_numpy(packed.valid).to(device),
        torch.from_numpy(starts),
    )


def from_reader(reader: "Reader", spec: "StreamSpec", clips: int) -> Stored:
    """A stream that is read batch by batch, with a place for each of all the store's clips."""
    lengths, rows, present = np.zeros(clips, np.int64), np.full(clips, -1), np.zeros(clips, bool)
    lengths[reader.clips], rows[reader.clips] = reader.lengths, np.arange(len(reader))
    present[reader.clips] = reader.any_valid()
    shape, pixels = spec.feature_shape, spec.dtype == "uint8"
    return Stored(
        spec.name,
        spec.rate_hz,
        shape,
        pixels,
        torch.from_numpy(lengths),
        present,
        spec.digest(),
        reader=reader,
        rows=rows,
    )


def any_of_each(valid: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) whether any of valid[offsets[i] : offsets[i + 1]] is."""
    total = np.concatenate([[0], np.cumsum(valid)])
    return total[offsets[1:]] > total[offsets[:-1]]


def valid_steps(steps: Steps) -> Tensor:
    """(steps, l): the valid ones."""
    return steps.values[steps.mask]


def pixel_moments(parts: Iterable[Tensor], colours: int) -> tuple[Tensor, Tensor]:
    """As `moments`, of each colour over all pixels, exactly: from how often each of the 256 values occurs."""
    counts = torch.zeros(colours, 256, dtype=torch.float64)
    for part in parts:
        pixels = part.reshape(-1, colours)
        counts += torch.stack([pixels[:, c].bincount(minlength=256) for c in range(colours)]).cpu()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    value = torch.arange(256, dtype=torch.float64)
    mean = share @ value
    return mean, (share * (value - mean[:, None]).square()).sum(1)


def moments(parts: Iterable[Tensor], columns: int) -> tuple[Tensor, Tensor]:
    """Mean and mean square deviation of each column over the rows of all parts, (columns,) float64 on the CPU, in one pass.

    Each part has its own mean; parts are joined by the formula of Chan, Golub and LeVeque (1983), which loses no digits where
    the mean is large. Both are zero where there are no rows.
    """
    count, mean, spread = 0, torch.zeros(columns, dtype=torch.float64), torch.zeros(columns, dtype=torch.float64)
    for part in parts:
        if n := len(part):
            values = part.double()
            own = values.mean(0)
            own_spread, own = (values - own).square().sum(0).cpu(), own.cpu()
            step = own - mean
            spread = spread + own_spread + step.square() * (count * n / (count + n))
            mean = mean + step * (n / (count + n))
            count += n
    return mean, spread / max(count, 1)
