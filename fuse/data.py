"""The features of a data set's labelled clips, in batches: from memory where there is room for them, else from the store.

A clip that lacks a modality has no steps of it and a mask that is False: no zeros are ever taken for data.

Shape legend: n clips, b clips of a batch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..store.errors import UsageError
from ..store.reading.memory import available_bytes
from ..store.reading.prefetch import prefetch
from ..store.spec import StreamSpec
from .fold_streams import stored_names
from .leakage import Leak, Seen, leaks_into, seen_by
from .models.base import MODALITIES, Steps
from .models.kinds import VECTORS, describe, kind_of
from .models.table import common_kinds
from .splits import fold_splits, session_of, usable_splits
from .stream import Stored, Stream, Versions, from_packed, from_reader

if TYPE_CHECKING:
    from ..store import Store, TierChoice

AHEAD = 2  # batches that are read from a store before they are wanted


class Draw(NamedTuple):
    """Some clips, and which version of each stream every one of them is taken from.

    Attributes:
        clips: (b,) int64 on the CPU.
        versions: by modality, (b,) int64 on the CPU: 0 the clean stream, v the v-th of the noise variants drawn from. A modality
            that is not in it is clean.
    """

    clips: Tensor
    versions: Mapping[str, Tensor] = {}


class Batch(NamedTuple):
    """Some clips and their steps; None for a modality that was not asked for."""

    clips: Tensor
    audio: Steps | None
    visual: Steps | None


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
        variants: noise variants of the two streams by name, such as "audio.logspec@white=0"; of the same clips.
        variant_digests: by the same names, what stands for their values.
        specifications: by stream, what made its numbers (as JSON), of the streams of a store.
        units: by what may stay together in one fold ("speaker", "session"): (n,) text; without an entry, the groups alone.
        units_of_all: the same of all clips that there are, used or not, groups included; without an entry, those used.
        of_folds: by name, the streams that each fold has of its own, in the order of the folds; see `fold_streams.py`.
        seen: what the making of a stream has seen of these clips, by the digest of its specification; see `leakage.py`.
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
    variants: Mapping[str, Stream] = field(default_factory=dict)
    variant_digests: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, np.ndarray] = field(default_factory=dict)
    specifications: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    units_of_all: Mapping[str, np.ndarray] = field(default_factory=dict)
    of_folds: Mapping[str, tuple[Stream, ...]] = field(default_factory=dict)
    seen: Mapping[str, tuple[Seen, ...]] = field(default_factory=dict)

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

    def variant(self, name: str) -> Stream:
        """A noise variant. Raises UsageError where it was not loaded."""
        if name not in self.variants:
            raise UsageError(f"no features {name} were loaded; variants: {', '.join(self.variants) or 'none'}")
        return self.variants[name]

    def under(self, names: Sequence[str]) -> "Features":
        """The same clips with noise: each variant takes the place of the stream of its modality."""
        changed: dict[str, Stream] = {}
        for name in names:
            modality = self.modality_of(name)
            if modality in changed:
                raise UsageError(f"{changed[modality].name} and {name} are both {modality}: expected one of a modality")
            changed[modality] = self.variant(name)
        return replace(self, audio=changed.get("audio", self.audio), visual=changed.get("visual", self.visual))

    def modality_of(self, variant: str) -> str:
        """Raises UsageError for a variant of another stream."""
        for modality, stream in (("audio", self.audio), ("visual", self.visual)):
            if stream is not None and variant.partition("@")[0] == stream.name:
                return modality
        raise UsageError(f"{variant} is no variant of the streams that were loaded")

    def folded(self, folds: int, fold: int, by: str) -> "Features":
        """The same clips with the splits of a fold of a cross-validation; see `splits.fold_splits`.

        Raises:
            UsageError: fewer units than folds, or the clips do not say what `by` asks for.
        """
        if folds == 0:
            return self
        units = self.groups if by == "group" else self.units.get(by)
        if units is None:
            raise UsageError(
                f"{self.dataset}: no {by} is known of these clips: --fold-by group keeps recordings together"
            )
        audio, visual = (s and self.of_folds.get(s.name, (s,) * folds)[fold] for s in (self.audio, self.visual))
        variants = {name: self.of_folds.get(name, (s,) * folds)[fold] for name, s in self.variants.items()}
        split = fold_splits(units, folds, fold, self.units_of_all.get(by))
        return replace(self, audio=audio, visual=visual, variants=variants, split=split, notes=())

    def leaks(self, modalities: Sequence[str]) -> tuple[Leak, ...]:
        """Clips of the dev and test splits that the making of the streams of some modalities has seen."""
        streams = [s for m, s in (("audio", self.audio), ("visual", self.visual)) if s is not None and m in modalities]
        return leaks_into(self.split, [seen for s in streams for seen in self.seen.get(s.digest, ())])

    def versions(self, augment: Sequence[str]) -> dict[str, Versions]:
        """By modality: the clean stream and those of `augment`, in that order."""
        found = {m: [s] for m, s in (("audio", self.audio), ("visual", self.visual)) if s is not None}
        for name in augment:
            found[self.modality_of(name)].append(self.variant(name))
        return {modality: Versions(tuple(streams)) for modality, streams in found.items()}

    def batch(self, clips: Tensor, modalities: Sequence[str]) -> Batch:
        """Steps of some clips, without noise."""
        return Batch(clips, *(self.stream(m).batch(clips) if m in modalities else None for m in MODALITIES))

    def batches(self, draws: Iterable[Draw], modalities: Sequence[str], augment: Sequence[str] = ()) -> Iterator[Batch]:
        """The steps of each draw; a background thread reads ahead what is not in memory."""
        versions = self.versions(augment)

        def steps(draw: Draw, modality: str) -> Steps | None:
            if modality not in modalities:
                return None
            if modality not in draw.versions:
                return self.stream(modality).batch(draw.clips)
            return versions[modality].batch(draw.clips, draw.versions[modality])

        def make(draw: Draw) -> Batch:
            return Batch(draw.clips, *(steps(draw, modality) for modality in MODALITIES))

        streams = [s for m in modalities for s in versions[m].streams]
        if any(isinstance(s, Stored) for s in streams):
            return prefetch(make, draws, AHEAD)
        return map(make, draws)


def features_from_store(
    store: "Store",
    audio: str | None,
    visual: str | None,
    device: torch.device | str = "cpu",
    *,
    models: Sequence[str] = (),
    variants: Sequence[str] = (),
    tier: str = "auto",
    budget_bytes: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
    folds: int = 0,
) -> Features:
    """One or two streams of a store, and noise variants of them, over the union of their clips.

    Args:
        audio, visual: stream names; None leaves the modality out.
        models: that will be trained on them, which says what a step may be; none named: vectors.
        variants: noise variants of these streams, to train with or to test on.
        tier: where the values are kept; see `Store.reader`.
        budget_bytes: of memory, for both streams together; None: half of what is free.
        tell: called with a line for each stream: what is kept where, and why.
        folds: of the cross-validation that they are for: a name may then stand for a stream of each fold.

    Raises:
        StreamNotFound, StreamNotDone, UnknownName (tier): from the store.
        UsageError: a stream is of the other modality or not of what the models take, or a split is missing.
    """
    names = {"audio": audio, "visual": visual}
    wanted = [(modality, name) for modality, name in names.items() if name is not None]
    wanted += [(check_variant(store, name, names), name) for name in dict.fromkeys(variants)]
    parts = {name: stored_names(name, store.streams(), folds) for _, name in wanted}
    loaded: dict[str, tuple[Stream, ...]] = {}
    seen: dict[str, tuple[Seen, ...]] = {}
    if budget_bytes is None:
        budget_bytes = available_bytes() // 2
    for modality, name in wanted:
        several: list[Stream] = []
        for part in parts[name]:
            spec = store.spec(part)
            check_fit(store, spec, modality, common_kinds(models, modality))
            choice = store.choose_tier(part, None, tier, budget_bytes, None if str(device) == "cpu" else device)
            tell(choice.describe())
            several.append(replace(stream_from(store, choice, torch.device(device)), name=name))
            seen[spec.digest()] = seen_by(spec, store.clips, store.dataset)
            if choice.tier == "ram":
                budget_bytes = max(0, budget_bytes - choice.bytes)
        loaded[name] = tuple(several)
    streams = {name: own[0] for name, own in loaded.items()}
    units_of_all = units_of_store(store)
    everything = Features(
        dataset=store.dataset,
        task=store.task,
        classes=store.classes,
        ids=store.clips.column("id"),
        labels=torch.from_numpy(store.clips.labels(store.classes)),
        split=store.clips.column("split"),
        groups=units_of_all["group"],
        audio=streams.get(audio or ""),
        visual=streams.get(visual or ""),
        digest=store.digest([part for name in names.values() if name is not None for part in parts[name]]),
        variants={name: streams[name] for name in variants},
        variant_digests={name: store.digest(parts[name]) for name in variants},
        units={by: values for by, values in units_of_all.items() if by != "group"},
        units_of_all=units_of_all,
        of_folds={name: own for name, own in loaded.items() if len(own) > 1},
        seen=seen,
        specifications={name: store.spec(name).to_dict() for name in names.values() if name in store.streams()},
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
    several = [part for s in streams for part in features.of_folds.get(s.name, (s,))]
    some = np.any([s.present for s in several], axis=0)
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
        variants={name: stream.select(index) for name, stream in features.variants.items()},
        units={by: values[kept] for by, values in features.units.items()},
        of_folds={name: tuple(s.select(index) for s in several) for name, several in features.of_folds.items()},
        seen={k: tuple(replace(s, clips=s.clips[kept]) for s in several) for k, several in features.seen.items()},
    )


def units_of_store(store: "Store") -> dict[str, np.ndarray]:
    """What may stay together in a fold, for every clip of a store: see `Features.units_of_all`."""
    ids, group = store.clips.column("id"), store.clips.column("group")
    return {"group": np.where(group == None, ids, group), **units_of(store.clips.column("speaker"))}  # noqa: E711 - elementwise


def units_of(speakers: np.ndarray) -> dict[str, np.ndarray]:
    """What may stay together in a fold, of those that every clip tells: see `Features.units`."""
    units = {"speaker": speakers, "session": np.array([session_of(s) for s in speakers], object)}
    return {by: values for by, values in units.items() if (values != None).all()}  # noqa: E711 - elementwise


def check_variant(store: "Store", name: str, names: Mapping[str, str | None]) -> str:
    """The modality of a noise variant. Raises UsageError unless it is one of the streams that are used."""
    for modality, base in names.items():
        if base is not None and "@" in name and name.partition("@")[0] == base:
            return modality
    used = " or ".join(base for base in names.values() if base)
    there = [n for n in store.streams() if "@" in n and n.partition("@")[0] in names.values()]
    raise UsageError(f"{name} is no noise variant of {used}; the store has: {', '.join(there) or 'none'}")


def check_fit(store: "Store", spec: StreamSpec, modality: str, kinds: Sequence[str] = (VECTORS,)) -> None:
    """Raises UsageError unless the stream is of this modality or of both, and its steps of these kinds; names the streams that are."""
    fitting = fitting_streams(store, modality, kinds)
    known = f"{modality} streams that fit: {', '.join(fitting) or 'none, extract one first'}"
    if spec.modality not in (modality, "audio-visual"):  # of both: only where it is asked for by name
        raise UsageError(f"stream {spec.name} is {spec.modality}, not {modality}; {known}")
    if kind_of_stream(spec) not in kinds:
        shape = " x ".join(map(str, spec.feature_shape))
        what = "vectors" if len(spec.feature_shape) == 1 else "pictures"
        raise UsageError(f"stream {spec.name} holds {shape} {spec.dtype} {what}, expected {describe(kinds)}; {known}")


def kind_of_stream(spec: StreamSpec) -> str | None:
    """See `models/kinds.py`."""
    return kind_of(spec.feature_shape, spec.dtype == "uint8")


def fitting_streams(store: "Store", modality: str, kinds: Sequence[str]) -> list[str]:
    """The store's streams of a modality whose steps are of these kinds: the first kind first, sorted within it."""
    specs = [store.spec(name) for name in store.streams()]
    return [s.name for kind in kinds for s in specs if s.modality == modality and kind_of_stream(s) == kind]
