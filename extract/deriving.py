"""Writing a stream that is computed from a stored one, whoever computes it.

It is made shard by shard like any other, each with its ledger entry last: killed, the same command goes on; a shard whose source
was written anew since (clips tried again) is derived anew. Failures, validity and facts on the clips are handed on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..store import Store
from ..store.errors import MediaError
from ..store.ledger import Failure
from ..store.lock import writer_lock
from ..store.merge import ShardReader
from ..store.shard import ClipFeatures
from ..store.spec import StreamSpec
from .encoders.finite import to_float16
from .extraction import Summary, summarise

SOURCE_SHARD = "source_shard"  # among a ledger entry's versions: the digest of what it was derived from


@dataclass(frozen=True)
class Derived:
    """A derived stream, ready to be made.

    Attributes:
        source: the stream that it is computed from.
        steps: T of its longest clip.
        apply: clips with features, (T, *F) and their validity (T,) -> (T', *F') each.
        every: T' are every so manieth of the T steps.
    """

    source: str
    spec: StreamSpec
    steps: int
    apply: Callable[[Sequence[ClipFeatures]], Sequence[np.ndarray]]
    every: int = 1


def make_streams(
    store: Store,
    streams: Callable[[], Sequence[Derived]],
    compression: str,
    begin: Callable[[int, int], None],
    advance: Callable[[int], None],
) -> Summary:
    """Makes derived streams, or goes on with them.

    Args:
        streams: what to make; asked once the store is locked.
        begin: called once with (clips done before, clips in all), over all streams.
        advance: called with a number of clips as they get done.

    Raises:
        StoreMismatch, StoreBusy: before anything is written.
        StoreError: the store can't be read or written.
    """
    began = time.perf_counter()
    with writer_lock(store.path):
        made = streams()
        for one in made:
            store.check_stream(one.spec, one.steps)
        for one in made:
            store.add_stream(one.spec, one.steps, compression)
        todo = [(one, shard) for one in made for shard in remaining(store, one)]
        clips = sum(np.diff(store.extent(shard))[0] for _, shard in todo)
        begin(int(len(made) * len(store.clips) - clips), len(made) * len(store.clips))
        for one, shard in todo:
            write(store, one, shard)
            start, stop = store.extent(shard)
            advance(stop - start)
    seconds = time.perf_counter() - began
    summaries = tuple(summarise(store, one.spec.name) for one in made)
    return Summary(str(store.place), len(store.clips), len(todo), seconds, summaries, seconds)


def remaining(store: Store, one: Derived) -> list[int]:
    """Shards that are not there, or whose source was written anew since."""
    finished = set(store.finished(one.spec.name))
    return [
        shard
        for shard in range(store.shards)
        if shard not in finished
        or store.entry(one.spec.name, shard).versions.get(SOURCE_SHARD) != store.entry(one.source, shard).digest
    ]


def write(store: Store, one: Derived, shard: int) -> None:
    """One shard, whole."""
    began = time.perf_counter()
    reader = ShardReader(store, one.source)
    start, stop = store.extent(shard)
    ids = store.clips.column("id")[start:stop].tolist()
    made = results(one, [reader.clip(row) for row in range(start, stop)], ids)
    versions = {**one.spec.versions, SOURCE_SHARD: store.entry(one.source, shard).digest}
    put = store.rewrite_shard if shard in store.finished(one.spec.name) else store.write_shard
    put(one.spec.name, shard, made, seconds=time.perf_counter() - began, versions=versions)


def results(one: Derived, clips: Sequence[ClipFeatures], names: Sequence[str]) -> list[ClipFeatures]:
    """Derived features of some clips, in their order; of one that failed, its failure."""
    computed = iter(one.apply([clip for clip in clips if clip.values is not None]))
    return [
        clip if clip.values is None else result(one, clip, next(computed), name)
        for clip, name in zip(clips, names, strict=True)
    ]


def result(one: Derived, clip: ClipFeatures, values: np.ndarray, name: str) -> ClipFeatures:
    """A clip's derived features as they are stored; where the type can't hold them, a failure."""
    assert clip.valid is not None
    try:
        return ClipFeatures(as_stored(values, one.spec.dtype), clip.valid[:: one.every], quality=clip.quality)
    except MediaError as error:
        return ClipFeatures(None, None, Failure(name, "derive", type(error).__name__, str(error)), clip.quality)


def as_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Raises MediaError for numbers that the type can't hold."""
    if values.dtype == dtype:
        return values
    if dtype == "float16":
        return to_float16(values)
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        raise MediaError(f"derived features are not finite in {dtype}")
    return cast
