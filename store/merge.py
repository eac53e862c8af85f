"""Several stores of one data set become one: other streams or shards of the same clips, or other clips of the same streams.

Nothing is overwritten: the result is a new store, and every conflict is named before it is begun.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from .clips import ClipTable
from .errors import StoreError, StoreMismatch
from .ledger import Entry, Failure
from .quality import row_of
from .shard import ClipFeatures, read_part
from .spec import differences
from .store import Store, create_store
from .transfer import comparable, conflicts_of, head_dict, plan_transfer, run_transfer


def merge(stores: Sequence[Store], target: Path, advance: Callable[[int], None] = lambda n: None) -> Store:
    """Makes the store that holds what all of them hold.

    Args:
        advance: called with clips as they get done.

    Raises:
        StoreMismatch: data set, classes, specifications or features contradict each other; all contradictions are named.
        StoreError: there is something at the target already.
    """
    first = stores[0]
    if all(s.identity.clips_digest == first.identity.clips_digest for s in stores):
        return merge_streams(stores, target, advance)
    return merge_clips(stores, target, advance)


def merge_streams(stores: Sequence[Store], target: Path, advance: Callable[[int], None]) -> Store:
    """The same clips: the shards of all, moved as they are."""
    refuse(conflict for s in stores[1:] for conflict in conflicts_of(stores[0], s, tuple(stores[0].streams())))
    refuse(shard_conflicts(stores))
    merged = create_from(stores[0], stores[0].clips, target)
    for store in stores:
        run_transfer(plan_transfer(store, merged.place), lambda n: None)
        advance(len(store.clips))
    (target / "origin.json").unlink(missing_ok=True)  # a merged store was pulled from nowhere
    return merged


def merge_clips(stores: Sequence[Store], target: Path, advance: Callable[[int], None]) -> Store:
    """Other clips: one table of all of them, and every stream cut into new shards."""
    refuse(plan_conflicts(stores))
    streams = stores[0].streams()
    table = ClipTable(pa.concat_tables([s.clips.table for s in stores]))
    merged = create_from(stores[0], table, target)
    rows = [(store, row) for store in stores for row in range(len(store.clips))]
    for stream in streams:
        steps = max(s.steps(stream) for s in stores)
        merged.add_stream(stores[0].spec(stream), steps, stores[0].head(stream).compression)
        readers = {id(s): ShardReader(s, stream) for s in stores}
        for shard in merged.pending(stream):
            start, stop = merged.extent(shard)
            clips = [readers[id(s)].clip(i) for s, i in rows[start:stop]]
            merged.write_shard(stream, shard, clips, versions=stores[0].spec(stream).versions)
            advance(stop - start)
    return merged


class ShardReader:
    """Reads single clips of a stream, keeping the last shard: asked for in order, each shard is read once."""

    def __init__(self, store: Store, stream: str):
        self.store, self.stream = store, stream
        self.arrays = [store.array(stream, name) for name in ("values", "valid")]
        self.number = -1

    def clip(self, row: int) -> ClipFeatures:
        """One clip's features or its failure. The shard is finished: the caller saw to it."""
        number, at = divmod(row, self.store.shard_size)
        if number != self.number:
            self.entry = self.store.entry(self.stream, number)
            self.quality = self.entry.quality
            self.values, self.valid = (read_part(a, self.entry) for a in self.arrays)
            self.number = number
        n, facts = self.entry.lengths[at], row_of(self.quality, at)
        if n == 0:
            return ClipFeatures(None, None, failure_of(self.entry, self.store.clips[row].id), facts)
        return ClipFeatures(self.values[at, :n], self.valid[at, :n], quality=facts)


def failure_of(entry: Entry, clip: str) -> Failure:
    """Raises StoreError where the entry has no record of a clip without features."""
    for failure in entry.failures:
        if failure.clip == clip:
            return failure
    raise StoreError(f"ledger entry of shard {entry.shard}: damaged: clip {clip} has neither features nor a failure")


def create_from(store: Store, clips: ClipTable, target: Path) -> Store:
    identity = store.identity
    return create_store(
        target,
        dataset=store.dataset,
        task=store.task,
        classes=store.classes,
        clips=clips,
        options=identity.options,
        shard_size=store.shard_size,
    )


def refuse(conflicts: Iterable[str]) -> None:
    """Raises StoreMismatch with all conflicts in one line, where there are some."""
    found = list(conflicts)
    if found:
        raise StoreMismatch(f"the stores do not fit: {'; '.join(found)}; nothing was written")


def shard_conflicts(stores: Sequence[Store]) -> Iterator[str]:
    """Shards that two stores hold with other features."""
    known: dict[tuple[str, int], tuple[str, str]] = {}
    for store in stores:
        for stream in store.streams():
            for entry in store.entries(stream):
                digest, place = known.setdefault((stream, entry.shard), (entry.digest, str(store.place)))
                if digest != entry.digest:
                    yield f"{stream} shard {entry.shard}: other features in {place} and {store.place}"


def plan_conflicts(stores: Sequence[Store]) -> Iterator[str]:
    """Why stores with other clips can't become one."""
    first = stores[0]
    binding = {"dataset", "task", "classes"}
    for store in stores[1:]:
        mine, theirs = ({k: v for k, v in comparable(s).items() if k in binding} for s in (first, store))
        for line in differences(mine, theirs):
            yield f"{first.place} and {store.place}: {line}"
        if missing := set(first.streams()) ^ set(store.streams()):
            yield f"{', '.join(sorted(missing))}: only in one of {first.place} and {store.place}"
        for stream in sorted(set(first.streams()) & set(store.streams())):
            a, b = ({k: v for k, v in head_dict(s, stream).items() if k != "steps"} for s in (first, store))
            for line in differences(a, b):
                yield f"{stream}: {line}"
    owner: dict[str, Store] = {}
    for store in stores:
        ids = store.clips.table["id"].to_pylist()
        if twice := next((clip for clip in ids if clip in owner), None):
            yield f'clip "{twice}": in both {owner[twice].place} and {store.place}'
        owner |= dict.fromkeys(ids, store)
        for stream in store.streams():
            if pending := store.pending(stream):
                yield f"{store.place}: {stream} is not done ({len(pending)} shards missing)"
