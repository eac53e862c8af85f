"""The features of a data set's labelled clips, in batches: from memory where there is room for them, else from the store.

A clip that lacks a modality has no steps of it and a mask that is False: no zeros are ever taken for data.

Shape legend: n clips, b clips of a batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..store.errors import UsageError
from ..store.reading.memory import available_bytes
from ..store.reading.prefetch import prefetch
from ..store.spec import StreamSpec
from .models.base import Steps
from .splits import usable_splits
from .stream import Stored, Stream, from_packed, from_reader

if TYPE_CHECKING:
    from ..store import Store, TierChoice

Batch = tuple[Tensor, Steps | None, Steps | None]
AHEAD = 2  # batches that are read from a store before they are wanted


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
        some = np.any([self.stream(m).present for m in modalities], axis=0)
        return np.flatnonzero((self.split == split) & some)

    def batch(self, clips: Tensor, modalities: Sequence[str]) -> tuple[Steps | None, Steps | None]:
        """Audio and visual steps of some clips; None for a modality that is not among those asked for."""
        audio, visual = (self.stream(m).batch(clips) if m in modalities else None for m in ("audio", "visual"))
        return audio, visual

    def batches(self, groups: Iterable[Tensor], modalities: Sequence[str]) -> Iterator[Batch]:
        """`batch` of each group of clips, with the group; a background thread reads ahead what is not in memory."""

        def make(clips: Tensor) -> Batch:
            return clips, *self.batch(clips, modalities)

        if any(isinstance(self.stream(m), Stored) for m in modalities):
            return prefetch(make, groups, AHEAD)
        return map(make, groups)


def features_from_store(
    store: "Store",
    audio: str | None,
    visual: str | None,
    device: torch.device | str = "cpu",
    *,
    tier: str = "auto",
    budget_bytes: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Features:
    """One or two streams of a store, over the union of their clips.

    Args:
        audio, visual: stream names; None leaves the modality out.
        tier: where the values are kept; see `Store.reader`.
        budget_bytes: of memory, for both streams together; None: half of what is free.
        tell: called with a line for each stream: what is kept where, and why.

    Raises:
        StreamNotFound, StreamNotDone, UnknownName (tier): from the store.
        UsageError: a stream is of the other modality or has no feature vectors, or a split is missing.
    """
    names = {"audio": audio, "visual": visual}
    streams = {}
    if budget_bytes is None:
        budget_bytes = available_bytes() // 2
    for modality, name in names.items():
        if name is not None:
            check_fit(store, store.spec(name), modality)
            choice = store.choose_tier(name, None, tier, budget_bytes, None if str(device) == "cpu" else device)
            tell(choice.describe())
            streams[modality] = stream_from(store, choice, torch.device(device))
            if choice.tier == "ram":
                budget_bytes = max(0, budget_bytes - choice.bytes)
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


def stream_from(store: "Store", choice: "TierChoice", device: torch.device) -> Stream:
    """A stream's values where they were chosen to be kept."""
    spec, clips = store.spec(choice.stream), len(store.clips)
    if choice.tier == "gpu" or (choice.tier == "ram" and device.type == "cpu"):
        return from_packed(store.load(choice.stream), spec, clips, device)
    return from_reader(store.reader(choice.stream, tier=choice.tier, device=device), spec, clips)


def usable(features: Features, where: str) -> Features:
    """Keeps the clips that can be trained on or tested with: labelled, in a split, with a modality."""
    if len(features.classes) < 2:
        raise UsageError(f"{where}: {len(features.classes)} class(es), expected at least 2 to tell apart")
    streams = [s for s in (features.audio, features.visual) if s is not None]
    some = np.any([s.present for s in streams], axis=0)
    split, notes = usable_splits(features.split, features.groups, some & (features.labels.numpy() >= 0), where)
    kept = np.flatnonzero(split != None)  # noqa: E711 - elementwise
    index = torch.from_numpy(kept)
    audio, visual = (None if s is None else s.select(index) for s in (features.audio, features.visual))
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
    """Raises UsageError unless the stream has one vector a step, of this modality or of both; names the streams that have."""
    fitting = vector_streams(store, modality)
    known = f"{modality} streams that fit: {', '.join(fitting) or 'none, extract one first'}"
    if spec.modality not in (modality, "audio-visual"):  # of both: only where it is asked for by name
        raise UsageError(f"stream {spec.name} is {spec.modality}, not {modality}; {known}")
    if len(spec.feature_shape) != 1 or spec.dtype == "uint8":
        shape = " x ".join(map(str, spec.feature_shape))
        raise UsageError(f"stream {spec.name} holds {shape} {spec.dtype} pictures, expected one vector a step; {known}")


def vector_streams(store: "Store", modality: str) -> list[str]:
    """The store's streams of a modality that have one vector a step, sorted."""
    specs = [store.spec(name) for name in store.streams()]
    return [s.name for s in specs if s.modality == modality and len(s.feature_shape) == 1 and s.dtype != "uint8"]
