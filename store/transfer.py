"""Moves what one store has and another lacks, by digest: push, pull, and the merging of stores with the same clips.

The order keeps every moment true. A new target gets the clip table and its root first: from then on it is a store that
holds nothing. A stream's head follows its arrays' metadata, a shard's ledger entry follows its verified files. Killed
and run again, a transfer goes on with the shards that have no entry yet.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from .arrays import ARRAYS, array_key, file_key
from .errors import StoreError, StoreMismatch, StoreNotFound
from .groups import write_group
from .identity import read_identity, write_identity
from .ledger import Entry, key_of, read_entry
from .origin import Origin, read_origin, write_origin
from .place import Place, digest_bytes
from .spec import differences
from .store import CLIPS_KEY, Store

THREADS = 8  # requests at once; a shard's files are in memory while they move


@dataclass(frozen=True)
class Selection:
    """Which part of a store.

    Attributes:
        streams: None: all.
        split: only shards that hold clips of this split; None: all.
        limit: only as many shards, spread evenly, as hold this many clips; None: all.
    """

    streams: tuple[str, ...] | None = None
    split: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Item:
    """One shard of one stream to be moved."""

    stream: str
    entry: Entry


@dataclass(frozen=True)
class Transfer:
    """What is to be moved. present: shards that the target has already."""

    source: Store
    target: Place
    streams: tuple[str, ...]
    items: tuple[Item, ...]
    present: int

    @property
    def bytes(self) -> int:
        return sum(item.entry.bytes for item in self.items)


def plan_transfer(source: Store, target: Place, selection: Selection | None = None) -> Transfer:
    """Compares both sides; writes nothing.

    Raises:
        StreamNotFound: a stream is selected that the source has not.
        StoreMismatch: the target is made from something else, or a shard differs; every conflict is named.
    """
    selection = selection or Selection()
    streams = selection.streams or tuple(source.streams())
    for stream in streams:
        source.head(stream)
    wanted = selected_shards(source, selection)
    there = existing(target)
    conflicts = [] if there is None else list(conflicts_of(source, there, streams))
    items, present = [], 0
    for stream in streams:
        has = set(there.finished(stream)) if there is not None and stream in there.streams() else set()
        for entry in source.entries(stream):
            if entry.shard not in wanted:
                continue
            if entry.shard not in has:
                items.append(Item(stream, entry))
                continue
            present += 1
            if there is not None and entry_of(there, stream, entry.shard).digest != entry.digest:
                conflicts.append(f"{stream} shard {entry.shard}: other features")
    if conflicts:
        raise StoreMismatch(f"{source.place} and {target} do not fit: {'; '.join(conflicts)}; nothing was changed")
    return Transfer(source, target, streams, tuple(items), present)


def run_transfer(plan: Transfer, advance: Callable[[int], None] = lambda n: None, threads: int = THREADS) -> None:
    """Moves the shards, several at once.

    Args:
        advance: called with bytes as they arrive.

    Raises:
        StoreError: a file of the source is damaged, or the target can't be written; what arrived before stays.
    """
    begin_target(plan)
    with ThreadPoolExecutor(threads, thread_name_prefix="transfer") as pool:
        futures = [pool.submit(move_shard, plan, item, advance) for item in plan.items]
        _, running = wait(futures, return_when=FIRST_EXCEPTION)
        for future in running:
            future.cancel()
    for future in futures:
        if not future.cancelled():
            future.result()


def begin_target(plan: Transfer) -> None:
    """Makes the target a store with the streams' heads, where it is not one yet; notes where its content comes from."""
    source, target = plan.source, plan.target
    if existing(target) is None:
        target.write(CLIPS_KEY, source.place.read(CLIPS_KEY))
        write_group(target, "streams", None)
        write_identity(target, source.identity)
    there = existing(target)
    for stream in plan.streams:
        if there is None or stream not in there.streams():
            for key in (*(array_key(stream, name) for name in ARRAYS), f"streams/{stream}/zarr.json"):
                target.write(key, source.place.read(key))
    known = read_origin(target) or Origin(str(source.place) if source.place.remote else "", {})
    finished = {stream: tuple(source.finished(stream)) for stream in plan.streams}
    write_origin(target, Origin(known.source, {**known.shards, **finished}))


def move_shard(plan: Transfer, item: Item, advance: Callable[[int], None]) -> None:
    """The files of one shard, each held against the ledger's digest, then its entry."""
    head = plan.source.head(item.stream)
    for name in ARRAYS:
        expected = item.entry.files[name]
        if expected is None:
            continue
        key = file_key(head, name, item.entry.shard)
        try:
            data = plan.source.place.read(key)
        except FileNotFoundError as error:
            raise StoreError(f"{plan.source.place}/{key}: missing: `bmla store verify` it, then try again") from error
        if digest_bytes(data) != expected:
            raise StoreError(
                f"{plan.source.place}/{key}: damaged: its SHA-256 is not the ledger's; nothing of it was taken"
            )
        plan.target.write(key, data)
        advance(len(data))
    key = key_of(item.stream, item.entry.shard)
    plan.target.write(key, plan.source.place.read(key))


def selected_shards(store: Store, selection: Selection) -> set[int]:
    """Numbers of the shards that hold what is selected."""
    rows = store.clips.indices(selection.split)
    shards = np.unique(rows // store.shard_size)
    if selection.limit is not None and len(shards):
        count = min(len(shards), -(-selection.limit // store.shard_size))
        shards = shards[np.linspace(0, len(shards) - 1, count).round().astype(int)]
    return {int(n) for n in shards}


def existing(place: Place) -> Store | None:
    """The store at a place; None where there is none yet."""
    try:
        return Store(place, read_identity(place))
    except StoreNotFound:
        return None


def conflicts_of(a: Store, b: Store, streams: tuple[str, ...]) -> Iterator[str]:
    """Why shards of `a` can't go into `b`: another clip table, shard size or specification."""
    yield from differences(comparable(a), comparable(b))
    for stream in streams:
        if stream in b.streams():
            for line in differences(head_dict(a, stream), head_dict(b, stream)):
                yield f"{stream}: {line}"


def comparable(store: Store) -> dict[str, object]:
    """The identity without what two makings of the same store may differ in: the parquet file's bytes."""
    return {k: v for k, v in store.identity.to_dict().items() if k != "clips_file"}


def head_dict(store: Store, stream: str) -> dict[str, object]:
    head = store.head(stream)
    return {**head.spec.to_dict(), "steps": head.steps, "compression": head.compression}


def entry_of(store: Store, stream: str, shard: int) -> Entry:
    return read_entry(store.place, stream, shard, store.extent(shard), store.steps(stream))
