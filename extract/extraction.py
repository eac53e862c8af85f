"""Fills a store: plan -> shards -> ledger. Safe to kill at any moment; run again, it goes on."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from ..store import Store
from ..store.lock import writer_lock
from .executors import run_here, run_in_processes, run_on_gpus
from .pipeline import Done, Task
from .plan import Plan, add_streams, open_target
from .remaining import Remaining, joined, tasks_of, what_remains
from .times import Times

WRITES_AHEAD = 2  # shards in memory that wait for the disk


@dataclass(frozen=True)
class StreamSummary:
    """How one stream came out. failures: clips by reason; steps: in finished clips; valid: those of them that are valid."""

    stream: str
    done: int
    failed: int
    failures: dict[str, int]
    steps: int
    valid: int


@dataclass(frozen=True)
class Summary:
    """What one extraction did, and how the store stands now.

    Attributes:
        seconds: of work, summed over processes.
        wall_s: from the first shard to the last.
        stages: seconds by stage, summed over processes; see `times.Times`.
    """

    store: str
    clips: int
    shards_written: int
    seconds: float
    streams: tuple[StreamSummary, ...]
    wall_s: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def failed_share(self) -> float:
        """The largest share of failed clips over the streams."""
        return max((s.failed / self.clips for s in self.streams), default=0.0)


def extract(
    plan: Plan,
    begin: Callable[[int, int], None],
    advance: Callable[[int], None],
    tell: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Works on every missing shard or, where the plan says so, on the clips that failed.

    Args:
        begin: called once with (clips done before, clips in all).
        advance: called with a number of clips as they get done.
        tell: called with lines for a person, such as a cluster's dashboard.

    Raises:
        StoreMismatch, StoreBusy, StoreError: before anything is written; or where the disk fails later.
    """
    store = open_target(plan)
    with writer_lock(store.path):
        add_streams(plan, store)
        remaining = what_remains(plan, store)
        todo = sum(r.clips for r in remaining)
        begin(max(0, len(plan.clips) - todo), len(plan.clips))
        began, times, writing, written, seconds = perf_counter(), Times(), Times(), 0, 0.0
        with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:
            writes: deque[Future[bool]] = deque()
            runs = executed(plan, remaining, advance, tell)
            try:
                for done in runs:
                    seconds += done.seconds
                    times.join(done.times)
                    writes.append(pool.submit(write, plan, store, done, writing))
                    while len(writes) > WRITES_AHEAD:
                        written += writes.popleft().result()
            finally:  # what was given back before an error is kept
                written += sum(future.result() for future in writes)
        wall_s = perf_counter() - began
        times.join(writing)
    return Summary(
        store=str(store.place),
        clips=len(plan.clips),
        shards_written=written,
        seconds=seconds,
        streams=tuple(summarise(store, s.spec.name) for s in plan.streams),
        wall_s=wall_s,
        stages=dict(times.seconds),
    )


def executed(
    plan: Plan, remaining: list[Remaining], advance: Callable[[int], None], tell: Callable[[str], None]
) -> Iterator[Done]:
    """The results of what remains, by the executor that the plan asks for."""
    config, root = plan.config, plan.dataset.root
    tasks: Iterator[Task] = tasks_of(plan, remaining)
    if not remaining:
        return iter(())
    if config.cluster is not None:
        from .cluster import run_on_cluster

        specs = {s.spec.name: s.spec for s in plan.streams}
        return run_on_cluster(tasks, config.tools, root, advance, config.cluster, tell, specs)
    if config.devices:
        return run_on_gpus(tasks, config.tools, root, advance, config.devices, config.workers)
    if config.workers > 1 and len(remaining) > 1:
        return run_in_processes(tasks, config.tools, root, advance, min(config.workers, len(remaining)))
    return run_here(tasks, config.tools, root, advance)


def write(plan: Plan, store: Store, done: Done, times: Times) -> bool:
    """One shard of some streams into the store; where the store has it, only what was tried again and came out better.

    Returns:
        Whether anything was written.
    """
    written, shard = False, done.task.shard
    versions = {s.spec.name: s.spec.versions for s in plan.streams}
    with times.of("write"):
        for stream, results in done.results.items():
            about: dict[str, Any] = {"seconds": done.seconds, "versions": versions[stream]}
            if shard not in store.finished(stream):
                store.write_shard(stream, shard, results, **about)
                written = True
            elif (clips := joined(store, stream, done.task, results)) is not None:
                about["seconds"] += store.entry(stream, shard).seconds
                store.rewrite_shard(stream, shard, clips, **about)
                written = True
    return written


def summarise(store: Store, stream: str) -> StreamSummary:
    """Reads the ledger and the validity of a finished stream."""
    entries = list(store.entries(stream))
    failed = sum(len(e.failures) for e in entries)
    return StreamSummary(
        stream=stream,
        done=sum(len(e.lengths) for e in entries) - failed,
        failed=failed,
        failures=dict(Counter(f"{f.step}: {f.error}" for e in entries for f in e.failures).most_common()),
        steps=sum(sum(e.lengths) for e in entries),
        valid=store.valid_steps(stream),
    )
