"""Epochs that are trained in one go end where step by step does."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.models.base import cross_entropy
from bmla.fuse.obtain import Task
from bmla.fuse.planner import step_seconds, trial
from bmla.fuse.progress import Progress
from bmla.fuse.stacked import stack, whole
from bmla.fuse.stacked.group import grouped
from bmla.fuse.stacked.layers import StackedDropout
from bmla.fuse.stacked.layout import Layout
from bmla.fuse.stacked.stack import run_stacked
from bmla.fuse.training import Trained, train, training

Make = Callable[..., Features]
Tiny = Callable[..., RunConfig]
Settings = Callable[..., list[RunConfig]]
Close = Callable[[Trained, Trained], None]
SHAPES = {"audio": (12, 6), "visual": (6, 5)}


@pytest.fixture(scope="module")
def ragged(make_features: Make) -> Features:
    """As in test_stack.py: 72 clips to train on, 4 batches of 16 and one of 8."""
    drop = {"audio": (3, 17, 40, 90), "visual": (5, 60)}
    return make_features(clips=120, drop=drop, noises={"audio.arrays@a": 1.0})


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of runs with every epoch that is trained in one go."""
    seen: list[int] = []
    plain = whole.Epochs.train

    def counted(self: whole.Epochs, requests: Any) -> Any:
        seen.append(len(requests))
        return plain(self, requests)

    monkeypatch.setattr(whole.Epochs, "train", counted)
    return seen


def at_once(configs: list[RunConfig], features: Features, device: str = "cpu") -> list[Trained]:
    starts = [(c, partial(training, c, features.folded(c.folds, c.fold, c.fold_by), device=device)) for c in configs]
    found = dict(run_stacked(starts, 8, device, whole=True))
    return [found[c] for c in configs]  # type: ignore[misc]


def same_epochs(configs: list[RunConfig]) -> list[RunConfig]:
    """Of as many steps, without dropout: its masks are drawn for the longest clip of all here, and alone for that of the batch."""
    return [replace(c, folds=0, fold=0, dropout=0.0) for c in configs]


@pytest.mark.parametrize(
    "model", ["transformer-ao", "transformer", "balancemla", "joint", "joint-aux", "shared-head", "gated", "film"]
)
def test_it_equals_the_run_alone(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, epochs: list[int], model: str
) -> None:
    configs = same_epochs(settings(model))
    for config, other in zip(configs, at_once(configs, ragged), strict=True):
        assert_close(train(config, ragged), other)
    assert sum(epochs) == sum(c.total_epochs for c in configs)
    assert epochs[:3] == [3] * 3


@pytest.mark.parametrize(
    "wishes",
    [
        {"augment": ("audio.arrays@a",)},
        {"class_weights": True},
        {"balance": "joint-aux"},
        {"patience": 1},
    ],
    ids=str,
)
def test_so_do_other_settings(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, epochs: list[int], wishes: dict[str, Any]
) -> None:
    configs = same_epochs(settings("joint-aux", **wishes))
    configs[1] = replace(configs[1], class_weights=False, lambda_audio=0.5)
    configs[2] = replace(configs[2], lambda_visual=2.0)
    for config, other in zip(configs, at_once(configs, ragged), strict=True):
        assert_close(train(config, ragged), other)
    assert epochs


def test_dropout_is_that_of_the_run_alone_where_all_clips_are_as_long(
    tiny: Tiny, settings: Settings, assert_close: Close, epochs: list[int]
) -> None:
    rng = np.random.default_rng(0)
    arrays = {m: list(rng.normal(size=(120, *shape)).astype(np.float32)) for m, shape in SHAPES.items()}
    features = features_from_arrays(
        np.arange(120) % 4, np.array(["train"] * 12 + ["dev"] * 3 + ["test"] * 5)[np.arange(120) % 20], **arrays
    )
    configs = [replace(c, folds=0, fold=0) for c in settings("joint-aux")]
    for config, other in zip(configs, at_once(configs, features), strict=True):
        assert_close(train(config, features), other)
    assert epochs


@pytest.mark.parametrize(
    "wishes",
    [
        {"balance": "ogm"},
        {"balance": "adaptive", "holdout": 0.2},
        {"modality_dropout": 0.4},
        {"mixup": 0.5},
        {"folds": 3, "batch_size": 5},
    ],
    ids=str,
)
def test_what_acts_within_a_step_goes_step_by_step(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, epochs: list[int], wishes: dict[str, Any]
) -> None:
    one = tiny("joint-aux", epochs=2, lr=1e-3, batch_size=16, dropout=0.0)
    configs = [replace(one, **wishes), replace(one, **wishes, seed=3)]
    if "folds" in wishes:
        configs[1] = replace(configs[1], folds=5)  # more clips to train on
    for config, other in zip(configs, at_once(configs, ragged), strict=True):
        assert_close(train(config, ragged.folded(config.folds, config.fold, config.fold_by)), other)
    assert epochs in ([], [1])  # the last epoch of a run that is alone by then


def test_losses_of_many_runs_are_those_of_each() -> None:
    torch.manual_seed(0)
    E, B, c = 3, 5, 4
    logs = torch.randn(E * B, c).log_softmax(1)
    labels, weights = torch.randint(c, (E, B)), torch.rand(E, c)
    present = torch.rand(E, B) < 0.6
    smoothing = torch.tensor([0.0, 0.1, 0.4])
    found = whole.cross_entropies(logs, labels, weights.gather(1, labels) * present, smoothing)
    for e in range(E):
        own = cross_entropy(logs[e * B : (e + 1) * B], labels[e], weights[e], float(smoothing[e]), present[e])
        torch.testing.assert_close(found[e], own)


def test_a_model_of_a_request_is_found_either_way(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features
) -> None:
    begun = training(tiny("joint-aux", epochs=1), ragged)
    request = next(begun)
    while not isinstance(request, stack.AllSteps):
        from bmla.fuse.stacked.rows import RowOptimiser

        request = begun.send(RowOptimiser(request.groups, 0.0))  # type: ignore[union-attr]
    model = stack.model_of(request)
    assert model is stack.model_of(begun.send(None))
    begun.close()


def test_runs_on_other_streams_go_step_by_step(
    tiny: Tiny, assert_close: Close, make_features: Make, epochs: list[int]
) -> None:
    """Each on its own: the noise of one and the fold's stream of another are in no other's batches."""
    features = make_features(clips=120, noises={"audio.arrays@a": 1.0, "audio.arrays@b": 0.5})
    name = features.stream("audio").name
    features = replace(features, of_folds={name: tuple(features.variant(f"{name}@{v}") for v in "aba")})
    one = tiny("joint-aux", epochs=2, lr=1e-3, batch_size=16, dropout=0.0)
    noises = [replace(one, augment=(f"{name}@{v}",)) for v in "ab"]
    folds = [replace(one, folds=3, fold=fold) for fold in (0, 1)]
    for configs in (noises, folds):
        for config, other in zip(configs, at_once(configs, features), strict=True):
            solo = train(config, features.folded(config.folds, config.fold, config.fold_by))
            assert_close(solo, other)
        assert not epochs


def test_one_long_clip_does_not_make_every_step_long(
    tiny: Tiny, assert_close: Close, make_features: Make, epochs: list[int]
) -> None:
    features = make_features(clips=120)
    audio = features.stream("audio")
    train_clips = features.clips("train", ("audio", "visual"))
    longest = dict(
        zip(("train", "test"), (train_clips[0], features.clips("test", ("audio", "visual"))[0]), strict=True)
    )
    configs = [tiny("joint-aux", epochs=2, lr=1e-3, batch_size=16, dropout=0.0, seed=seed) for seed in (0, 1)]
    for split, clip in longest.items():
        epochs.clear()
        values = torch.cat([audio.values, audio.values[:1].repeat(300, 1)])  # type: ignore[attr-defined]
        starts, lengths = audio.starts.clone(), audio.lengths.clone()  # type: ignore[attr-defined]
        starts[clip], lengths[clip] = len(audio.values), 300  # type: ignore[attr-defined]
        valid = torch.ones(len(values), dtype=torch.bool)
        long = replace(features, audio=replace(audio, values=values, valid=valid, starts=starts, lengths=lengths))  # type: ignore[call-arg]
        for config, other in zip(configs, at_once(configs, long), strict=True):
            assert_close(train(config, long), other)
        assert bool(epochs) == (split == "test")  # no step sees that one


def test_masks_in_one_go_keep_each_run_s_own_share() -> None:
    layout = Layout([torch.Generator(), torch.Generator(), torch.Generator()], torch.Generator().manual_seed(1))
    shares = (0.0, 0.25, 0.5)
    dropout = StackedDropout([torch.nn.Dropout(share) for share in shares], layout, "shared")
    answer = dropout(torch.ones(3 * 50, 20, 8)).view(3, -1)
    for own, share in zip(answer, shares, strict=True):
        torch.testing.assert_close(own[own != 0].unique(), torch.tensor([1 / (1 - share)]))
        assert float((own == 0).float().mean()) == pytest.approx(share, abs=0.02)
        assert float(own.mean()) == pytest.approx(1, abs=0.04)


def test_each_epoch_has_masks_of_its_own(tiny: Tiny, ragged: Features) -> None:
    seeds = []
    starts = [(0, partial(training, tiny("joint-aux", epochs=3, finetune_epochs=2), ragged))]
    plain = whole.Epochs.train

    def noted(self: whole.Epochs, requests: Any) -> Any:
        seeds.append(whole.seed_of(requests))
        return plain(self, requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole.Epochs, "train", noted)
        list(run_stacked(starts, 1, whole=True))
    assert len(seeds) == len(set(seeds)) == 5  # fine-tuning included


def test_a_plan_measures_what_a_sweep_will_do(tiny: Tiny, ragged: Features, epochs: list[int], tmp_path: Path) -> None:
    task = Task(ragged, tmp_path, (), "cpu", {}, Progress())
    same = [tiny("joint-aux", batch_size=16, seed=seed) for seed in (0, 1)]
    other = [replace(same[0], folds=3, batch_size=5), replace(same[1], folds=5, batch_size=5)]
    assert step_seconds([partial(trial, c, task) for c in same], task, 1, whole=True) > 0
    assert epochs == [2, 2]  # once to warm up
    epochs.clear()
    assert step_seconds([partial(trial, c, task) for c in other], task, 1, whole=True) > 0
    assert epochs == []


def test_on_a_gpu_runs_are_grouped_by_epochs_that_can_be_taken_in_one_go(tiny: Tiny) -> None:
    configs = [tiny("transformer", folds=3, fold=fold, seed=seed) for fold in (0, 1, 2) for seed in (0, 1)]
    assert [len(group) for group in grouped(configs, "cpu")] == [6]
    assert [len(group) for group in grouped(configs, "cuda")] == [2, 2, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["transformer", "balancemla"])
def test_a_captured_step_equals_the_run_alone(
    settings: Settings, ragged: Features, on_gpu: Callable[[Features], Features], epochs: list[int], model: str
) -> None:
    configs = same_epochs(settings(model))
    there = on_gpu(ragged)
    for config, other in zip(configs, at_once(configs, there, "cuda"), strict=True):
        solo = train(config, there, device="cuda")
        ours, theirs = solo.model.state_dict(), other.model.state_dict()
        for name, value in ours.items():
            if "key_value.bias" not in name and "sharpness" not in name:
                torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-3, msg=name)
    assert epochs[:3] == [3] * 3
