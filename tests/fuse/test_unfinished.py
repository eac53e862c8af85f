from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bmla.fuse.balance.base import Balance
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.standing import Diverged
from bmla.fuse.training import Trained, train
from bmla.fuse.unfinished import NAME, Unfinished

Tiny = Callable[..., RunConfig]


class Killed(BaseException):
    """As a signal would be: nothing catches it."""


def interrupted(config: RunConfig, features: Features, unfinished: Unfinished, epochs: int) -> None:
    """A training that ends after so many epochs."""

    def kill(epoch: dict[str, Any]) -> None:
        if epoch["epoch"] == epochs:
            raise Killed

    with pytest.raises(Killed):
        train(config, features, unfinished=unfinished, on_epoch=kill)


def assert_same(a: Trained, b: Trained) -> None:
    assert a.history == b.history
    assert a.best == b.best
    for (name, x), y in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_a_killed_training_goes_on_to_the_same_weights(
    tiny: Tiny, features: Features, tmp_path: Path, epochs: int
) -> None:
    config = replace(tiny("transformer", epochs=3, lr=5e-3), finetune_epochs=2, warmup_steps=7, modality_dropout=0.3)
    whole = train(config, features)
    unfinished = Unfinished(tmp_path / "run", every_s=0)
    interrupted(config, features, unfinished, epochs)
    torch.manual_seed(99)  # another process begins with other random numbers
    told: list[int] = []
    again = train(config, features, unfinished=unfinished, on_epoch=lambda e: told.append(e["epoch"]))
    assert told == list(range(epochs + 1, 6))
    assert_same(whole, again)


def test_a_training_killed_twice_and_one_that_is_complete_go_on_too(
    tiny: Tiny, features: Features, tmp_path: Path
) -> None:
    config = tiny("transformer-ao", epochs=3)
    unfinished = Unfinished(tmp_path / "run", every_s=0)
    interrupted(config, features, unfinished, 1)
    interrupted(config, features, unfinished, 3)
    assert_same(train(config, features), train(config, features, unfinished=unfinished))


@pytest.mark.parametrize("before_the_end", [1, 0])
def test_patience_counts_on_after_a_kill(tiny: Tiny, features: Features, tmp_path: Path, before_the_end: int) -> None:
    config = replace(tiny("transformer", epochs=30, lr=3e-2), patience=2)
    whole = train(config, features)
    assert len(whole.history) < 30
    assert len(whole.history) == whole.best["epoch"] + 2
    unfinished = Unfinished(tmp_path / "run", every_s=0)
    interrupted(config, features, unfinished, len(whole.history) - before_the_end)
    assert_same(whole, train(config, features, unfinished=unfinished))


@pytest.mark.parametrize("spoil", ["cut", "rubbish", "empty"])
def test_a_state_that_cannot_be_read_counts_as_none(tiny: Tiny, features: Features, tmp_path: Path, spoil: str) -> None:
    config = tiny("transformer-vo", epochs=2)
    unfinished = Unfinished(tmp_path / "run", every_s=0)
    interrupted(config, features, unfinished, 1)
    path = tmp_path / "run" / NAME
    path.write_bytes({"cut": path.read_bytes()[:-100], "rubbish": b"x" * 1000, "empty": b""}[spoil])
    assert_same(train(config, features), train(config, features, unfinished=unfinished))


def test_states_are_written_no_more_often_than_asked(tiny: Tiny, features: Features, tmp_path: Path) -> None:
    train(tiny("transformer-vo", epochs=2), features, unfinished=Unfinished(tmp_path / "run", every_s=3600))
    assert not (tmp_path / "run").exists()


def test_the_best_weights_before_a_divergence_are_kept(
    tiny: Tiny, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("transformer-vo", epochs=4)
    good = train(replace(config, epochs=2), features)
    real, calls = Balance.objective, [0]

    def objective(self: Balance, step: Any) -> torch.Tensor:
        calls[0] += 1
        return real(self, step) * (float("nan") if calls[0] > 2 * steps else 1.0)

    steps = -(-int((features.split == "train").sum()) // config.batch_size)
    monkeypatch.setattr(Balance, "objective", objective)
    unfinished = Unfinished(tmp_path / "run")
    with pytest.raises(Diverged, match=r"in epoch 3 .* the weights of epoch \d are kept in .*run"):
        train(config, features, unfinished=unfinished)
    state = unfinished.read()
    assert state is not None
    for name, value in good.model.state_dict().items():
        assert torch.equal(state[0][f"best/{name}"], value), name
    monkeypatch.undo()
    assert_same(
        train(config, features), train(config, features, unfinished=unfinished)
    )  # nothing of it is gone on from
