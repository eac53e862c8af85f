"""What a store's clip table and ledger say in numbers: no feature is read.

Shape legend: N clips of the store, C classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..clips import SPLITS
from ..head import Head
from ..ledger import Entry
from ..quality import gathered
from ..store import Store

NO_SPLIT = "-"
EXAMPLES = 3
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class Spread:
    """How numbers lie: least, most, median, and the 5 % and 95 % quantiles; those that are missing (NaN) do not count."""

    count: int
    least: float
    low: float
    median: float
    high: float
    most: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread | None":
        """None where there is no number."""
        known = values[np.isfinite(values)]
        return cls(len(known), *np.quantile(known, QUANTILES).tolist()) if len(known) else None


@dataclass(frozen=True)
class SplitFacts:
    """One split. classes: how many have a clip in it; clips_a_class: over all classes."""

    name: str
    clips: int
    hours: float
    classes: int
    clips_a_class: Spread | None


@dataclass(frozen=True)
class FailureGroup:
    """Clips of a stream that failed at the same step with the same kind of error. message: that of the first."""

    stream: str
    step: str
    error: str
    count: int
    message: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class StreamFacts:
    """What the ledger says of one stream.

    Attributes:
        entries: of the finished shards.
        lengths: (N,) int64 steps of each clip; 0 where it failed or is not done.
        quality: name -> (N,) float64, NaN where there is none.
    """

    head: Head
    entries: tuple[Entry, ...]
    lengths: np.ndarray
    quality: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        return self.head.spec.name

    @property
    def is_picture(self) -> bool:
        """A step is a picture, grey (H, W) or coloured (H, W, 3)."""
        shape = self.head.spec.feature_shape
        return self.head.spec.dtype == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))

    @property
    def failed(self) -> int:
        return sum(len(entry.failures) for entry in self.entries)

    @property
    def done(self) -> int:
        return int((self.lengths > 0).sum())

    @property
    def pending(self) -> int:
        return len(self.lengths) - self.done - self.failed

    def to_dict(self) -> dict[str, Any]:
        spec, steps = self.head.spec, Spread.of(self.lengths[self.lengths > 0].astype(float))
        spreads = {name: Spread.of(column) for name, column in self.quality.items()}
        return {
            "name": spec.name,
            "modality": spec.modality,
            "encoder": spec.encoder,
            "shape": [len(self.lengths), self.head.steps, *spec.feature_shape],
            "dtype": spec.dtype,
            "rate_hz": spec.rate_hz,
            "frame_law": spec.frame_law,
            "specification": spec.digest(),
            "bytes": sum(entry.bytes for entry in self.entries),
            "done": self.done,
            "failed": self.failed,
            "pending": self.pending,
            "steps": asdict(steps) if steps else None,
            "quality": {name: asdict(spread) for name, spread in spreads.items() if spread},
        }


def stream_facts(store: Store, stream: str) -> StreamFacts:
    """Reads the ledger of one stream. Raises StreamNotFound, or StoreError where it is damaged."""
    head, entries, clips = store.head(stream), tuple(store.entries(stream)), store.identity.clips
    lengths = np.zeros(clips, np.int64)
    for entry in entries:
        lengths[entry.start : entry.stop] = entry.lengths
    return StreamFacts(head, entries, lengths, gathered(((e.start, e.quality) for e in entries), clips))


def count_classes(store: Store) -> dict[str, np.ndarray]:
    """Clips a class, (C,) int64, for train, dev and test and, where there are such, for clips without a split ("-")."""
    labels, splits = store.clips.labels(store.classes), split_names(store)
    counts = {
        name: np.bincount(labels[(splits == name) & (labels >= 0)], minlength=len(store.classes)) for name in SPLITS
    }
    if (splits == NO_SPLIT).any():
        counts[NO_SPLIT] = np.bincount(labels[(splits == NO_SPLIT) & (labels >= 0)], minlength=len(store.classes))
    return counts


def count_splits(store: Store, counts: dict[str, np.ndarray]) -> list[SplitFacts]:
    """Each split of `count_classes` in numbers; an empty one too."""
    splits = split_names(store)
    seconds = durations(store)
    return [
        SplitFacts(
            name,
            int((splits == name).sum()),
            float(seconds[splits == name].sum()) / 3600,
            int((classes > 0).sum()),
            Spread.of(classes.astype(float)),
        )
        for name, classes in counts.items()
    ]


def split_names(store: Store) -> np.ndarray:
    """(N,) the split of each clip, "-" where it has none."""
    return store.clips.table["split"].fill_null(NO_SPLIT).to_numpy(zero_copy_only=False)


def durations(store: Store) -> np.ndarray:
    """(N,) seconds."""
    return store.clips.column("end_s") - store.clips.column("start_s")


def group_failures(streams: Iterable[StreamFacts]) -> list[FailureGroup]:
    """Failures by stream, step and error; the most frequent first."""
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for stream in streams:
        for failure in (f for entry in stream.entries for f in entry.failures):
            groups.setdefault((stream.name, failure.step, failure.error), []).append((failure.clip, failure.message))
    found = [
        FailureGroup(*key, len(clips), clips[0][1], tuple(clip for clip, _ in clips[:EXAMPLES]))
        for key, clips in groups.items()
    ]
    return sorted(found, key=lambda g: (-g.count, g.stream, g.step, g.error))


def shown_streams(store: Store, wanted: Sequence[str]) -> list[str]:
    """The streams asked for, without repetition; all without a wish. Raises StreamNotFound."""
    for stream in wanted:
        store.head(stream)
    return list(dict.fromkeys(wanted)) or store.streams()
