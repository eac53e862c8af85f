"""What `--log` writes, read back: the numbers of every epoch of every run, once."""

import sys
import time
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bmla.cli import main
from bmla.fuse.logs import Logged, MLflow, TensorBoard, numbers, open_logs
from bmla.fuse.progress import Progress
from bmla.fuse.run import Run, load_run
from bmla.store.errors import UnknownName, UsageError

SMALL = [
    "--layers",
    "1",
    "--width",
    "8",
    "--heads",
    "2",
    "--epochs",
    "2",
    "--finetune-epochs",
    "1",
    "--threads",
    "1",
    "--quiet",
]


def fused(store: Path, out: Path, *words: str) -> list[Run]:
    result = CliRunner().invoke(main, ["fuse", "--store", str(store), "--out", str(out), *SMALL, *words])
    assert result.exit_code == 0, (result.output, result.exception)
    return [load_run(path.parent) for path in sorted(out.glob("*/config.json"))]


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder), {"scalars": 0})
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def expected(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What the run keeps itself."""
    found: dict[str, list[tuple[int, float]]] = {}
    for epoch in run.history:
        for name, value in numbers(epoch).items():
            found.setdefault(name, []).append((epoch["epoch"], value))
    for name, value in numbers(run.scores["test"]).items():
        found[f"test/{name}"] = [(0, value)]
    return found


def assert_same(found: dict[str, list[tuple[int, float]]], run: Run) -> None:
    wanted = expected(run)
    assert len(wanted["dev_accuracy"]) == max(run.config.total_epochs, 1)
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6)


def test_tensorboard_has_every_epoch_of_every_run_and_of_those_they_start_from(
    tiny_store: Path, tmp_path: Path
) -> None:
    words = ("--model", "joint,logit-average", "--workers", "1", "--log", "tensorboard")
    runs = fused(tiny_store, tmp_path, *words)
    assert len(runs) == 4, "the logit average has two branches"
    for run in runs:
        assert_same(events(tmp_path / "tensorboard" / run.name), run)
    before = {path: path.stat().st_size for path in (tmp_path / "tensorboard").rglob("*") if path.is_file()}
    fused(tiny_store, tmp_path, *words)
    assert before == {path: path.stat().st_size for path in (tmp_path / "tensorboard").rglob("*") if path.is_file()}


def test_a_run_that_was_finished_before_is_written_whole(tiny_store: Path, tmp_path: Path) -> None:
    (run,) = fused(tiny_store, tmp_path, "--model", "joint")
    fused(tiny_store, tmp_path, "--model", "joint", "--log", "tensorboard")
    assert_same(events(tmp_path / "tensorboard" / run.name), run)


def test_epochs_that_are_trained_again_after_a_kill_stand_once(tmp_path: Path) -> None:
    for epochs in ((1, 2, 3), (3, 4)):
        log = TensorBoard(tmp_path)
        for number in epochs:
            log.epoch("run", number, {"dev_loss": float(number + len(epochs))})
        log.close()
        time.sleep(1.1)  # files of one second have no order
    assert events(tmp_path / "tensorboard" / "run")["dev_loss"] == [(1, 4.0), (2, 5.0), (3, 5.0), (4, 6.0)]


@dataclass
class FakeRun:
    name: str
    info: Any = None
    metrics: list[Any] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    status: str = "RUNNING"


class FakeClient:
    """What bmla asks of MLflow 3's client; kept between clients, as its file is."""

    runs: dict[str, FakeRun] = {}  # noqa: RUF012 - the test empties it
    experiments: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, tracking_uri: str):
        self.uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> Any:
        return self.experiments.get(name)

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = types.SimpleNamespace(experiment_id="7")
        return "7"

    def search_runs(self, experiments: list[str], text: str) -> list[FakeRun]:
        assert experiments == ["7"]
        return [run for run in self.runs.values() if text == f"attributes.run_name = '{run.name}'"]

    def create_run(self, experiment: str, run_name: str) -> FakeRun:
        run_id = str(len(self.runs))
        self.runs[run_id] = FakeRun(run_name, types.SimpleNamespace(run_id=run_id))
        return self.runs[run_id]

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self.runs[run_id].metrics += metrics
        self.runs[run_id].params |= dict(params)

    def set_terminated(self, run_id: str, status: str = "FINISHED") -> None:
        self.runs[run_id].status = status


def test_mlflow_has_the_same(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entities = types.SimpleNamespace(Metric=lambda *values: values, Param=lambda name, value: (name, value))
    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace(MlflowClient=FakeClient, entities=entities))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr(FakeClient, "runs", {})
    monkeypatch.setattr(FakeClient, "experiments", {})
    for _ in range(2):  # the second time, nothing is written
        (run,) = fused(tiny_store, tmp_path, "--model", "joint", "--log", "mlflow")
    (found,) = FakeClient.runs.values()
    points: dict[str, list[tuple[int, float]]] = {}
    for name, value, _, step in found.metrics:
        points.setdefault(name, []).append((step, value))
    assert_same(points, run)
    assert (found.name, found.status, found.params["model"]) == (run.name, "FINISHED", "joint")
    assert list(FakeClient.experiments) == [tmp_path.name]
    log = MLflow(tmp_path)
    assert log.client.uri == f"sqlite:///{tmp_path}/mlflow.db"
    log.epoch("killed", 1, {"x": 1.0})
    log.close()
    assert FakeClient.runs["1"].status == "KILLED"


def test_a_log_that_is_not_installed_or_not_known_is_one_line(
    tmp_path: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for name in ("tensorboard", "mlflow"):
        with pytest.raises(UsageError, match=rf"--log {name}: it is not installed here: pip install 'bmla\[{name}\]'"):
            open_logs([name], tmp_path)
    with pytest.raises(UnknownName, match='unknown log "wandb"; known: tensorboard, mlflow'):
        open_logs(["wandb"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_no_single_finite_number_is_left_out() -> None:
    values = {
        "epoch": 3,
        "phase": "train",
        "lr": 0.1,
        "alpha_per_class": [0.1],
        "rho": None,
        "x": float("inf"),
        "y": True,
    }
    assert numbers(values) == {"lr": 0.1}
    assert isinstance(Logged(Progress(), [], Path(), lambda config: "x"), Progress)
