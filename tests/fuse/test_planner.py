from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmla.fuse import planner
from bmla.fuse.data import Features, features_from_store
from bmla.fuse.models.base import Input
from bmla.fuse.obtain import Task
from bmla.fuse.planner import duration, plan, steps_of
from bmla.fuse.progress import Progress
from bmla.fuse.sweep import grid
from bmla.store import open_store

SMALL = dict(layers=1, width=16, heads=2, epochs=2, finetune_epochs=1, lr=1e-3, batch_size=16)
STREAMS = dict(audio="audio.arrays", visual="visual.arrays")


class Told(Progress):
    talks = True


@pytest.fixture
def task(features: Features, tmp_path: Path) -> Task:
    return Task(features, tmp_path, (), "cpu", {}, Told())


def faked(monkeypatch: pytest.MonkeyPatch, alone_s: float, stacked_s: float) -> list[int]:
    """Speeds as given; returns how many runs each measurement was of."""
    asked: list[int] = []

    def seconds(trials: Sequence[Callable[[], Any]], task: Task, threads: int) -> float:
        asked.append(len(trials))
        return alone_s if len(trials) == 1 else stacked_s

    monkeypatch.setattr(planner, "step_seconds", seconds)
    return asked


@pytest.mark.parametrize(("stacked_s", "best"), [(1.9, "stacked"), (3.6, "processes"), (6.2, "processes")])
def test_the_way_that_is_much_quicker_is_taken(
    task: Task, monkeypatch: pytest.MonkeyPatch, stacked_s: float, best: str
) -> None:
    faked(monkeypatch, alone_s=2.0, stacked_s=stacked_s)
    configs = grid(["transformer"], ["1:1", "1:3", "3:1"], [0, 1], **SMALL, **STREAMS)
    planned = plan(configs, task, 2, 1, "auto")  # 6 runs: by two processes 6 s for a step of each, or stacked_s
    assert planned.executor == best
    steps, judged = (
        2 * -(-144 // 16),
        2 * (36 + 3 * 32) / 16 / 3,
    )  # of two epochs of 144 clips; a third of what is judged
    assert steps_of(configs[0], task) == (steps, pytest.approx(judged))
    stacked = 6 * (steps * stacked_s / 6 + judged * 2.0)  # run by run
    expected = stacked if best == "stacked" else 6 * (steps + judged) * 2.0 / 2 + planner.START_S
    assert planned.seconds == pytest.approx(expected)
    assert planned.lines[0].startswith(f"6 runs to train, about {duration(expected)} in ")
    assert planned.lines[1].startswith("  6 x transformer: ")


def test_what_was_asked_for_is_not_changed_and_not_measured_for_nobody(
    task: Task, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = grid(["transformer", "single-res"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    asked = faked(monkeypatch, 1.0, 1e-9)
    assert plan(configs, task, 2, 1, "processes").executor == "processes"
    assert asked == [1, 1]  # no stack is tried
    asked.clear()
    assert plan(configs, task, 2, 1, "stacked").executor == "stacked"
    assert asked == [1, 1, 2]  # single-res does not stack
    asked.clear()
    silent = Task(features, tmp_path, (), "cpu", {}, Progress())
    assert plan(configs, silent, 2, 1, "stacked") == planner.Plan("stacked")
    assert plan(configs[:1], task, 2, 1, "auto") == planner.Plan("processes")
    assert asked == []


class Bare(nn.Module):
    def __init__(self, inputs: Mapping[str, Input], classes: int):
        super().__init__()
        self.classify = nn.Linear(sum(source.length for source in inputs.values()), classes)

    def forward(self, audio: Tensor, audio_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        logits: Tensor = self.classify(torch.cat([audio.mean(1), visual.mean(1)], 1))
        return logits


def test_models_of_ones_own_are_measured_and_go_to_processes(task: Task) -> None:
    configs = grid(["own:bare"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    planned = plan(configs, replace(task, builders={"own:bare": Bare}), 1, 1, "auto")
    assert planned.executor == "processes"
    assert planned.seconds is not None
    assert "in a stack" not in "".join(planned.lines)


def test_what_is_read_from_a_store_as_it_is_wanted_is_not_measured(task: Task, tiny_store: Path) -> None:
    features = features_from_store(open_store(tiny_store), "audio.logspec", "mouth.dct", tier="shard")
    configs = grid(["transformer"], ["1:1"], [0, 1], **SMALL, audio="audio.logspec", visual="mouth.dct")
    assert plan(configs, replace(task, features=features), 2, 1, "auto") == planner.Plan("processes")


def test_measuring_leaves_nothing_behind(task: Task) -> None:
    configs = grid(["transformer"], ["1:1", "1:3"], [0], **SMALL, **STREAMS)
    planned = plan(configs, task, 1, 1, "auto")
    assert planned.seconds is not None
    assert planned.seconds > 0
    assert list(task.out.iterdir()) == []


def test_a_stack_that_could_not_save_enough_is_not_tried(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = grid(["transformer"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    asked = faked(monkeypatch, alone_s=1e-3, stacked_s=1e-9)
    planned = plan(configs, task, 2, 1, "auto")
    assert (planned.executor, asked) == ("processes", [1])
    assert planned.seconds is not None
    assert planned.seconds < planner.WORTH_S
    faked(monkeypatch, alone_s=2.0, stacked_s=1e-9)
    assert plan(configs, task, 2, 1, "auto").executor == "stacked"


def test_little_time_saved_is_no_reason() -> None:
    assert planner.chosen({"processes": 30.0, "stacked": 11.0}) == "processes"
    assert planner.chosen({"processes": 30.0, "stacked": 9.0}) == "stacked"
    assert planner.chosen({"processes": 1000.0, "stacked": 810.0}) == "processes"


def test_durations_are_said_in_fitting_units() -> None:
    assert [duration(s) for s in (12.3, 150, 9000)] == ["12 s", "2 min", "2.5 h"]
