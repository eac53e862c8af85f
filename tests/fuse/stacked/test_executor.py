"""A sweep in stacks leaves what a sweep of single runs leaves, and goes on from whatever the other one left."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bmla.fuse import obtain as module
from bmla.fuse import sweep
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.logs import Logged
from bmla.fuse.planner import Plan
from bmla.fuse.progress import Progress
from bmla.fuse.run import Run, load_run, run_name
from bmla.fuse.stacked.group import grouped, largest_stack
from bmla.fuse.sweep import RunsFailed, grid, run_sweep
from bmla.fuse.unfinished import FOLDER, Unfinished
from bmla.store.errors import UnknownName, UsageError

SMALL = dict(layers=1, width=16, heads=2, epochs=2, finetune_epochs=2, lr=1e-3, finetune_lr=3e-4, batch_size=32)
STREAMS = dict(audio="audio.arrays", visual="visual.arrays")


class Killed(BaseException):
    """As a signal would be: nothing catches it."""


class Witness(Progress):
    """Remembers what a sweep tells; kills it after some epochs."""

    def __init__(self, kill_after: int = 10**9) -> None:
        self.said: list[str] = []
        self.started: list[RunConfig] = []
        self.finished: list[str] = []
        self.left = kill_after

    def say(self, line: str) -> None:
        self.said.append(line)

    def start(self, config: RunConfig) -> None:
        self.started.append(config)

    def advance(self, config: RunConfig, epoch: dict[str, Any], work: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def finish(self, run: Run) -> None:
        self.finished.append(run.name)


def losses(run: Run) -> list[float]:
    return [epoch["train_loss"] for epoch in run.history]


def test_stacks_leave_the_same_runs_as_processes(features: Features, tmp_path: Path) -> None:
    configs = grid(["transformer", "balancemla"], ["1:1", "3:1"], [0], **SMALL, **STREAMS)
    witness = Witness()
    alone = run_sweep(configs, features, tmp_path / "alone")
    together = run_sweep(configs, features, tmp_path / "together", executor="stacked", progress=witness)
    assert [r.name for r in together] == [r.name for r in alone]
    files = [
        sorted(p.relative_to(tmp_path / f).as_posix() for p in (tmp_path / f).rglob("*")) for f in ("alone", "together")
    ]
    assert files[0] == files[1]
    for one, other in zip(alone, together, strict=True):
        assert losses(other) == pytest.approx(losses(one), rel=1e-4)
        assert (one.document["executor"], other.document["executor"]) == ("processes", "stacked")
        assert other.branches == one.branches
        assert one.document["parameters"] == other.document["parameters"]
    assert len(witness.finished) == len(set(witness.finished)) == 8  # the branches of each ratio as well
    again = Witness()
    run_sweep(configs, features, tmp_path / "together", executor="stacked", progress=again)
    assert again.started == []


@pytest.mark.parametrize("then", ["stacked", "processes"])
def test_a_killed_stack_goes_on_where_it_was(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(module, "Unfinished", partial(Unfinished, every_s=0))
    configs = grid(["transformer"], ["1:1", "1:3"], [0, 1], **{**SMALL, "epochs": 3}, **STREAMS)
    whole = run_sweep(configs, features, tmp_path / "whole", executor="stacked")
    with pytest.raises(Killed):
        run_sweep(configs, features, tmp_path / "cut", executor="stacked", progress=Witness(kill_after=7))
    states = list((tmp_path / "cut" / FOLDER).iterdir())
    assert len(states) == 4
    assert not list((tmp_path / "cut").glob("*/config.json"))
    runs = run_sweep(configs, features, tmp_path / "cut", executor=then)
    for one, other in zip(whole, runs, strict=True):
        assert losses(other) == pytest.approx(losses(one), rel=1e-4)
        assert other.scores["test"]["clips"] == one.scores["test"]["clips"]
    assert not list((tmp_path / "cut" / FOLDER).iterdir())


def test_what_does_not_stack_is_said_and_trained_all_the_same(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "plan", lambda *arguments: Plan("stacked"))
    configs = grid(["single-res", "film"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    witness = Witness()
    runs = run_sweep(configs, features, tmp_path, executor="auto", progress=witness)
    assert witness.said == ["single-res (SingleRes works for one run at a time): does not stack, trained in processes"]
    assert [r.document["executor"] for r in runs] == ["processes"] * 2 + ["stacked"] * 2


@pytest.mark.parametrize(
    ("model", "balance", "reason"),
    [
        ("single-res", "none", "single-res (SingleRes works for one run at a time)"),
        ("bgru", "none", "bgru (TwoFronts works for one run at a time)"),
        ("joint-aux", "mmpareto", "balance mmpareto (it goes back loss by loss)"),
        ("joint", "umt", "balance umt (it trains maps of its own)"),
    ],
)
def test_a_stack_that_is_asked_for_but_can_not_be_is_refused_at_once(
    features: Features, tmp_path: Path, model: str, balance: str, reason: str
) -> None:
    configs = [
        *grid(["film"], ["1:1"], [0, 1], **SMALL, **STREAMS),
        *grid([model], ["1:1"], [0, 1], [()], [balance], **SMALL, gru_units=4, **STREAMS),
    ]
    with pytest.raises(UsageError) as caught:
        run_sweep(configs, features, tmp_path, executor="stacked")
    assert str(caught.value) == (
        f"--executor stacked: {reason}: can't be trained in a stack; leave it out, or take --executor auto"
    )
    assert not list(tmp_path.iterdir())


def test_what_is_only_put_together_may_be_asked_for_in_stacks(features: Features, tmp_path: Path) -> None:
    configs = grid(["logit-average"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    runs = run_sweep(configs, features, tmp_path, executor="stacked")
    branches = [load_run(tmp_path / name) for run in runs for name in run.branches.values()]
    assert [run.document["executor"] for run in branches] == ["stacked"] * 4


class Lines:
    """A log that keeps everything in the order in which it came."""

    def __init__(self) -> None:
        self.epochs: dict[str, list[int]] = {}
        self.done: list[str] = []

    def has(self, run: str) -> bool:
        return False

    def epoch(self, run: str, number: int, figures: Any) -> None:
        assert figures["dev_accuracy"] >= 0
        self.epochs.setdefault(run, []).append(number)

    def finish(self, run: str, config: Any, scores: Any) -> None:
        self.done.append(run)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("executor", ["stacked", pytest.param("dask", marks=pytest.mark.slow)])
def test_logs_get_every_epoch_in_its_order(features: Features, tmp_path: Path, executor: str) -> None:
    configs = grid(["joint"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    log = Lines()
    progress = Logged(Progress(), [log], tmp_path, lambda config: run_name(config, features))
    runs = run_sweep(configs, features, tmp_path, executor=executor, progress=progress)
    assert log.epochs == {run.name: [epoch["epoch"] for epoch in run.history] for run in runs}
    assert sorted(log.done) == sorted(log.epochs)


def test_a_run_that_diverges_is_named_and_so_are_those_that_start_from_it(features: Features, tmp_path: Path) -> None:
    good = grid(["balancemla"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    bad = grid(["balancemla"], ["1:1"], [2], **{**SMALL, "lr": 90.0}, weight_decay=1e6, **STREAMS)
    with pytest.raises(
        RunsFailed, match=r"1 of 3 runs failed:\n  balancemla 1:1 seed 2: .* loss is no number"
    ) as caught:
        run_sweep([*good, *bad], features, tmp_path, executor="stacked")
    assert [r.config for r in caught.value.runs] == good
    assert load_run(caught.value.runs[0].path).config == good[0]


def test_runs_are_grouped_by_what_their_layers_are() -> None:
    configs = grid(["transformer", "film"], ["1:1", "1:3"], [0, 1], [()], ["none", "ogm"], **SMALL, **STREAMS)
    sizes = {(g[0].model, g[0].balance): len(g) for g in grouped(configs, "cpu")}
    assert sizes == {("transformer", "none"): 4, ("transformer", "ogm"): 4, ("film", "none"): 2, ("film", "ogm"): 2}
    scaled = grid(["transformer"], ["1:1", "1:3"], [0], **SMALL, **STREAMS, ratio_mode="fixed-base")
    assert len(grouped(scaled, "cpu")) == 2


def test_memory_caps_a_stack(features: Features) -> None:
    (config,) = grid(["transformer"], ["1:1"], [0], **SMALL, **STREAMS)
    small, large = (largest_stack(config, 100, 10_000, n) for n in (10**9, 2 * 10**9))
    assert large in (2 * small, 2 * small + 1)
    assert largest_stack(replace(config, convolution=7), 100, 10_000, 10**9) < small
    assert largest_stack(config, 100, 10**9, 1000) == 1


def test_an_executor_that_there_is_not(features: Features, tmp_path: Path) -> None:
    configs = grid(["film"], ["1:1"], [0], **SMALL, **STREAMS)
    with pytest.raises(UnknownName, match='unknown executor "slurm"; known: auto, processes, stacked, dask'):
        run_sweep(configs, features, tmp_path, executor="slurm")
