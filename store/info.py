"""What a store holds, in numbers: for `bmla store info` and for programs."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from .store import Store


@dataclass(frozen=True)
class StreamInfo:
    """One stream in numbers. failures: how many clips failed for which reason; specification: its provenance."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    rate_hz: float
    bytes: int
    done: int
    failed: int
    pending: int
    failures: dict[str, int]
    specification: dict[str, Any]


@dataclass(frozen=True)
class StoreInfo:
    """A store in numbers. splits: clips a split; labels: clips a class."""

    path: str
    dataset: str
    task: str
    options: dict[str, Any]
    clips: int
    shard_size: int
    clips_digest: str
    splits: dict[str, int]
    labels: dict[str, int]
    speakers: int
    hours: float
    streams: tuple[StreamInfo, ...]


def info(store: Store) -> StoreInfo:
    """Reads the clip table and the ledgers, never the features."""
    clips, identity = store.clips, store.identity
    splits, labels, speakers = (clips.counts(name) for name in ("split", "label", "speaker"))
    seconds = float(np.sum(clips.column("end_s") - clips.column("start_s")))
    return StoreInfo(
        path=str(store.place),
        dataset=store.dataset,
        task=store.task,
        options=identity.options,
        clips=identity.clips,
        shard_size=identity.shard_size,
        clips_digest=identity.clips_digest,
        splits=splits,
        labels={name: labels.get(name, 0) for name in store.classes},
        speakers=len([s for s in speakers if s != "-"]),
        hours=seconds / 3600,
        streams=tuple(stream_info(store, name) for name in store.streams()),
    )


def stream_info(store: Store, stream: str) -> StreamInfo:
    spec, steps = store.spec(stream), store.steps(stream)
    entries = list(store.entries(stream))
    covered = sum(e.stop - e.start for e in entries)
    failed = sum(len(e.failures) for e in entries)
    return StreamInfo(
        name=stream,
        shape=(store.identity.clips, steps, *spec.feature_shape),
        dtype=spec.dtype,
        rate_hz=spec.rate_hz,
        bytes=sum(e.bytes for e in entries),
        done=covered - failed,
        failed=failed,
        pending=store.identity.clips - covered,
        failures=dict(Counter(f"{f.step}: {f.error}" for e in entries for f in e.failures).most_common()),
        specification=spec.to_dict(),
    )
