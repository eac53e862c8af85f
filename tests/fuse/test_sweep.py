from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bmla.fuse import obtain as module
from bmla.fuse.config import RunConfig, pretraining
from bmla.fuse.data import Features
from bmla.fuse.evaluate import predict
from bmla.fuse.metrics import branch_accuracy
from bmla.fuse.progress import Progress
from bmla.fuse.run import load_run
from bmla.fuse.sweep import grid, run_sweep
from bmla.store.errors import UnknownName, UsageError

Make = Callable[..., Features]
SMALL = dict(layers=1, width=16, heads=2, epochs=1, finetune_epochs=1, lr=5e-3)
STREAMS = dict(audio="audio.arrays", visual="visual.arrays")


class Witness(Progress):
    """Remembers what a sweep tells."""

    def __init__(self) -> None:
        self.total, self.reused, self.started, self.done, self.ended = 0, [], [], 0, False

    def begin(self, work: int, reused: Sequence[str]) -> None:
        self.total, self.reused = work, list(reused)

    def start(self, config: RunConfig) -> None:
        self.started.append(config)

    def advance(self, config: RunConfig, epoch: dict, work: int) -> None:
        self.done += work

    def end(self) -> None:
        self.ended = True


def test_a_grid_is_every_combination_once() -> None:
    configs = grid(
        ["balancemla-ao", "transformer", "balancemla"], ["1:1", "1:2", "2:4"], [0, 1], [(), ("clw",)], **SMALL
    )
    assert len(configs) == len(set(configs)) == 2 + 2 * 2 + 2 * 2 * 2
    assert sum(c.model == "balancemla-ao" for c in configs) == 2
    assert {c.ratio for c in configs} == {"1:1", "1:2"}
    with pytest.raises(UnknownName, match='unknown model "other"'):
        grid(["other"], ["1:1"], [0])


def test_pretrained_branches_are_trained_once_and_shared(features: Features, tmp_path: Path) -> None:
    configs = grid(
        ["balancemla-ao", "balancemla"], ["1:1"], [0], [(), ("clw",), ("brff", "adf", "clw")], **SMALL, **STREAMS
    )
    witness = Witness()
    runs = run_sweep(configs, features, tmp_path, progress=witness)
    assert [c.model for c in witness.started] == ["balancemla-ao", "balancemla-vo", *["balancemla"] * 3]
    assert [run.config for run in runs] == configs
    assert witness.done == witness.total == 1 + 1 + 3 * 2
    assert witness.ended
    branches = {run.document["branches"]["audio"] for run in runs[1:]}
    assert branches == {runs[0].name}


def test_fine_tuning_starts_from_the_weights_of_the_named_run(features: Features, tmp_path: Path) -> None:
    (config,) = grid(["balancemla"], ["1:2"], [0], **{**SMALL, "finetune_lr": 1e-12}, **STREAMS)
    (run,) = run_sweep([config], features, tmp_path)
    start = load_run(tmp_path / run.document["branches"]["visual"])
    assert start.config == pretraining(config, "visual")
    tuned, origin = run.model().state_dict(), start.model().state_dict()
    for name, value in origin.items():
        assert (tuned[name] - value).abs().max() < 1e-9, name


def test_finished_runs_are_reused_and_named(features: Features, tmp_path: Path) -> None:
    configs = grid(["transformer"], ["1:1", "1:2"], [0], **SMALL, **STREAMS)
    first = run_sweep(configs[:1], features, tmp_path)
    before = (first[0].path / "config.json").stat().st_mtime_ns
    witness = Witness()
    runs = run_sweep(configs, features, tmp_path, progress=witness)
    assert witness.reused == [first[0].name]
    assert witness.started == configs[1:]
    assert (runs[0].path / "config.json").stat().st_mtime_ns == before


def test_other_features_are_another_run(features: Features, make_features: Make, tmp_path: Path) -> None:
    configs = grid(["transformer"], ["1:1"], [0], **SMALL, **STREAMS)
    first, second = (run_sweep(configs, f, tmp_path)[0] for f in (features, make_features(seed=1)))
    assert first.name != second.name


def test_a_sweep_that_is_stopped_keeps_what_is_finished(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = grid(["transformer"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    real = module.train

    def stop(config: RunConfig, *args: object, **options: object) -> object:
        if config.seed == 1:
            raise KeyboardInterrupt
        return real(config, *args, **options)

    monkeypatch.setattr(module, "train", stop)
    witness = Witness()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(configs, features, tmp_path, progress=witness)
    assert witness.ended
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    witness = Witness()
    run_sweep(configs, features, tmp_path, progress=witness)
    assert [c.seed for c in witness.started] == [1]


def test_a_run_of_a_sweep_equals_the_same_run_alone(features: Features, tmp_path: Path) -> None:
    configs = grid(["transformer", "balancemla"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    together = run_sweep(configs, features, tmp_path / "together")
    alone = run_sweep(configs[-1:], features, tmp_path / "alone")
    for name in ("model.safetensors", "test.json"):
        assert (together[-1].path / name).read_bytes() == (alone[0].path / name).read_bytes()


def test_what_cannot_be_trained_is_told_before_anything_is(make_features: Make, tmp_path: Path) -> None:
    tested = (make_features().split == "test").nonzero()[0]
    silent = make_features(drop={"audio": tested})
    configs = grid(["transformer-vo", "transformer-ao"], ["1:1"], [0], **SMALL, **STREAMS)
    with pytest.raises(UsageError, match="transformer-ao: no clip of the test split has audio features"):
        run_sweep(configs, silent, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="a sweep of no runs"):
        run_sweep([], silent, tmp_path)


def test_scores_tell_the_branches_with_and_without_brff(features: Features, tmp_path: Path) -> None:
    settings = {**SMALL, "finetune_epochs": 4, "finetune_lr": 3e-2}
    configs = grid(["balancemla"], ["1:1"], [0], [(), ("brff",)], **settings, **STREAMS)
    whole, without = run_sweep(configs, features, tmp_path)
    clips = features.clips("test", ("audio", "visual"))
    alone = predict(whole.model(), features, clips, ("audio", "visual"), brff=False)
    for modality in ("audio", "visual"):
        expected = branch_accuracy(alone, modality)
        assert whole.scores["test"][f"{modality}_alone_accuracy"] == expected
        assert whole.scores["test"][f"{modality}_accuracy"] != expected  # by now the branches look at each other
        assert without.scores["test"][f"{modality}_alone_accuracy"] is None
        assert 0 <= without.scores["test"][f"{modality}_accuracy"] <= 1
    assert whole.scores["dev"]["accuracy"] == whole.scores["best"]["dev_accuracy"]
