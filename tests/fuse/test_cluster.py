"""Runs on a Dask cluster are those of this process, also when a worker dies."""

import os
import signal
import sys
import types
from pathlib import Path

import pytest

from bmla.fuse import cluster
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.obtain import Task
from bmla.fuse.progress import Progress
from bmla.fuse.run import Run
from bmla.fuse.sweep import RunsFailed, grid, run_sweep, train_all
from bmla.store.cluster import ClusterError
from bmla.store.errors import UsageError

SMALL = dict(layers=1, width=16, heads=2, epochs=1, finetune_epochs=1, lr=5e-3)
STREAMS = dict(audio="audio.arrays", visual="visual.arrays")

pytestmark = pytest.mark.slow


def weights(folder: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in sorted(folder.glob("*/model.safetensors"))}


class Count(Progress):
    """Of finished runs."""

    def __init__(self) -> None:
        self.finished: list[str] = []

    def finish(self, run: Run) -> None:
        self.finished.append(run.name)


def test_workers_train_the_same_weights_and_send_what_runs_start_from(features: Features, tmp_path: Path) -> None:
    configs = grid(["transformer-ao", "balancemla"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    bad = grid(["transformer-vo"], ["1:1"], [0], **{**SMALL, "lr": 90.0}, weight_decay=1e6, **STREAMS)
    alone = run_sweep(configs, features, tmp_path / "alone")
    count = Count()
    with pytest.raises(
        RunsFailed, match=r"1 of 5 runs failed:\n  transformer-vo seed 0: .* loss is no number"
    ) as caught:
        run_sweep([*configs, *bad], features, tmp_path / "far", executor="dask", cluster="local:2", progress=count)
    assert weights(tmp_path / "alone") == weights(tmp_path / "far")
    assert [r.config for r in caught.value.runs] == [r.config for r in alone]
    assert {r.document["executor"] for r in caught.value.runs} == {"dask"}
    assert sorted(count.finished) == sorted(weights(tmp_path / "far"))


def test_a_killed_workers_run_is_redone_by_another(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "killed"
    real = cluster.work

    def deadly(config: RunConfig, starts: dict[str, dict[str, bytes]], name: str) -> object:
        if config.seed == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(config, starts, name)

    monkeypatch.setattr(cluster, "work", deadly)
    configs = grid(["transformer-ao"], ["1:1"], [0, 1, 2], **SMALL, **STREAMS)
    runs = run_sweep(configs, features, tmp_path / "far", executor="dask", cluster="local:2")
    assert mark.exists()
    assert [r.config for r in runs] == configs
    monkeypatch.undo()
    run_sweep(configs, features, tmp_path / "alone")
    assert weights(tmp_path / "alone") == weights(tmp_path / "far")


def test_a_sweep_that_workers_can_not_load_is_one_line(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_here = types.ModuleType("only_here")
    only_here.Mine = type("Mine", (), {"__module__": "only_here"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", only_here)
    task = Task(features, tmp_path, (), "cpu", {}, Progress(), builders={"own:mine": only_here.Mine})
    configs = grid(["transformer-ao"], ["1:1"], [0], **SMALL, **STREAMS)
    with pytest.raises(
        ClusterError,
        match=r"^local:1: a worker can't load what it is to do: .*only_here.*; a model of your own must be",
    ):
        train_all(configs, task, 1, 1, "dask", "local:1")


def test_what_is_no_cluster_is_one_line(features: Features, tmp_path: Path) -> None:
    configs = grid(["transformer-ao"], ["1:1"], [0], **SMALL, **STREAMS)
    with pytest.raises(UsageError, match='--cluster: "here" is no cluster: expected local:N'):
        run_sweep(configs, features, tmp_path, executor="dask", cluster="here")
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_sweep(configs, features, tmp_path, executor="dask", cluster="tcp://127.0.0.1:9")
