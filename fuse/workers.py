"""Runs of a sweep side by side, in processes of few threads that share the features' memory.

On a CPU a small model does not keep several threads busy: two processes of one thread do twice the work of one process
of two. Runs that others start from are trained first.
"""

import os
import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from ..store.errors import WorkerDied
from ..store.processes import POLL_S, end_with_parent
from .config import RunConfig
from .data import Features
from .progress import Progress
from .run import Run, load_run


def run_parallel(
    waves: Sequence[Sequence[RunConfig]],
    features: Features,
    out: Path,
    provenance: Mapping[str, Any],
    progress: Progress,
    workers: int,
    threads: int,
) -> None:
    """Trains each wave of runs, the waves one after another. See `sweep.run_sweep`.

    Raises:
        WorkerDied, Diverged: the finished runs are kept.
    """
    context = multiprocessing.get_context("spawn")  # torch's: tensors travel as shared memory
    events = context.Queue()
    arguments = (features, out, dict(provenance), events, threads, os.getpid())
    with ProcessPoolExecutor(workers, context, _start, arguments) as pool:
        try:
            for wave in waves:
                running: set[Future[Path]] = {pool.submit(_obtain, config) for config in wave}
                while running:
                    finished, running = wait(running, POLL_S, FIRST_COMPLETED)
                    relay(events, progress)
                    for future in finished:
                        progress.finish(load_run(future.result()))
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a training process died (out of memory?): run the same command again to go on, with fewer --workers"
            ) from error
        finally:
            for future in running:
                future.cancel()


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


_worker: dict[str, Any] = {}


def _start(features: Features, out: Path, provenance: dict[str, Any], events: Any, threads: int, parent: int) -> None:
    end_with_parent(parent)
    torch.set_num_threads(threads)
    _worker.update(features=features, out=out, provenance=provenance, progress=Relay(events))


def _obtain(config: RunConfig) -> Path:
    from .sweep import obtain

    run: Run = obtain(config, _worker["features"], _worker["out"], "cpu", _worker["provenance"], _worker["progress"])
    return run.path
