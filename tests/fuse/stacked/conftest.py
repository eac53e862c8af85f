"""What tests of stacks share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.training import Trained

Tiny = Callable[..., RunConfig]
RATED = ("transformer", "balancemla", "balancemla-ao", "balancemla-vo")  # the models that a ratio changes
CLOSE = 1e-5


@pytest.fixture(scope="session")
def settings(tiny: Tiny) -> Callable[..., list[RunConfig]]:
    """Three runs of 20 steps of a model that differ in all that runs of a stack may differ in."""

    def make(model: str, **wishes: Any) -> list[RunConfig]:
        composite = {"schedule": "long", "pretrain_epochs": 0} if model == "balancemla" else {}
        one = tiny(model, epochs=3, finetune_epochs=1, lr=1e-3, finetune_lr=3e-4, batch_size=16, **composite, **wishes)
        ratios = ("1:1", "1:3", "3:1") if model in RATED else ("1:1",) * 3
        return [
            replace(one, ratio=ratios[0]),
            replace(
                one, ratio=ratios[1], seed=7, lr=2e-3, weight_decay=0.1, warmup_steps=5, dropout=0.3, clip_norm=0.3
            ),
            replace(one, ratio=ratios[2], seed=8, lr_scale_audio=0.3, folds=3, fold=1, label_smoothing=0.1, epochs=4),
        ]

    return make


@pytest.fixture(scope="session")
def assert_close() -> Callable[[Trained, Trained], None]:
    """Says that two trainings gave the same parameters, but for those that depend on the last bit alone: see the comments."""

    def check(solo: Trained, other: Trained) -> None:
        ours, theirs = solo.model.state_dict(), other.model.state_dict()
        assert list(ours) == list(theirs)
        for name, value in ours.items():
            a, b = value, theirs[name]
            assert a.shape == b.shape
            if name.endswith("key_value.bias"):
                # Softmax does not change when all keys do by the same: the gradient of a key's bias is rounding,
                # and Adam makes steps of it.
                a, b = (half.chunk(2)[1] for half in (a, b))
            if name.startswith("decision.") and "sharpness" in "".join(ours):
                continue  # fitted after training, by a line search that ends where rounding lets it
            assert a.numel() == 0 or float((a - b).abs().max()) < CLOSE, name
        assert len(solo.history) == len(other.history)
        for mine, yours in zip(solo.history, other.history, strict=True):
            assert mine.keys() == yours.keys()
            numbers = [
                k for k, v in mine.items() if isinstance(v, float) and not k.startswith(("dev", "shapley", "held"))
            ]
            assert {k: mine[k] for k in numbers} == pytest.approx({k: yours[k] for k in numbers}, rel=1e-3, abs=1e-5)

    return check


@pytest.fixture(scope="session")
def on_gpu() -> Callable[[Features], Features]:
    """Puts the values of both streams on the GPU; without one, the test is skipped."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")

    def move(features: Features) -> Features:
        moved = {
            m: replace(s, values=s.values.cuda(), valid=s.valid.cuda())  # type: ignore[call-arg]
            for m, s in (("audio", features.stream("audio")), ("visual", features.stream("visual")))
        }
        return replace(features, **moved)

    return move
