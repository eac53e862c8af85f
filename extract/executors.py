"""Where shards are worked on: in this process, or in several on this machine. Only the caller writes the store.

Results come back to the one process that holds the writer's lock, so a killed extraction can leave no second writer.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import islice
from pathlib import Path
from queue import Empty
from typing import Any

import torch

from ..store.errors import WorkerDied
from ..store.processes import POLL_S, end_with_parent
from .feeding import run_fed
from .pipeline import Done, Task, run_shard
from .tools import ToolConfig, Tools

FEEDERS_PER_GPU = 15  # more than one GPU can use


def run_here(tasks: Iterable[Task], config: ToolConfig, root: Path, advance: Callable[[int], None]) -> Iterator[Done]:
    """One shard after another in this process."""
    tools = Tools(config)
    if config.device == "cpu":
        torch.set_num_threads(1)  # as in a worker: the same shard gives the same bytes
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
        feeders: processes beside those of the devices, in all.

    Raises:
        WorkerDied: a process was killed; what was given back before stands.
    """
    share = max(1, min(feeders // len(devices), FEEDERS_PER_GPU))
    if len(devices) == 1:
        yield from run_fed(tasks, Tools(replace(config, device=devices[0])), root, advance, share)
        return
    context = multiprocessing.get_context("spawn")
    queue, answers = context.Queue(len(devices)), context.Queue(len(devices))
    running = [
        context.Process(target=_serve, args=(replace(config, device=d), root, share, queue, answers, os.getpid()))
        for d in devices
    ]
    for process in running:
        process.start()
    try:
        yield from _exchange(iter(tasks), running, queue, answers, advance)
    finally:
        for process in running:
            process.terminate()
            process.join()


def _exchange(
    tasks: Iterator[Task], running: list[Any], queue: Any, answers: Any, advance: Callable[[int], None]
) -> Iterator[Done]:
    """Tasks go out as they are taken, then a None for each process, which is its end; results come in."""
    to_send: list[Task | None] = [None] * len(running)  # taken from the end, once there are no more tasks
    open_tasks = 0
    while to_send or open_tasks:
        if to_send and not queue.full():
            if (task := next(tasks, None)) is not None:
                queue.put(task)
                open_tasks += 1
            else:
                queue.put(to_send.pop())
            continue
        try:
            answer = answers.get(timeout=POLL_S)
        except Empty:
            if dead := [p for p in running if p.exitcode]:  # one that got its None ends with 0
                raise WorkerDied(
                    f"a process died (exit code {dead[0].exitcode}; out of memory?): run the same command again to go on"
                ) from None
            continue
        if isinstance(answer, int):
            advance(answer)
        elif isinstance(answer, Done):
            open_tasks -= 1
            yield answer
        else:
            raise answer


def _serve(config: ToolConfig, root: Path, feeders: int, queue: Any, answers: Any, parent: int) -> None:
    """A device's process: works until it gets None."""
    end_with_parent(parent)
    try:
        for done in run_fed(iter(queue.get, None), Tools(config), root, answers.put, feeders):
            answers.put(done)
    except Exception as error:
        answers.put(error)


def run_in_processes(
    tasks: Iterable[Task], config: ToolConfig, root: Path, advance: Callable[[int], None], workers: int
) -> Iterator[Done]:
    """Shards in `workers` processes of one thread each, given back as they get done.

    Raises:
        WorkerDied: a process was killed; what was given back before stands.
    """
    context = multiprocessing.get_context("spawn")  # forked processes and threads of torch do not go together
    counter = context.Value("q", 0)
    queue, seen = iter(tasks), 0
    with ProcessPoolExecutor(workers, context, _start_worker, (config, root, counter, os.getpid())) as pool:
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


_worker: dict[str, Any] = {}


def _start_worker(config: ToolConfig, root: Path, counter: Any, parent: int) -> None:
    end_with_parent(parent)
    torch.set_num_threads(1)
    _worker.update(tools=Tools(config), root=root, counter=counter)


def _run(task: Task) -> Done:
    def advance(clips: int) -> None:
        with _worker["counter"].get_lock():
            _worker["counter"].value += clips

    return run_shard(task, _worker["tools"], _worker["root"], advance)
