"""Shards on a Dask cluster: worker processes of this machine, or those of a scheduler that is running already.

Workers give results back; only the caller writes the store. A shard whose worker dies is done again by another one:
nothing is lost, and as a shard is given back once, nothing is written twice. See docs/cluster.md.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker, wait

from ..store.cluster import (
    WITHOUT_WORKERS_S,
    ClusterError,
    connected,
    find_place,
    one_line,
    registered,
    since_alone,
    slots,
    unlike,
    wait_for_workers,
)
from ..store.processes import POLL_S
from ..store.spec import StreamSpec
from .cluster_worker import TOPIC, Extraction, Trouble, facts, no_root, versions_here, work
from .pipeline import Done, Task
from .tools import ToolConfig

REFRESH_S = 2.0  # between looks at which workers there are
AHEAD = 2  # shards a worker's thread: one in work and one waiting, so that no worker idles while a result travels


def run_on_cluster(
    tasks: Iterable[Task],
    config: ToolConfig,
    root: Path,
    advance: Callable[[int], None],
    where: str,
    tell: Callable[[str], None] = lambda line: None,
    specs: Mapping[str, StreamSpec] | None = None,
) -> Iterator[Done]:
    """Shards on a Dask cluster, given back as they get done.

    Args:
        tasks: taken as workers get free; never all at once.
        config: with a device "cuda…" a shard takes the worker resource GPU=1.
        advance: called, in this thread, with a number of clips as they get done; sums up to the clips of all tasks.
        where: "local:N", "tcp://host:port" or "tls://host:port".
        tell: called with lines for a person, such as the dashboard's address.
        specs: the specifications of the streams; a worker whose own models come to another one is refused.

    Raises:
        UsageError: `where` is none of these.
        ClusterError: no answer, no fitting worker, a worker unlike the client, a worker's error, or a shard that kills
            its workers.
    """
    place = find_place(where)
    gpu = config.device.startswith("cuda")
    extraction = Extraction(
        f"bmla-{uuid.uuid4().hex}", everywhere(config), root.absolute(), versions_here(), specs or {}
    )
    with connected(place, gpu, tell) as client:
        wait_for_workers(client, gpu, where)
        check_workers(client, extraction)
        with registered(client, extraction, extraction.name, where, "the shards"):
            yield from give_back(iter(tasks), client, extraction, gpu, advance, tell)


def everywhere(value: Any) -> Any:
    """A configuration whose paths do not depend on the folder that a process runs in."""
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, tuple):
        return tuple(map(everywhere, value))
    if isinstance(value, ToolConfig):
        there = {name: str(Path(m).absolute()) if Path(m).exists() else m for name, m in value.models.items()}
        value = replace(value, models=there)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: everywhere(getattr(value, f.name)) for f in fields(value) if f.init})
    return value


def check_workers(client: Client, extraction: Extraction) -> None:
    """Raises ClusterError naming the first worker that differs from this process, or does not see the root."""
    try:
        client.run_on_scheduler(versions_here)
    except Exception as error:  # whatever it is that the scheduler answers
        raise ClusterError(f"the scheduler can't load bmla, as it must: {one_line(error)}") from error
    for worker, found in sorted(client.run(facts, extraction.root, on_error="return").items()):
        if isinstance(found, Exception):
            raise ClusterError(f"worker {worker} can't load bmla: {one_line(found)}") from found
        if lines := unlike(extraction.versions, found["versions"]):
            raise ClusterError(f"worker {worker} has other versions: {'; '.join(lines)}")
        if not found["root"]:
            raise ClusterError(f"worker {worker}: {no_root(extraction.root)}")


def give_back(
    queue: Iterator[Task],
    client: Client,
    extraction: Extraction,
    gpu: bool,
    advance: Callable[[int], None],
    tell: Callable[[str], None],
) -> Iterator[Done]:
    """Keeps AHEAD shards a slot on the cluster, and yields results; holds on to none of them."""
    progress = Progress(client, extraction.name, advance)
    running: dict[Future, tuple[int, Task]] = {}
    numbered = enumerate(queue)  # a shard may come twice, once for the clips that failed
    width, looked, alone_since = 0, float("-inf"), None
    try:
        while True:
            now = time.monotonic()
            if now - looked > REFRESH_S:
                width, looked = AHEAD * sum(slots(client, gpu).values()), now
                alone_since = since_alone(bool(width), alone_since, tell)
            for number, task in islice(numbered, max(0, width - len(running))):
                future = client.submit(
                    work,
                    task,
                    number,
                    extraction.name,
                    key=f"{extraction.name}-{number}",
                    pure=False,
                    resources={"GPU": 1} if gpu else None,
                )
                running[future] = number, task
            if not running and width:
                return
            if running:
                with suppress(TimeoutError), client.as_current():
                    wait(list(running), POLL_S, "FIRST_COMPLETED")
            else:
                time.sleep(POLL_S)
            progress.show()
            finished = [future for future in running if future.done()]
            raise_killed([(*running[future], future) for future in finished], progress)
            for future in finished:
                with suppress(TimeoutError):  # the result went with its worker: it is being made again
                    result = future.result(timeout=WITHOUT_WORKERS_S)
                    number, task = running.pop(future)
                    future.release()
                    if isinstance(result, Trouble):
                        raise ClusterError(f"worker {result.worker}: {result.text}")
                    progress.finish(number, len(task.clips))
                    yield result
                    del result
    finally:
        progress.close()
        if client.status == "running":
            client.cancel(list(running), force=True)


def raise_killed(finished: Iterable[tuple[int, Task, Future]], progress: "Progress") -> None:
    """Raises ClusterError where a shard took its workers with it. Dask blames all shards that a dead worker held: the
    one that had begun is the one to name."""
    killed = []
    for number, task, future in finished:
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            waited = progress.begun.get(number) != error.last_worker.address
            killed.append((waited, number, task, error))
    if not killed:
        return
    _, _, task, error = min(killed, key=lambda k: k[:2])
    raise ClusterError(
        f"shard {task.shard} (clips {task.clips[0].id} to {task.clips[-1].id}): {error.allowed_failures + 1} workers died "
        f"while working on it, the last was {error.last_worker.address} (out of memory? a file that crashes its decoder?)"
    ) from error


class Progress:
    """Clips done, as the workers tell while they work. A shard that is done again counts once."""

    def __init__(self, client: Client, name: str, advance: Callable[[int], None]):
        self.client, self.name, self.advance = client, name, advance
        self.told: SimpleQueue[dict[str, Any]] = SimpleQueue()  # filled by the client's own thread
        self.shown: dict[int, int] = {}  # clips shown, by number of the task in work
        self.begun: dict[int, str] = {}  # the last worker that began it
        self.over: set[int] = set()
        client.subscribe_topic(TOPIC, partial(_pass_on, self.told))

    def show(self) -> None:
        with suppress(Empty):
            while True:
                event = self.told.get_nowait()
                number = event["task"]
                if event["name"] == self.name and number not in self.over:
                    self.begun[number] = event["worker"]
                    self.more(number, event["clips"])

    def finish(self, number: int, clips: int) -> None:
        self.more(number, clips)
        self.over.add(number)
        del self.shown[number]
        self.begun.pop(number, None)

    def more(self, number: int, clips: int) -> None:
        before = self.shown.get(number, 0)
        self.shown[number] = max(before, clips)
        if clips > before:
            self.advance(clips - before)

    def close(self) -> None:
        if self.client.status == "running":
            self.client.unsubscribe_topic(TOPIC)


def _pass_on(queue: SimpleQueue[dict[str, Any]], event: tuple[float, dict[str, Any]]) -> None:
    queue.put(event[1])
