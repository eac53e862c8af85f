"""Features that stay where they are computed on: whole streams as tensors on the device, batches by index arithmetic.

A clip that lacks a modality has no steps of it and a mask that is False: no zeros are ever taken for data.

Shape legend: n clips, l feature length, b clips of a batch, t steps of its longest clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..store.errors import UsageError
from ..store.spec import StreamSpec
from .models.base import Input, Steps
from .splits import usable_splits

if TYPE_CHECKING:
    from ..store import Packed, Store

CHUNK_STEPS = 1 << 16  # steps that are converted at a time where a whole stream is looked at
CONSTANT_STD = 1e-6  # a feature that varies less than this share of the largest is constant


@dataclass(frozen=True)
class Stream:
    """One stream of all clips, end to end, on the device.

    Attributes:
        name: such as "audio.hubert".
        rate_hz: steps a second.
        values: (steps, l) in the stored dtype.
        valid: (steps,) bool.
        starts, lengths: (n,) int64 on the CPU: clip i has values[starts[i] : starts[i] + lengths[i]]; length 0: it has none.
        digest: of the stream's specification.
    """

    name: str
    rate_hz: float
    values: Tensor
    valid: Tensor
    starts: Tensor
    lengths: Tensor
    digest: str

    @property
    def input(self) -> Input:
        return Input(self.values.shape[1], self.rate_hz)

    def present(self) -> np.ndarray:
        """(n,) bool: the clip has at least one valid step."""
        total = np.concatenate([[0], np.cumsum(self.valid.cpu().numpy())])
        starts = self.starts.numpy()
        return total[starts + self.lengths.numpy()] > total[starts]

    def batch(self, clips: Tensor) -> Steps:
        """Gathers some clips, padded to the longest of them.

        Args:
            clips: (b,) int64 on the CPU.
        """
        lengths = self.lengths[clips]
        within = torch.arange(max(int(lengths.max()), 1))
        inside = within < lengths[:, None]  # (b, t)
        index = (self.starts[clips][:, None] + within).where(inside, 0).to(self.values.device, non_blocking=True)
        return Steps(self.values[index], self.valid[index] & inside.to(self.values.device, non_blocking=True))

    def statistics(self, clips: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature over the valid steps of some clips, (l,) float32.

        A feature that is constant there gets a standard deviation of 1.
        """
        edges = torch.zeros(len(self.valid) + 1, dtype=torch.int64)
        edges.index_add_(0, self.starts[clips], torch.ones(len(clips), dtype=torch.int64))
        edges.index_add_(0, self.starts[clips] + self.lengths[clips], -torch.ones(len(clips), dtype=torch.int64))
        inside = edges.cumsum(0)[:-1].bool()
        chunks = (inside & self.valid.cpu()).nonzero().squeeze(1).to(self.values.device).split(CHUNK_STEPS)
        count = max(sum(map(len, chunks)), 1)
        mean = torch.zeros(self.values.shape[1], dtype=torch.float64, device=self.values.device)
        for chunk in chunks:
            mean += self.values[chunk].double().sum(0) / count
        square = torch.zeros_like(mean)
        for chunk in chunks:
            square += (self.values[chunk].double() - mean).square().sum(0) / count
        std = square.sqrt()
        constant = std <= CONSTANT_STD * torch.maximum(mean.abs(), std.max())
        return mean.float(), torch.where(constant, torch.ones_like(std), std).float()


@dataclass(frozen=True)
class Features:
    """The labelled clips of a data set with an audio stream, a visual one, or both.

    Attributes:
        dataset, task: of the store.
        classes: class names; a label is an index into them.
        ids: (n,) clip ids, as text.
        labels: (n,) int64 on the CPU.
        split: (n,) "train", "dev" or "test".
        groups: (n,) text: clips cut from one recording share it.
        audio, visual: None where no such stream was asked for.
        digest: stands for the clips and for the features.
        notes: what a user should know about the splits, one line each.
    """

    dataset: str
    task: str
    classes: tuple[str, ...]
    ids: np.ndarray
    labels: Tensor
    split: np.ndarray
    groups: np.ndarray
    audio: Stream | None
    visual: Stream | None
    digest: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def stream(self, modality: str) -> Stream:
        """Raises UsageError where the modality was not loaded."""
        stream = {"audio": self.audio, "visual": self.visual}[modality]
        if stream is None:
            raise UsageError(f"the model takes {modality} features, but no {modality} stream was loaded")
        return stream

    def clips(self, split: str, modalities: Sequence[str]) -> np.ndarray:
        """(n',) int64: the clips of a split that have at least one of some modalities, ascending."""
        some = np.any([self.stream(m).present() for m in modalities], axis=0)
        return np.flatnonzero((self.split == split) & some)

    def batch(self, clips: Tensor, modalities: Sequence[str]) -> tuple[Steps | None, Steps | None]:
        """Audio and visual steps of some clips; None for a modality that is not among those asked for."""
        audio, visual = (self.stream(m).batch(clips) if m in modalities else None for m in ("audio", "visual"))
        return audio, visual


def features_from_store(
    store: "Store", audio: str | None, visual: str | None, device: torch.device | str = "cpu"
) -> Features:
    """Loads one or two streams of a store, over the union of their clips.

    Args:
        audio, visual: stream names; None leaves the modality out.

    Raises:
        StreamNotFound, StreamNotDone: from the store.
        UsageError: a stream is of the other modality or has no feature vectors, or a split is missing.
    """
    names = {"audio": audio, "visual": visual}
    streams = {}
    for modality, name in names.items():
        if name is not None:
            check_fit(store, store.spec(name), modality)
            streams[modality] = from_packed(store.load(name), store.spec(name), len(store.clips), torch.device(device))
    group = store.clips.column("group")
    ids = store.clips.column("id")
    everything = Features(
        dataset=store.dataset,
        task=store.task,
        classes=store.classes,
        ids=ids,
        labels=torch.from_numpy(store.clips.labels(store.classes)),
        split=store.clips.column("split"),
        groups=np.where(group == None, ids, group),  # noqa: E711 - elementwise
        audio=streams.get("audio"),
        visual=streams.get("visual"),
        digest=store.digest([name for name in names.values() if name is not None]),
    )
    return usable(everything, str(store.path))


def usable(features: Features, where: str) -> Features:
    """Keeps the clips that can be trained on or tested with: labelled, in a split, with a modality."""
    if len(features.classes) < 2:
        raise UsageError(f"{where}: {len(features.classes)} class(es), expected at least 2 to tell apart")
    streams = [s for s in (features.audio, features.visual) if s is not None]
    some = np.any([s.present() for s in streams], axis=0)
    split, notes = usable_splits(features.split, features.groups, some & (features.labels.numpy() >= 0), where)
    kept = np.flatnonzero(split != None)  # noqa: E711 - elementwise
    index = torch.from_numpy(kept)
    audio, visual = (
        None if s is None else replace(s, starts=s.starts[index], lengths=s.lengths[index])
        for s in (features.audio, features.visual)
    )
    return replace(
        features,
        ids=features.ids[kept],
        labels=features.labels[index],
        split=split[kept],
        groups=features.groups[kept],
        audio=audio,
        visual=visual,
        notes=notes,
    )


def check_fit(store: "Store", spec: StreamSpec, modality: str) -> None:
    """Raises UsageError unless the stream has one vector a step, of this modality; names the streams that have."""
    fitting = vector_streams(store, modality)
    known = f"{modality} streams that fit: {', '.join(fitting) or 'none, extract one first'}"
    if spec.modality != modality:
        raise UsageError(f"stream {spec.name} is {spec.modality}, not {modality}; {known}")
    if len(spec.feature_shape) != 1 or spec.dtype == "uint8":
        shape = " x ".join(map(str, spec.feature_shape))
        raise UsageError(f"stream {spec.name} holds {shape} {spec.dtype} pictures, expected one vector a step; {known}")


def vector_streams(store: "Store", modality: str) -> list[str]:
    """The store's streams of a modality that have one vector a step, sorted."""
    specs = [store.spec(name) for name in store.streams()]
    return [s.name for s in specs if s.modality == modality and len(s.feature_shape) == 1 and s.dtype != "uint8"]


def from_packed(packed: "Packed", spec: StreamSpec, clips: int, device: torch.device) -> Stream:
    """A stream as the store gives it, with a place for each of all its clips."""
    starts, lengths = np.zeros(clips, np.int64), np.zeros(clips, np.int64)
    starts[packed.clips], lengths[packed.clips] = packed.offsets[:-1], np.diff(packed.offsets)
    return Stream(
        spec.name,
        spec.rate_hz,
        torch.from_numpy(packed.values).to(device),
        torch.from_numpy(packed.valid).to(device),
        torch.from_numpy(starts),
        torch.from_numpy(lengths),
        spec.digest(),
    )
