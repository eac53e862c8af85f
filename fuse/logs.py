"""Every epoch's figures of each run where people watch them while a sweep trains: TensorBoard, MLflow. Both are extras.

    <out>/tensorboard/<run>/    event files: the numbers of every epoch; scores on test and the settings when the run is done
    <out>/mlflow.db             the same in MLflow's local store, an experiment named after the folder

The command's own process writes, also what its workers tell; the runs themselves stay the truth, and a run that was finished before is
written whole from what it keeps. Numbers that are not single (alpha of each class) are in the run's `metrics.jsonl` alone.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..store.errors import UnknownName, UsageError
from .config import RunConfig
from .progress import Progress
from .run import Run, load_run

FLUSH_S = 5


class Log(Protocol):
    """Where figures go."""

    def has(self, run: str) -> bool:
        """Whether something of a run is there from another time."""

    def epoch(self, run: str, number: int, figures: Mapping[str, float]) -> None:
        """Args: number: of the epoch, from 1."""

    def finish(self, run: str, config: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        """A run is done. Args: scores: on test."""

    def close(self) -> None:
        """Nothing more will come."""


class TensorBoard:
    """A folder of event files for each run. Raises UsageError where TensorBoard is not installed."""

    def __init__(self, out: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("tensorboard") from error
        self.open: Callable[..., Any] = SummaryWriter
        self.out = out / "tensorboard"
        self.writers: dict[str, Any] = {}

    def has(self, run: str) -> bool:
        return (self.out / run).is_dir()

    def epoch(self, run: str, number: int, figures: Mapping[str, float]) -> None:
        if run not in self.writers:  # a run that goes on after a kill: what was written of later epochs is void
            self.writers[run] = self.open(str(self.out / run), purge_step=number, flush_secs=FLUSH_S)
        for name, value in figures.items():
            self.writers[run].add_scalar(name, value, number)

    def finish(self, run: str, config: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        writer = self.writers.pop(run, None) or self.open(str(self.out / run))
        for name, value in scores.items():
            writer.add_scalar(f"test/{name}", value)
        writer.add_text("settings", f"```\n{json.dumps(config, indent=2)}\n```")
        writer.close()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers.clear()


class MLflow:
    """A local store in one file; its folder store is no longer kept up. Raises UsageError where MLflow is not installed."""

    def __init__(self, out: Path):
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        except ImportError as error:
            raise missing("mlflow") from error
        self.metric, self.param = Metric, Param
        out.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(tracking_uri=f"sqlite:///{out.resolve()}/mlflow.db")
        experiment = self.client.get_experiment_by_name(out.name)
        self.experiment = experiment.experiment_id if experiment else self.client.create_experiment(out.name)
        self.ids: dict[str, str] = {}

    def has(self, run: str) -> bool:
        return bool(self.found(run))

    def found(self, run: str) -> list[Any]:
        return list(self.client.search_runs([self.experiment], f"attributes.run_name = '{run}'"))

    def id_of(self, run: str) -> str:
        """That of another time, or a new one."""
        if run not in self.ids:
            there = self.found(run)
            made = there[0] if there else self.client.create_run(self.experiment, run_name=run)
            self.ids[run] = made.info.run_id
        return self.ids[run]

    def epoch(self, run: str, number: int, figures: Mapping[str, float]) -> None:
        self.write(run, figures, number)

    def finish(self, run: str, config: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        params = [self.param(name, str(value)) for name, value in config.items()]
        self.client.log_batch(self.id_of(run), params=params)
        self.write(run, {f"test/{name}": value for name, value in scores.items()}, 0)
        self.client.set_terminated(self.ids.pop(run))

    def write(self, run: str, figures: Mapping[str, float], step: int) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [self.metric(name, value, now_ms, step) for name, value in figures.items()]
        self.client.log_batch(self.id_of(run), metrics=metrics)

    def close(self) -> None:
        for run_id in self.ids.values():
            self.client.set_terminated(run_id, "KILLED")
        self.ids.clear()


LOGS: dict[str, Callable[[Path], Log]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


class Logged(Progress):
    """A progress that also writes what it is told.

    Args of init:
        shown: the progress that is seen.
        out: folder of the runs.
        name_of: the folder of a run, by its settings.
    """

    def __init__(self, shown: Progress, logs: Sequence[Log], out: Path, name_of: Callable[[RunConfig], str]):
        self.shown, self.logs, self.out, self.name_of = shown, logs, out, name_of
        self.written: set[tuple[str, int]] = set()  # runs and epochs
        self.fresh: dict[tuple[int, str], bool] = {}
        self.talks = shown.talks

    def plan(self, lines: Sequence[str]) -> None:
        self.shown.plan(lines)

    def say(self, line: str) -> None:
        self.shown.say(line)

    def begin(self, work: int, reused: Sequence[str]) -> None:
        self.shown.begin(work, reused)
        for name in reused:
            self.write_whole(name)

    def start(self, config: RunConfig) -> None:
        self.shown.start(config)

    def advance(self, config: RunConfig, epoch: dict[str, Any], work: int) -> None:
        self.shown.advance(config, epoch, work)
        name = self.name_of(config)
        for log in self.logs:
            self.begun_here(log, name)
            log.epoch(name, epoch["epoch"], numbers(epoch))
        self.written.add((name, epoch["epoch"]))

    def finish(self, run: Run) -> None:
        self.shown.finish(run)
        for log in self.logs:
            for epoch in run.history:
                if (run.name, epoch["epoch"]) not in self.written and self.begun_here(log, run.name):
                    log.epoch(run.name, epoch["epoch"], numbers(epoch))
            log.finish(run.name, run.config.to_dict(), numbers(run.scores["test"]))

    def begun_here(self, log: Log, run: str) -> bool:
        """Whether no other command has written of a run; what it wrote before a kill is there."""
        return self.fresh.setdefault((id(log), run), not log.has(run))

    def end(self) -> None:
        self.shown.end()
        for log in self.logs:
            log.close()

    def write_whole(self, name: str) -> None:
        """A run that was finished before, where it is not written yet."""
        lacking = [log for log in self.logs if not log.has(name)]
        run = load_run(self.out / name) if lacking else None
        for log in lacking:
            assert run is not None
            for epoch in run.history:
                log.epoch(name, epoch["epoch"], numbers(epoch))
            log.finish(name, run.config.to_dict(), numbers(run.scores["test"]))


def open_logs(names: Sequence[str], out: Path) -> list[Log]:
    """Raises UnknownName, or UsageError where what a log needs is not installed."""
    for name in names:
        if name not in LOGS:
            raise UnknownName("log", name, tuple(LOGS))
    return [LOGS[name](out) for name in dict.fromkeys(names)]


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those that are single and finite, but for the epoch's own number."""
    single = {
        k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool) and k != "epoch"
    }
    return {k: float(v) for k, v in single.items() if math.isfinite(v)}


def missing(name: str) -> UsageError:
    return UsageError(f"--log {name}: it is not installed here: pip install 'bmla[{name}]'")
