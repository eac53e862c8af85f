"""Runs of a sweep on a Dask cluster: worker processes of this machine, or those of a scheduler that is running already.

Each worker process holds the features once, and trains one run at a time on one thread, in a folder of its own. It gives the finished run's
files back, and only the caller writes the sweep's folder; what a run starts from is sent to it. A run whose worker dies is done again by
another one, from its beginning.
"""

import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker, wait

from ..store.cluster import (
    WITHOUT_WORKERS_S,
    ClusterError,
    connected,
    find_place,
    one_line,
    registered,
    since_alone,
    unlike,
    wait_for_workers,
)
from ..store.errors import BmlaError, UsageError
from ..store.processes import POLL_S
from .config import RunConfig
from .models.table import takes
from .obtain import Task, obtain
from .prerequisites import prerequisites, ready
from .progress import Progress, describe
from .run import Run, load_run, run_name
from .standing import Diverged

LIBRARIES = ("bmla", "numpy", "torch")
Files = dict[str, bytes]  # of a run's folder, by path within it


@dataclass(frozen=True)
class Trouble:
    """Why a worker could not finish a run, as one line. No exception: Dask would log it, and not every one can travel.

    Attributes:
        diverged: its loss is no number any more; the sweep goes on without it.
    """

    text: str
    diverged: bool


class Trainings(WorkerPlugin):
    """One sweep as every worker process holds it; sent once, so that a run's task is small.

    Attributes:
        name: unique to the sweep.
        task: without a place for runs.
    """

    folder: Path

    def __init__(self, name: str, task: Task):
        self.name, self.task = name, task

    def setup(self, worker: Worker) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bmla-"))

    def teardown(self, worker: Worker) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def run_on_cluster(configs: Iterable[RunConfig], task: Task, where: str) -> dict[RunConfig, str]:
    """Trains runs, each as soon as the others of these that it needs are done. See `sweep.run_sweep`.

    Args:
        where: "local:N", "tcp://host:port" or "tls://host:port".

    Returns:
        What went wrong, by configuration, where a loss became NaN; runs that start from such a run are among them.

    Raises:
        UsageError: `where` is none of these, or the features are on a GPU.
        ClusterError: no answer, no worker, a worker unlike this process, a worker's error, or a run that kills its workers. The
            finished runs are kept.
    """
    place = find_place(where)
    if torch.device(task.device).type != "cpu":
        raise UsageError("--cluster: workers train on their CPUs: leave out --gpu and --device")
    sent = Trainings(f"bmla-{uuid.uuid4().hex}", replace(task, progress=Progress(), out=Path(), executor="dask"))
    with connected(place, False, task.progress.say) as client:
        wait_for_workers(client, False, where)
        check_workers(client)
        with registered(client, sent, sent.name, where, "the runs", "; a model of your own must be importable there"):
            return train_runs(configs, task, client, sent.name)


def check_workers(client: Client) -> None:
    """Raises ClusterError naming the first worker whose libraries differ from those of this process."""
    for worker, found in sorted(client.run(versions_here, on_error="return").items()):
        if isinstance(found, Exception):
            raise ClusterError(f"worker {worker} can't load bmla: {one_line(found)}") from found
        if lines := unlike(versions_here(), found):
            raise ClusterError(f"worker {worker} has other versions: {'; '.join(lines)}")


def versions_here() -> dict[str, str]:
    """Of what shapes the numbers."""
    return {name: version(name) for name in LIBRARIES}


def train_runs(configs: Iterable[RunConfig], task: Task, client: Client, name: str) -> dict[RunConfig, str]:
    """Returns what went wrong."""
    failed: dict[RunConfig, str] = {}
    waiting = {config: prerequisites(config) for config in configs}
    running: dict[Future, RunConfig] = {}
    alone_since = None
    try:
        while waiting or running:
            for config in ready(waiting, running.values()):
                needed = waiting.pop(config)
                if broken := [failed[start] for start in needed if start in failed]:
                    failed[config] = broken[0]
                    continue
                starts = {n: packed(task.out / n) for c in needed for n in [run_name(c, task.features)]}
                running[client.submit(work, config, starts, name, pure=False)] = config
            if not running:
                continue
            with suppress(TimeoutError), client.as_current():
                wait(list(running), POLL_S, "FIRST_COMPLETED")
            there = bool(client.scheduler_info(n_workers=-1)["workers"])
            alone_since = since_alone(there, alone_since, task.progress.say)
            for future in [f for f in running if f.done()]:
                config = running.pop(future)
                result = result_of(future, config)
                future.release()
                if isinstance(result, Trouble):
                    if not result.diverged:
                        raise ClusterError(result.text)
                    failed[config] = result.text
                    continue
                run = unpacked(result, task.out / run_name(config, task.features))
                for epoch in run.history:
                    task.progress.advance(config, epoch, len(takes(config.model)))
                task.progress.finish(run)
    finally:
        if client.status == "running":
            client.cancel(list(running), force=True)
    return failed


def result_of(future: Future, config: RunConfig) -> Files | Trouble:
    """Raises ClusterError where a run took its workers with it."""
    try:
        result: Files | Trouble = future.result(timeout=WITHOUT_WORKERS_S)
        return result
    except KilledWorker as error:
        raise ClusterError(
            f"{describe(config)}: {error.allowed_failures + 1} workers died while training it (out of memory?)"
        ) from error


def work(config: RunConfig, starts: Mapping[str, Files], name: str) -> Files | Trouble:
    """One run on this worker; the Dask task. An error of bmla's becomes `Trouble`, a bug is raised.

    Args:
        starts: the runs that it starts or learns from, by name.
    """
    worker = get_worker()
    sent: Trainings = worker.plugins[name]  # type: ignore[assignment]
    torch.set_num_threads(1)
    try:
        for start, files in starts.items():
            unpacked(files, sent.folder / start)
        return packed(obtain(config, replace(sent.task, out=sent.folder)).path)
    except Diverged as error:
        return Trouble(str(error), True)
    except (BmlaError, OSError, MemoryError) as error:
        return Trouble(f"worker {worker.address}: {describe(config)}: {one_line(error)}", False)


def packed(folder: Path) -> Files:
    """A run's files."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def unpacked(files: Files, folder: Path) -> Run:
    """Writes a run's folder beside, then renames; one that is there is left as it is."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            beside.chmod(0o755)
            for name, content in files.items():
                (beside / name).parent.mkdir(exist_ok=True)
                (beside / name).write_bytes(content)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return load_run(folder)
