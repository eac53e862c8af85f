"""What is still to be done of a store: shards without a ledger entry and, where asked for, clips that failed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..store import Store
from ..store.merge import ShardReader
from ..store.shard import ClipFeatures
from .pipeline import Task
from .plan import Plan


@dataclass(frozen=True)
class Remaining:
    """One shard. rows: the clips to be done, by their number in the store."""

    shard: int
    rows: Sequence[int]
    streams: tuple[str, ...]

    @property
    def clips(self) -> int:
        return len(self.rows)


def what_remains(plan: Plan, store: Store) -> list[Remaining]:
    """All that an extraction by this plan would work on; the store may lack some of its streams."""
    return missing_shards(plan, store) + (failed_shards(plan, store) if plan.config.retry_failed else [])


def missing_shards(plan: Plan, store: Store) -> list[Remaining]:
    """The shards that some stream of the plan still lacks."""
    missing: dict[int, list[str]] = {}
    there = store.streams()
    for name in (stream.spec.name for stream in plan.streams):
        for shard in store.pending(name) if name in there else range(store.shards):
            missing.setdefault(shard, []).append(name)
    return [Remaining(shard, range(*store.extent(shard)), tuple(names)) for shard, names in sorted(missing.items())]


def failed_shards(plan: Plan, store: Store) -> list[Remaining]:
    """The clips that failed in a finished shard of some stream of the plan."""
    failed: dict[int, tuple[set[int], list[str]]] = {}
    there = store.streams()
    for name in (stream.spec.name for stream in plan.streams):
        for entry in store.entries(name) if name in there else ():
            if rows := {entry.start + i for i, length in enumerate(entry.lengths) if length == 0}:
                known, names = failed.setdefault(entry.shard, (set(), []))
                known |= rows
                names.append(name)
    return [Remaining(shard, sorted(rows), tuple(names)) for shard, (rows, names) in sorted(failed.items())]


def tasks_of(plan: Plan, remaining: Sequence[Remaining]) -> Iterator[Task]:
    """The shards as tasks, each made when it is asked for: half a million clips are not held at once."""
    for r in remaining:
        yield Task(r.shard, tuple(plan.clips.rows(r.rows)), r.streams)


def joined(store: Store, stream: str, task: Task, results: Sequence[ClipFeatures]) -> list[ClipFeatures] | None:
    """A finished shard with new results in place of failures; None where no failed clip came out better."""
    again = {clip.id: result for clip, result in zip(task.clips, results, strict=True) if result.failure is None}
    reader = ShardReader(store, stream)
    start, stop = store.extent(task.shard)
    clips, better = [], False
    for row, clip in enumerate(store.clips.rows(range(start, stop)), start):
        kept = reader.clip(row)
        if kept.failure is not None and clip.id in again:
            kept, better = again[clip.id], True
        clips.append(kept)
    return clips if better else None
