"""Two small tasks of the same kinds of streams, of other clips and other classes."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.tasks.part import Part

Tiny = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def both(make_features: Callable[..., Features]) -> Mapping[str, Features]:
    """Of 4 and 3 classes; more clips of the first."""
    return {
        "words": replace(make_features(clips=80), dataset="words"),
        "letters": replace(make_features(clips=60, classes=3, seed=1, drop={"visual": (0, 1)}), dataset="letters"),
    }


@pytest.fixture(scope="session")
def parts(both: Mapping[str, Features], tiny: Tiny) -> Callable[..., list[Part]]:
    """Both as parts of one training of BalanceMLA without pre-training."""

    def make(model: str = "balancemla", **wishes: object) -> list[Part]:
        small = {
            "schedule": "long",
            "pretrain_epochs": 0,
            "brff_layers": 1,
            "epochs": 2,
            "finetune_epochs": 1,
            **wishes,
        }
        return [Part(name, tiny(model, **small), features) for name, features in both.items()]

    return make
