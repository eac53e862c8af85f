"""Writing imported features into a store: everything is checked before the first byte is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import StoreError, StoreMismatch, UsageError
from ..identity import default_shard_size
from ..ledger import Failure
from ..lock import writer_lock
from ..merge import ShardReader
from ..place import is_url
from ..shard import ClipFeatures
from ..spec import StreamSpec
from ..store import Store, open_store
from .manifest import ContentDigest

SHARD_BYTES = 1 << 30  # shards are written whole, so they have to fit into memory several times
MOST_SHARD_BYTES = 1 << 34
LEAST_SHARD_SIZE = 8
Begin = Callable[[int, int], None]
Advance = Callable[[int], None]
PASSES = 2  # over each stream: one checks, one writes


def silent(*numbers: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Imported:
    """What came in. notes: what a person should know, a line each."""

    store: str
    stream: str
    clips: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()


class Incoming(Protocol):
    """A stream on its way in. where: the file, for messages; content: the digest it must have, None where unknown."""

    @property
    def where(self) -> str: ...

    @property
    def spec(self) -> StreamSpec: ...

    @property
    def steps(self) -> int: ...

    @property
    def compression(self) -> str: ...

    @property
    def content(self) -> str | None: ...

    def block(self, start: int, stop: int) -> list[ClipFeatures]:
        """The results of clips start to stop - 1. Raises StoreError where they can't be read or can't be kept."""


def clip_bytes(incoming: Incoming) -> int:
    """Bytes of the longest clip that the stream can hold."""
    spec = incoming.spec
    return incoming.steps * int(np.prod(spec.feature_shape)) * np.dtype(spec.dtype).itemsize


def shard_size_for(clips: int, bytes_a_clip: int) -> int:
    """The usual number of clips a shard, less where the clips are large."""
    return int(min(default_shard_size(clips), max(SHARD_BYTES // bytes_a_clip, LEAST_SHARD_SIZE)))


def check_incoming(incoming: Incoming, ids: Sequence[str], shard_size: int, advance: Advance) -> str:
    """Reads everything once. Returns the digest of the content.

    Raises:
        StoreError: a clip is not finite, or the content is not what an export says of it.
    """
    if (size := shard_size * clip_bytes(incoming)) > MOST_SHARD_BYTES:
        raise StoreError(
            f"{incoming.where}: a shard of {shard_size} clips of {incoming.steps} steps would take {size / 1e9:.0f} GB "
            f"of memory, at most {MOST_SHARD_BYTES / 1e9:.0f} GB: cut the clips shorter"
        )
    content = ContentDigest()
    for start in range(0, len(ids), shard_size):
        for row, clip in enumerate(incoming.block(start, min(start + shard_size, len(ids))), start):
            if clip.values is None or clip.valid is None:
                continue
            check_finite(clip.values, incoming.where, ids[row])
            content.add(row, clip.values, clip.valid)
        advance(min(shard_size, len(ids) - start))
    if incoming.content is not None and content.hexdigest() != incoming.content:
        raise StoreError(f"{incoming.where}: {incoming.spec.name}: damaged: its content is not what was exported")
    return content.hexdigest()


def check_finite(values: np.ndarray, where: str, clip: str) -> None:
    if values.dtype.kind != "f":
        return
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        raise StoreError(
            f'{where}: clip "{clip}" holds NaN or infinity at step {bad[0]} (the first such clip): features must be '
            "finite: repair them at their source, or mark these steps with --valid and give them a number"
        )


def write_incoming(store: Store, incoming: Incoming, content: str, advance: Advance) -> Imported:
    """Adds the stream, or goes on where a killed import stopped.

    Raises:
        StoreMismatch: the stream is there with another specification or other features.
        StoreBusy, StoreError: see `Store.write_shard`.
    """
    stream = incoming.spec.name
    with writer_lock(store.path):
        store.add_stream(incoming.spec, incoming.steps, incoming.compression)
        pending = store.pending(stream)
        for shard in pending:
            clips = incoming.block(*store.extent(shard))
            store.write_shard(stream, shard, clips, versions=incoming.spec.versions)
            advance(len(clips))
    if len(pending) < store.shards and content_of(store, stream) != content:
        raise StoreMismatch(
            f"{store.place}: stream {stream} was there already with other features under the same specification: "
            "give another --store"
        )
    failures = tuple(failure for entry in store.entries(stream) for failure in entry.failures)
    return Imported(str(store.place), stream, store.identity.clips, failures)


def content_of(store: Store, stream: str) -> str:
    """The digest of what a store holds."""
    reader, content = ShardReader(store, stream), ContentDigest()
    for row in range(store.identity.clips):
        clip = reader.clip(row)
        if clip.values is not None and clip.valid is not None:
            content.add(row, clip.values, clip.valid)
    return content.hexdigest()


def existing_store(path: str | Path) -> Store | None:
    """The store at a path, to be written; None where nothing is. Raises UsageError for a URL."""
    if is_url(path):
        raise UsageError(f"{path}: import into a store on a local disk, then `bmla store push` it")
    return open_store(path, read_only=False) if Path(path, "zarr.json").exists() else None
