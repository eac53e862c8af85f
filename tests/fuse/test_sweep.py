from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bmla.fuse import obtain as module
from bmla.fuse.condition import parse_condition
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.metrics import branch_accuracy
from bmla.fuse.predictions import predict
from bmla.fuse.prerequisites import pretraining
from bmla.fuse.progress import Progress
from bmla.fuse.run import load_run, run_name
from bmla.fuse.sweep import RunsFailed, grid, run_sweep
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
    real = module.training

    def stop(config: RunConfig, *args: object, **options: object) -> object:
        if config.seed == 1:
            raise KeyboardInterrupt
        return real(config, *args, **options)

    monkeypatch.setattr(module, "training", stop)
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
    settings = {**SMALL, "finetune_epochs": 4, "finetune_lr": 3e-2, "head": "linear"}  # not yet at the ceiling
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


NOISES = {"audio.arrays@a": 0.5, "audio.arrays@b": 20.0, "visual.arrays@c": 1.0}
CONDITIONS = [parse_condition(c) for c in ("audio.arrays@b", "audio.arrays@a + visual.arrays@c", "no-audio")]


def test_runs_are_tested_under_conditions_also_when_they_were_finished_before(
    make_features: Make, tmp_path: Path
) -> None:
    features = make_features(noises=NOISES)
    configs = grid(["transformer", "balancemla-ao"], ["1:1"], [0], **{**SMALL, "epochs": 3}, **STREAMS)
    plain = run_sweep(configs, features, tmp_path)
    assert [r.conditions for r in plain] == [("clean",)] * 2
    before = [(r.path / "model.safetensors").stat().st_mtime_ns for r in plain]
    for runs in (run_sweep(configs, features, tmp_path, conditions=CONDITIONS), [load_run(r.path) for r in plain]):
        fused, alone = runs
        assert fused.conditions == ("clean", "audio.arrays@a + visual.arrays@c", "audio.arrays@b", "no-audio")
        assert alone.conditions == ("clean", "audio.arrays@a", "audio.arrays@b")  # it has no sight, and needs its sound
        clips = features.clips("test", ("audio", "visual"))
        expected = predict(fused.model(), features.under(["audio.arrays@b"]), clips, ("audio", "visual"))
        np.testing.assert_array_equal(fused.predictions_under("audio.arrays@b").result, expected.result)
        assert fused.scores_under("audio.arrays@b")["accuracy"] < fused.scores_under("clean")["accuracy"]
        hidden = predict(fused.model(), features, clips, ("audio", "visual"), hidden=("audio",))
        np.testing.assert_array_equal(fused.predictions_under("no-audio").result, hidden.result)
        assert alone.scores_under("visual.arrays@c") == alone.scores["test"]
        assert alone.scores_under("audio.arrays@a + visual.arrays@c") == alone.scores_under("audio.arrays@a")
        with pytest.raises(UsageError, match=r"not tested under audio.arrays@z; tested under: clean, audio"):
            fused.scores_under("audio.arrays@z")
    assert [(r.path / "model.safetensors").stat().st_mtime_ns for r in plain] == before


def test_other_noise_under_the_same_name_is_tested_again_and_is_another_training(
    make_features: Make, tmp_path: Path
) -> None:
    features, other = (make_features(noises={"audio.arrays@a": amount}) for amount in (0.5, 8.0))
    (plain,) = grid(["transformer-ao"], ["1:1"], [0], **SMALL, **STREAMS)
    noisy = replace(plain, augment=("audio.arrays@a",))
    condition = [parse_condition("audio.arrays@a")]
    scores = [
        run_sweep([plain], f, tmp_path, conditions=condition)[0].scores_under("audio.arrays@a")
        for f in (features, other)
    ]
    assert scores[0] != scores[1]
    assert run_name(plain, features) == run_name(plain, other)
    assert run_name(noisy, features) != run_name(noisy, other)


def test_variants_of_a_stream_that_a_model_does_not_take_make_no_other_run() -> None:
    settings = dict(augmentations=[(), ("visual.arrays@c",), ("audio.arrays@a", "visual.arrays@c")])
    configs = grid(["transformer-ao", "transformer"], ["1:1"], [0], **settings, **SMALL, **STREAMS)
    assert [c.augment for c in configs if c.model == "transformer-ao"] == [(), ("audio.arrays@a",)]
    assert len([c for c in configs if c.model == "transformer"]) == 3


def test_folds_are_runs_of_their_own_and_test_every_clip_once(features: Features, tmp_path: Path) -> None:
    configs = grid(["balancemla"], ["1:1"], [0], folds=3, fold_numbers=(0, 1, 2), **SMALL, **STREAMS)
    runs = run_sweep(configs, features, tmp_path)
    tested = [i for run in runs for i in run.predictions.ids]
    assert sorted(tested) == sorted(features.ids)
    assert "_fold2_" in runs[2].name
    starts = [load_run(tmp_path / run.document["branches"]["audio"]) for run in runs]
    assert [s.config.fold for s in starts] == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_diverges_does_not_stop_the_others(features: Features, tmp_path: Path, workers: int) -> None:
    good = grid(["transformer-vo", "balancemla"], ["1:1"], [0], **SMALL, **STREAMS)
    bad = [
        replace(c, lr=c.lr, pretrain_lr=90.0 if c.pretrain_epochs else c.pretrain_lr, weight_decay=1e6)
        for c in good[1:]
    ]
    with pytest.raises(
        RunsFailed, match=r"1 of 3 runs failed:\n  balancemla 1:1 seed 0: .* loss is no number"
    ) as caught:
        run_sweep([good[0], *bad, good[1]], features, tmp_path, workers=workers)
    assert [r.config for r in caught.value.runs] == good
    assert list(caught.value.failed) == bad
