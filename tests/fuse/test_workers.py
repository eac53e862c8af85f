"""Runs trained side by side are the runs trained one after another."""

from pathlib import Path

from bmla.fuse.data import Features
from bmla.fuse.prerequisites import prerequisites, ready
from bmla.fuse.sweep import grid, run_sweep

SMALL = dict(layers=1, width=16, heads=2, epochs=1, finetune_epochs=1, lr=5e-3)
STREAMS = dict(audio="audio.arrays", visual="visual.arrays")


def weights(folder: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in sorted(folder.glob("*/model.safetensors"))}


def test_two_processes_train_the_same_weights_as_one(features: Features, tmp_path: Path) -> None:
    configs = grid(["transformer-ao", "balancemla"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    alone = run_sweep(configs, features, tmp_path / "alone")
    beside = run_sweep(configs, features, tmp_path / "beside", workers=2)
    assert weights(tmp_path / "alone") == weights(tmp_path / "beside")
    assert [r.config for r in alone] == [r.config for r in beside]
    assert [r.scores["test"]["accuracy"] for r in alone] == [r.scores["test"]["accuracy"] for r in beside]


def test_a_run_begins_when_those_that_it_starts_from_are_done_whatever_else_is_not() -> None:
    configs = grid(["balancemla", "transformer"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    first, second, *others = configs
    branches = {config: prerequisites(config) for config in (first, second)}
    waiting = {c: prerequisites(c) for c in (*branches[first], first, *branches[second], second, *others)}
    begun = ready(waiting, [])
    assert begun == [*branches[first], *branches[second], *others], "in their order, all that needs nothing"
    left = {c: needed for c, needed in waiting.items() if c not in begun}
    assert ready(left, begun) == []
    assert ready(left, [branches[first][0], others[0]]) == [second]
    assert ready(left, branches[second]) == [first]
