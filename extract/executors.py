"""Where shards are worked on: in this process, or in several on this machine. Only the caller writes the store.

Results come back to the one process that holds the writer's lock, so a killed extraction can leave no second writer.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..store.errors import BmlaError
from ..store.processes import POLL_S, end_with_parent
from .pipeline import Done, Task, run_shard
from .tools import ToolConfig, Tools

DECODERS_PER_GPU = 8  # threads that decode ahead of one GPU


class WorkerDied(BmlaError):
    """A worker process was killed from outside, most often for want of memory."""


def run_here(tasks: Iterable[Task], config: ToolConfig, root: Path, advance: Callable[[int], None]) -> Iterator[Done]:
    """One shard after another in this process: what a GPU wants."""
    tools = Tools(config)
    decoders = 0 if config.device == "cpu" else min(DECODERS_PER_GPU, os.cpu_count() or 1)
    if config.device == "cpu":
        torch.set_num_threads(1)  # as in a worker: the same shard gives the same bytes
    for task in tasks:
        yield run_shard(task, tools, root, advance, decoders)


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
