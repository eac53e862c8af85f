"""A stream in memory: all clips end to end, without padding.

Shape legend: n clips, T steps, F the shape of one step's feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import shard
from .sealing import digest_json

if TYPE_CHECKING:
    from .store import Store


@dataclass(frozen=True)
class Packed:
    """Features of n clips, laid end to end.

    Attributes:
        values: (steps, *F) in the stored dtype.
        valid: (steps,) bool: the step's own validity (a frame whose face was found).
        offsets: (n + 1,) int64: clip i has values[offsets[i]:offsets[i + 1]].
        clips: (n,) int64 row numbers in the clip table, ascending; clips that failed are absent.
    """

    values: np.ndarray
    valid: np.ndarray
    offsets: np.ndarray
    clips: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(n,) steps of each clip."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.clips)

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, T, *F) padded with zeros, and (n, T) which steps are valid; T of the longest clip."""
        inside = np.arange(self.lengths.max(initial=0)) < self.lengths[:, None]
        values = np.zeros((*inside.shape, *self.values.shape[1:]), self.values.dtype)
        valid = np.zeros(inside.shape, bool)
        values[inside], valid[inside] = self.values, self.valid
        return values, valid


def load(store: "Store", stream: str, split: str | None) -> Packed:
    """See `Store.load`. One shard at a time is in memory beside the result."""
    head = store.head(stream)
    rows = store.clips.indices(split)
    store.require(stream, rows)
    entries = list(store.entries(stream))
    lengths = np.zeros(store.identity.clips, np.int64)
    for entry in entries:
        lengths[entry.start : entry.stop] = entry.lengths
    wanted = np.zeros(store.identity.clips, bool)
    wanted[rows] = True
    wanted &= lengths > 0
    offsets = np.concatenate([[0], np.cumsum(lengths[wanted])])
    values = np.empty((offsets[-1], *head.spec.feature_shape), head.spec.dtype)
    valid = np.empty(offsets[-1], bool)
    arrays = [store.array(stream, name) for name in ("values", "valid")]
    at = 0
    for entry in entries:
        rows = wanted[entry.start : entry.stop]
        if not rows.any():
            continue
        block, block_valid = (shard.read_part(array, entry) for array in arrays)
        inside = np.arange(block.shape[1]) < np.where(rows, entry.lengths, 0)[:, None]
        end = at + int(inside.sum())
        values[at:end], valid[at:end] = block[inside], block_valid[inside]
        at = end
    return Packed(values, valid, offsets, np.flatnonzero(wanted))


def valid_steps(store: "Store", stream: str) -> int:
    """See `Store.valid_steps`."""
    valid = store.array(stream, "valid")
    return sum(int(shard.read_part(valid, entry).sum()) for entry in store.entries(stream))


def digest(store: "Store", streams: Sequence[str]) -> str:
    """See `Store.digest`."""
    parts = {"clips": store.identity.clips_digest}
    for stream in sorted(streams):
        shards = [entry.digest for entry in store.entries(stream)]
        parts[stream] = digest_json([store.spec(stream).digest(), shards])
    return digest_json(parts)
