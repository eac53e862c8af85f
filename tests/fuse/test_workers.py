"""Runs trained side by side are the runs trained one after another."""

from collections.abc import Callable
from pathlib import Path

from bmla.fuse.condition import parse_condition
from bmla.fuse.data import Features
from bmla.fuse.prerequisites import prerequisites, ready
from bmla.fuse.sweep import grid, run_sweep

SMALL = dict(layers=1, width=16, heads=2, epochs=1, finetune_epochs=1, lr=5e-3)
STREAMS = dict(audio="audio.arrays", visual="visual.arrays")


def results(folder: Path) -> dict[str, bytes]:
    """The weights of each run and its answers, those under conditions too."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".parquet"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_two_processes_leave_the_same_runs_as_one(make_features: Callable[..., Features], tmp_path: Path) -> None:
    features = make_features(noises={"audio.arrays@white=0": 2.0})
    configs = grid(["transformer-ao", "balancemla"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    conditions = [parse_condition("no-visual"), parse_condition("audio.arrays@white=0")]
    alone = run_sweep(configs, features, tmp_path / "alone", conditions=conditions)
    beside = run_sweep(configs, features, tmp_path / "beside", conditions=conditions, workers=2)
    written = results(tmp_path / "alone")
    assert written == results(tmp_path / "beside")
    tested = {name.partition("_")[0] for name in written if "/conditions/" in name}
    assert tested == {"balancemla", "transformer-ao"}, "what was asked for, not what it starts from"
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
