"""A stream in memory: all clips end to end, without padding.

Shape legend: n clips, T steps, F the shape of one step's feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .reading.files import StreamFiles
from .reading.memory import zeros
from .reading.reader import files_and_rows
from .reading.tiers import load_valid, load_values
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
    """See `Store.load`. Beside the result, some MB are in memory."""
    files, rows = files_and_rows(store, stream, split)
    spec, what = files.head.spec, f"{store.place}: stream {stream}"
    values = zeros((rows.steps, *spec.feature_shape), spec.dtype, what)
    valid = zeros((rows.steps,), "bool", what)
    load_values(files, rows, values)
    load_valid(files, rows, valid)
    return Packed(values, valid, np.append(rows.starts, rows.steps), rows.clips)


def valid_steps(store: "Store", stream: str) -> int:
    """See `Store.valid_steps`."""
    entries = list(store.entries(stream))
    files = StreamFiles(store.place, store.head(stream), len(store.clips), store.shard_size, entries)
    return sum(int(files.valid(entry.shard).sum()) for entry in entries)


def digest(store: "Store", streams: Sequence[str]) -> str:
    """See `Store.digest`."""
    parts = {"clips": store.identity.clips_digest}
    for stream in sorted(streams):
        shards = [entry.digest for entry in store.entries(stream)]
        parts[stream] = digest_json([store.spec(stream).digest(), shards])
    return digest_json(parts)
