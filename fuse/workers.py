"""Runs of a sweep side by side, in processes of few threads that share the features' memory.

On a CPU a small model does not keep several threads busy: two processes of one thread do twice the work of one process
of two. A run begins when those that it starts or learns from are done.
"""

import os
import queue
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing  # tensors travel as shared memory

from ..store.errors import WorkerDied
from ..store.processes import POLL_S, begin, parcel, worker_context
from .config import RunConfig
from .obtain import Task, obtain
from .prerequisites import prerequisites, ready
from .progress import Progress
from .run import load_run
from .standing import Diverged


def run_parallel(
    configs: Iterable[RunConfig],
    task: Task,
    workers: int,
    threads: int,
    before: Mapping[RunConfig, str] | None = None,
) -> dict[RunConfig, str]:
    """Trains runs, each as soon as a process is free and the others of these that it needs are done. See `sweep.run_sweep`.

    Args:
        configs: in the order in which they begin where nothing speaks against it.
        before: what went wrong earlier, by configuration.

    Returns:
        What went wrong, by configuration, where a loss became NaN; runs that need such a run are among them.

    Raises:
        WorkerDied: the finished runs are kept.
    """
    sent = replace(task, progress=Progress())
    context = worker_context("torch._dynamo", given=sent)  # which the first optimiser of a process imports, 3 s
    events = context.Queue()
    failed = dict(before or {})
    waiting = {config: prerequisites(config) for config in configs}
    running: dict[Future[Path], RunConfig] = {}
    arguments = (parcel(sent), events, threads, dict(os.environ))
    with ProcessPoolExecutor(workers, context, _start, arguments) as pool:
        try:
            while waiting or running:
                for config in ready(waiting, running.values()):
                    if broken := [failed[needed] for needed in waiting.pop(config) if needed in failed]:
                        failed[config] = broken[0]
                    else:
                        running[pool.submit(_obtain, config)] = config
                finished: Collection[Future[Path]] = ()
                while running and not finished:
                    finished, _ = wait(running, POLL_S, FIRST_COMPLETED)
                    relay(events, task.progress)
                for future in finished:
                    config = running.pop(future)
                    try:
                        task.progress.finish(load_run(future.result()))
                    except Diverged as error:
                        failed[config] = str(error)
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a training process died (out of memory?): run the same command again to go on, with fewer --workers"
            ) from error
        finally:
            for future in running:
                future.cancel()
    return failed


def relay(events: Any, progress: Progress) -> None:
    """Shows what the workers told since the last time."""
    while True:
        try:
            config, epoch, share = events.get_nowait()
        except queue.Empty:
            return
        progress.advance(config, epoch, share)


class Relay(Progress):
    """A worker's progress: sends every epoch to the process that shows it."""

    def __init__(self, events: Any):
        self.events = events

    def advance(self, config: RunConfig, epoch: dict[str, Any], work: int) -> None:
        self.events.put((config, epoch, work))


_worker: dict[str, Task] = {}


def _start(task: Task, events: Any, threads: int, environment: Mapping[str, str]) -> None:
    begin(environment)
    torch.set_num_threads(threads)
    _worker["task"] = replace(task, progress=Relay(events))


def _obtain(config: RunConfig) -> Path:
    return obtain(config, _worker["task"]).path
