"""Where shards are worked on: in this process, or in several on this machine. Only the caller writes the store.

Results come back to the one process that holds the writer's lock, so a killed extraction can leave no second writer.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ..store.errors import BmlaError, WorkerDied
from ..store.processes import POLL_S, begin, end_with_parent, parcel, worker_context
from .feeding import AHEAD, run_fed
from .pipeline import Done, Task, run_shard
from .threads import one_thread, with_one_thread
from .tools import ToolConfig, Tools

FEEDERS_PER_GPU = 15  # more than one GPU can use
TASKS_AHEAD = 2 * AHEAD + 2  # shards that a GPU's process has: more than it takes in before it gives the first back


def run_here(tasks: Iterable[Task], config: ToolConfig, root: Path, advance: Callable[[int], None]) -> Iterator[Done]:
    """One shard after another in this process."""
    tools = Tools(config)
    # As in a worker: the same shard gives the same bytes.
    with with_one_thread() if config.device == "cpu" else nullcontext():
        for task in tasks:
            yield run_shard(task, tools, root, advance)


def run_on_gpus(
    tasks: Iterable[Task],
    config: ToolConfig,
    root: Path,
    advance: Callable[[int], None],
    devices: Sequence[str],
    feeders: int,
) -> Iterator[Done]:
    """Shards on one process a device, each with its own feeders; see `feeding`.

    Args:
        devices: each as often as it is to have a process. Of two, one computes while the other asks for work or takes results in.
        feeders: processes beside those of the devices, in all.

    Raises:
        WorkerDied: a process was killed; what was given back before stands.
    """
    share = max(1, min(feeders // len(devices), FEEDERS_PER_GPU))
    if len(devices) == 1:
        yield from run_fed(tasks, Tools(replace(config, device=devices[0])), root, advance, share)
        return
    # No GPU works in a process that is forked from one that has but asked for it.
    context = multiprocessing.get_context("spawn")
    servers = []
    try:
        for device in devices:
            servers.append(Server(context, replace(config, device=device), root, share))
        yield from exchange(iter(tasks), servers, advance)
    finally:
        for server in servers:
            server.end()


class Server:
    """A device's process and the pipe to it. Each has its own: one that dies half-way through a message leaves no other waiting."""

    def __init__(self, context: Any, config: ToolConfig, root: Path, feeders: int):
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(config, root, feeders, theirs))
        self.process.start()
        theirs.close()  # or its end would not be seen here
        self.working = True

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def exchange(tasks: Iterator[Task], servers: list[Server], advance: Callable[[int], None]) -> Iterator[Done]:
    """Each server gets a few tasks, then one for each that it has done, and None when there are no more."""

    def send(server: Server) -> None:
        with suppress(BrokenPipeError):  # it ended: its last message, or none, says why
            server.pipe.send(next(tasks, None))

    for server in servers * TASKS_AHEAD:
        send(server)
    while working := {server.pipe: server for server in servers if server.working}:
        for pipe in multiprocessing.connection.wait(list(working)):
            server = working[pipe]
            try:
                answer = server.pipe.recv()
            except (EOFError, ConnectionResetError) as error:
                server.process.join()
                raise WorkerDied(
                    f"a process died (exit code {server.process.exitcode}; out of memory?): "
                    "run the same command again to go on"
                ) from error
            if isinstance(answer, int):
                advance(answer)
            elif isinstance(answer, Done):
                send(server)
                yield answer
            elif answer is None:
                server.working = False
            else:
                raise answer


def _serve(config: ToolConfig, root: Path, feeders: int, pipe: Any) -> None:
    """A device's process. A thread takes the tasks in, so that neither side waits for the other to read."""
    end_with_parent()
    tasks: SimpleQueue[Task | None] = SimpleQueue()

    def receive() -> None:
        with suppress(EOFError, OSError):  # the parent has ended the exchange
            while True:
                tasks.put(pipe.recv())

    threading.Thread(target=receive, daemon=True).start()
    try:
        for done in run_fed(iter(tasks.get, None), Tools(config), root, pipe.send, feeders):
            pipe.send(done)
        pipe.send(None)
    except Exception as error:
        pipe.send(portable(error))


def portable(error: Exception) -> Exception:
    """The error, as it can travel to another process: of a bug, its traceback."""
    if isinstance(error, BmlaError | MemoryError):
        return error
    return RuntimeError("".join(traceback.format_exception(error)))


def run_in_processes(
    tasks: Iterable[Task], config: ToolConfig, root: Path, advance: Callable[[int], None], workers: int
) -> Iterator[Done]:
    """Shards in `workers` processes of one thread each, given back as they get done.

    Raises:
        WorkerDied: a process was killed; what was given back before stands.
    """
    context = worker_context(*modules_of(config))
    counter = context.Value("q", 0)
    queue, seen = iter(tasks), 0
    with ProcessPoolExecutor(
        workers, context, _start_worker, (parcel(config), root, counter, dict(os.environ))
    ) as pool:
        running: set[Future[Done]] = {pool.submit(_run, task) for task in islice(queue, workers + 1)}
        try:
            while running:
                finished, running = wait(running, POLL_S, FIRST_COMPLETED)
                seen, before = counter.value, seen
                advance(seen - before)
                running |= {pool.submit(_run, task) for task in islice(queue, len(finished))}
                for future in finished:
                    yield future.result()
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a worker process died (out of memory?): run the same command again to go on, with fewer --workers"
            ) from error
        finally:
            for future in running:
                future.cancel()


def modules_of(config: ToolConfig) -> list[str]:
    """What a process imports only when it detects faces."""
    seen = config.finding.detects and any(not name.startswith("audio.") for name in config.streams)
    return ["torchvision.ops"] if seen else []


_worker: dict[str, Any] = {}


def _start_worker(config: ToolConfig, root: Path, counter: Any, environment: Mapping[str, str]) -> None:
    begin(environment)
    one_thread()
    _worker.update(tools=Tools(config), root=root, counter=counter)


def _run(task: Task) -> Done:
    def advance(clips: int) -> None:
        with _worker["counter"].get_lock():
            _worker["counter"].value += clips

    return run_shard(task, _worker["tools"], _worker["root"], advance)
