"""Fills a store: plan -> shards -> ledger. Safe to kill at any moment; run again, it goes on."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ..store import Store
from ..store.lock import writer_lock
from .executors import run_here, run_in_processes
from .plan import Plan, add_streams, open_target, tasks_of


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
    """What one extraction did, and how the store stands now."""

    store: str
    clips: int
    shards_written: int
    seconds: float
    streams: tuple[StreamSummary, ...]

    @property
    def failed_share(self) -> float:
        """The largest share of failed clips over the streams."""
        return max((s.failed / self.clips for s in self.streams), default=0.0)


def extract(plan: Plan, begin: Callable[[int, int], None], advance: Callable[[int], None]) -> Summary:
    """Works on every missing shard.

    Args:
        begin: called once with (clips done before, clips in all).
        advance: called with a number of clips as they get done.

    Raises:
        StoreMismatch, StoreBusy, StoreError: before anything is written; or where the disk fails later.
    """
    store = open_target(plan)
    with writer_lock(store.path):
        add_streams(plan, store)
        tasks = tasks_of(plan, store)
        todo = sum(len(t.clips) for t in tasks)
        begin(len(plan.clips) - todo, len(plan.clips))
        written, seconds = 0, 0.0
        config = plan.config
        versions = {s.spec.name: s.spec.versions for s in plan.streams}
        if config.workers > 1 and len(tasks) > 1:
            runs = run_in_processes(tasks, config.tools, plan.dataset.root, advance, min(config.workers, len(tasks)))
        else:
            runs = run_here(tasks, config.tools, plan.dataset.root, advance)
        for done in runs:
            for stream, results in done.results.items():
                store.write_shard(stream, done.task.shard, results, seconds=done.seconds, versions=versions[stream])
            written, seconds = written + 1, seconds + done.seconds
    return Summary(
        store=str(store.place),
        clips=len(plan.clips),
        shards_written=written,
        seconds=seconds,
        streams=tuple(summarise(store, s.spec.name) for s in plan.streams),
    )


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
