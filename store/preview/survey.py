"""Everything that the page shows of a store, in numbers and small pictures: a bounded look, however large the store is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..store import Store
from .facts import (
    FailureGroup,
    SplitFacts,
    Spread,
    StreamFacts,
    count_classes,
    count_splits,
    durations,
    group_failures,
    shown_streams,
    stream_facts,
)
from .look import Look, look_at

FORMAT = 1
PICTURE_BYTES = 2_000_000  # of all strips of the page together
MOST_STREAMS = 12  # that are looked into, crops first; the others only stand in the table


@dataclass(frozen=True)
class Survey:
    """What was found out about a store.

    Attributes:
        digest: `Store.digest` of the streams shown.
        unlabelled: clips without a class.
        counts: split -> (C,) clips a class.
        durations: (N,) seconds.
        others: streams that were not looked into.
    """

    name: str
    dataset: str
    task: str
    digest: str
    clips_digest: str
    classes: tuple[str, ...]
    unlabelled: int
    counts: dict[str, np.ndarray]
    splits: tuple[SplitFacts, ...]
    durations: np.ndarray
    looks: tuple[Look, ...]
    others: tuple[StreamFacts, ...]
    failures: tuple[FailureGroup, ...]

    @property
    def hours(self) -> float:
        return float(self.durations.sum()) / 3600

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the pictures."""
        spread = Spread.of(self.durations)
        return {
            "format": FORMAT,
            "store": self.name,
            "dataset": self.dataset,
            "task": self.task,
            "digest": self.digest,
            "clips_digest": self.clips_digest,
            "clips": len(self.durations),
            "hours": self.hours,
            "duration_s": asdict(spread) if spread else None,
            "unlabelled": self.unlabelled,
            "splits": [asdict(split) for split in self.splits],
            "classes": {
                label: {split: int(column[i]) for split, column in self.counts.items()}
                for i, label in enumerate(self.classes)
            },
            "streams": [look.to_dict() for look in self.looks] + [stream.to_dict() for stream in self.others],
            "failures": [asdict(group) for group in self.failures],
        }


def survey(store: Store, streams: Sequence[str] = ()) -> Survey:
    """Reads the tables, and the features of some clips; of an unfinished store what is done.

    Args:
        streams: none: all.

    Raises:
        StreamNotFound: naming those there are.
        StoreError: something that was read is damaged; names it.
    """
    facts = [stream_facts(store, name) for name in shown_streams(store, streams)]
    chosen = {stream.name for stream in sorted(facts, key=lambda stream: not stream.is_picture)[:MOST_STREAMS]}
    looked, others = ([s for s in facts if (s.name in chosen) is wanted] for wanted in (True, False))
    picture_bytes = PICTURE_BYTES // max(sum(stream.is_picture for stream in looked), 1)
    counts = count_classes(store)
    return Survey(
        name=store.name,
        dataset=store.dataset,
        task=store.task,
        digest=store.digest([stream.name for stream in facts]),
        clips_digest=store.identity.clips_digest,
        classes=store.classes,
        unlabelled=int((store.clips.labels(store.classes) < 0).sum()),
        counts=counts,
        splits=tuple(count_splits(store, counts)),
        durations=durations(store),
        looks=tuple(look_at(store, stream, known_quality(stream, facts), picture_bytes) for stream in looked),
        others=tuple(others),
        failures=tuple(group_failures(facts)),
    )


def known_quality(stream: StreamFacts, streams: Sequence[StreamFacts]) -> dict[str, np.ndarray]:
    """Facts on the clips of a stream: its own and, under other names, those kept with streams of the same modality."""
    modality = stream.head.spec.modality
    others = [s.quality for s in reversed(streams) if s.head.spec.modality == modality]
    return {name: column for quality in (*others, stream.quality) for name, column in quality.items()}
