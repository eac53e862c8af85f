from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bmla.fuse.tasks.obtain as module
from bmla.fuse.balance.base import Balance
from bmla.fuse.condition import parse_condition
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.obtain import Task
from bmla.fuse.progress import Progress, describe
from bmla.fuse.run import load_run, run_name
from bmla.fuse.summary import summarise
from bmla.fuse.sweep import run_sweep
from bmla.fuse.tasks.obtain import tagged, train_tasks
from bmla.store.errors import UsageError

Make = Callable[..., dict[str, RunConfig]]


@pytest.fixture
def tasks(both: Mapping[str, Features], tmp_path: Path) -> dict[str, Task]:
    conditions = (parse_condition("no-audio"),)
    return {n: Task(f, tmp_path / n, conditions, "cpu", {"store": n}, Progress()) for n, f in both.items()}


@pytest.fixture(scope="session")
def training(both: Mapping[str, Features], tiny: Callable[..., RunConfig]) -> Make:
    """BalanceMLA with its pre-training."""

    def make(**wishes: Any) -> dict[str, RunConfig]:
        small = {"brff_layers": 1, "epochs": 1, "finetune_epochs": 1, **wishes}
        return {name: tiny("balancemla", **small) for name in both}

    return make


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Written out."""
    each = []
    for c in sorted({*truth.tolist(), *predicted.tolist()}):
        hit = ((truth == c) & (predicted == c)).sum()
        each.append(2 * hit / ((truth == c).sum() + (predicted == c).sum()))
    return float(np.mean(each))


def test_each_task_has_a_run_of_its_own_whose_figures_are_those_of_its_answers(
    training: Make, tasks: dict[str, Task], tmp_path: Path
) -> None:
    runs, failed = train_tasks([training()], tasks)
    assert failed == {}
    names = {name: run.name for name, (run,) in runs.items()}
    for name, (run,) in runs.items():
        features = tasks[name].features
        assert run.path.parent == tmp_path / name
        assert run.classes == features.classes
        assert run.config.task_names == (name, *(other for other in tasks if other != name))
        assert run.document["tasks"] == names
        assert run.document["store"] == name
        clips = features.clips("test", ("audio", "visual"))
        answers = load_run(run.path).predict(features)
        np.testing.assert_array_equal(answers.result, run.predictions.result)
        assert run.predictions.ids.tolist() == features.ids[clips].tolist()
        truth, predicted = features.labels.numpy()[clips], answers.result.argmax(1)
        assert run.scores["test"]["accuracy"] == pytest.approx((truth == predicted).mean())
        assert run.scores["test"]["macro_f1"] == pytest.approx(macro_f1(truth, predicted))
        assert run.conditions == ("clean", "no-audio")
        assert run.scores_under("no-audio")["clips"] == int(features.stream("visual").present[clips].sum())
        for modality in ("audio", "visual"):
            before = load_run(run.path.parent / run.branches[modality])
            assert before.config.task_names == run.config.task_names
            assert before.classes == features.classes
    assert sorted(p.name for p in tmp_path.iterdir() if p.name not in tasks) == []
    assert not list(tmp_path.glob("*/.unfinished/*"))


def test_finished_runs_are_reused_and_those_that_a_kill_left_out_are_the_same(
    training: Make, tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = training()
    runs, _ = train_tasks([given], tasks)
    path = runs["letters"][0].path
    weights = (path / "model.safetensors").read_bytes()
    path.rename(path.with_name(".gone"))
    again, _ = train_tasks([dict(reversed(given.items()))], tasks)
    assert (path / "model.safetensors").read_bytes() == weights
    assert again["words"][0].path == runs["words"][0].path
    monkeypatch.setattr(module, "train_together", lambda *args, **options: pytest.fail("trained again"))
    train_tasks([given], tasks)


def test_runs_of_other_partners_are_other_runs(
    training: Make, tasks: dict[str, Task], make_features: Callable[..., Features]
) -> None:
    given = training()
    first = tagged(given, tasks)
    assert list(first) == ["letters", "words"]  # whatever the order that they are given in
    assert tagged(dict(reversed(given.items())), tasks) == first
    others = {**tasks, "letters": replace(tasks["letters"], features=make_features(clips=40, classes=3))}
    second = tagged(given, others)
    own = tasks["words"].features
    names = {run_name(c, own) for c in (first["words"], second["words"], given["words"])}
    assert len(names) == 3
    assert RunConfig.from_dict(first["words"].to_dict()) == first["words"]
    assert describe(first["words"]) == "balancemla on words with letters 1:1 seed 0"
    with pytest.raises(UsageError, match=r"tasks is .*'words=x'.*, expected two or more of the form NAME=DIGEST"):
        replace(given["words"], tasks=("words=x", "letters=0123456789"))


def test_a_run_of_several_tasks_stands_beside_that_of_its_task_alone(training: Make, tasks: dict[str, Task]) -> None:
    given = training(pretrain_epochs=0, schedule="long", finetune_epochs=0)
    runs, _ = train_tasks([given], tasks)
    words = tasks["words"]
    alone = run_sweep([given["words"]], words.features, words.out, conditions=words.conditions)
    summary = summarise([*runs["words"], *alone])
    assert [row.label for row in summary.rows] == ["balancemla on words with letters 1:1", "balancemla 1:1"]
    assert [row.clean.mean for row in summary.rows] == [
        run.scores["test"]["accuracy"] for run in (*runs["words"], *alone)
    ]
    assert len(summary.pairs) == 2  # clean, and without sound


def test_teachers_of_a_balance_method_are_those_that_were_trained_together(
    training: Make, tasks: dict[str, Task]
) -> None:
    runs, _ = train_tasks([training(balance="umt", finetune_epochs=1)], tasks)
    for name, (run,) in runs.items():
        for teacher in run.document["teachers"].values():
            assert load_run(run.path.parent / teacher).config.task_names[0] == name
        assert set(run.document["teachers"]) == {"audio", "visual"}
        assert np.isfinite(run.scores["best"]["train_loss"])


def test_one_training_that_fails_leaves_the_others(
    training: Make, tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [training(pretrain_epochs=0, schedule="long", finetune_epochs=0, lr=lr) for lr in (1e-3, 2e-3)]
    real = Balance.__init__

    def spoil(self: Balance, config: RunConfig) -> None:
        real(self, config)
        self.lambdas["audio"] = float("inf") if config.lr == 1e-3 else 1.0

    monkeypatch.setattr(Balance, "__init__", spoil)
    runs, failed = train_tasks(grid, tasks)
    assert [len(found) for found in runs.values()] == [1, 1]
    ((config, line),) = failed.items()
    assert config.lr == 1e-3
    assert line.startswith("letters + words: balancemla, seed 0: the loss is no number any more in epoch 1")


def test_tasks_that_cannot_go_together_are_refused_before_anything_is_trained(
    training: Make, tasks: dict[str, Task], tmp_path: Path
) -> None:
    letters = replace(tasks["letters"], features=replace(tasks["letters"].features, dataset="words"))
    with pytest.raises(UsageError, match=r"recordings, such as .* expected stores with the same splits"):
        train_tasks([training()], {**tasks, "letters": letters})
    assert list(tmp_path.iterdir()) == []
