"""Epochs that are trained in one go end where step by step does."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.models.base import cross_entropy
from bmla.fuse.stacked import stack, whole
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
        {"balance": "joint-aux", "lambda_audio": 0.5, "lambda_visual": 1.0},
        {"patience": 1},
    ],
    ids=str,
)
def test_so_do_other_settings(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, epochs: list[int], wishes: dict[str, Any]
) -> None:
    configs = same_epochs(settings("joint-aux", **wishes))
    configs[1] = replace(configs[1], class_weights=False)
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


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["transformer", "balancemla"])
def test_a_captured_step_equals_the_run_alone(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, model: str
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    configs = same_epochs(settings(model))
    there = on_gpu(ragged)
    for config, other in zip(configs, at_once(configs, there, "cuda"), strict=True):
        solo = train(config, there, device="cuda")
        ours, theirs = solo.model.state_dict(), other.model.state_dict()
        for name, value in ours.items():
            if "key_value.bias" not in name and "sharpness" not in name:
                torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-3, msg=name)


def on_gpu(features: Features) -> Features:
    moved = {
        m: replace(s, values=s.values.cuda(), valid=s.valid.cuda())  # type: ignore[call-arg]
        for m, s in (("audio", features.stream("audio")), ("visual", features.stream("visual")))
    }
    return replace(features, **moved)
