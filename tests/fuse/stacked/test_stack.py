"""A run in a stack equals the same run alone, for every model and balance method that claims to stack."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.models.table import MODELS
from bmla.fuse.stacked.group import BALANCES, key_of, why_not
from bmla.fuse.stacked.layers import StackedDropout
from bmla.fuse.stacked.rows import Rows
from bmla.fuse.stacked.stack import run_stacked
from bmla.fuse.standing import Diverged
from bmla.fuse.training import Trained, train, training

Make = Callable[..., Features]
Tiny = Callable[..., RunConfig]
STACKING = (  # every model that claims to; the others are told apart below
    *("transformer-ao", "transformer-vo", "transformer", "balancemla-ao", "balancemla-vo", "balancemla"),
    *("joint", "joint-aux", "shared-head", "gated", "film"),
)
Settings = Callable[..., list[RunConfig]]
Close = Callable[[Trained, Trained], None]


@pytest.fixture(scope="module")
def ragged(make_features: Make) -> Features:
    """Clips of many lengths; some lack a modality. 72 train: 5 batches of 16, the last one small."""
    drop = {"audio": (3, 17, 40, 90), "visual": (5, 60)}
    return make_features(clips=120, drop=drop, noises={"audio.arrays@a": 1.0})


def stacked(configs: Sequence[RunConfig], features: Features, width: int = 8) -> list[Any]:
    starts = [(c, partial(training, c, features.folded(c.folds, c.fold, c.fold_by))) for c in configs]
    found = dict(run_stacked(starts, width))
    return [found[c] for c in configs]


def alone(config: RunConfig, features: Features) -> Trained:
    return train(config, features.folded(config.folds, config.fold, config.fold_by))


def test_which_models_claim_to_stack(tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features) -> None:
    reasons = {model: why_not(tiny(model), ragged) for model in MODELS if not model.startswith(("stconv", "probe"))}
    assert [model for model, reason in reasons.items() if reason is None] == sorted(STACKING, key=list(reasons).index)
    assert reasons["concat"] == "concat (Con works for one run at a time)"
    assert reasons["single-res"] == "single-res (SingleRes works for one run at a time)"
    assert reasons["logit-average"] == "logit-average (nothing of it is trained)"
    assert why_not(tiny("balancemla", ratio="1:15", width=64, heads=8), ragged) is None
    assert why_not(tiny("shared-head", balance="mla"), ragged) == "balance mla (it goes back loss by loss)"
    assert why_not(tiny("joint", balance="mmcosine", head="cosine"), ragged) is None
    assert why_not(tiny("joint", time_mask=0.4), ragged) == "joint (HideTime works for one run at a time)"
    assert why_not(tiny("own:mine"), ragged) == "own:mine (a model of your own)"
    together = replace(tiny("balancemla-ao"), tasks=(f"a={'0' * 10}", f"b={'0' * 10}"))
    assert why_not(together, ragged) == "balancemla-ao (of several tasks)"


@pytest.mark.parametrize("model", STACKING)
def test_a_run_in_a_stack_equals_the_run_alone(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, model: str
) -> None:
    configs = settings(model)
    assert len({key_of(c) for c in configs}) == 1
    for config, other in zip(configs, stacked(configs, ragged), strict=True):
        assert_close(alone(config, ragged), other)


@pytest.mark.parametrize("balance", sorted(BALANCES - {"none"}))
def test_so_does_every_balance_method(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, balance: str
) -> None:
    wishes = {"head": "cosine"} if balance == "mmcosine" else {}
    configs = settings("joint" if wishes else "joint-aux", balance=balance, **wishes)
    for config, other in zip(configs, stacked(configs, ragged), strict=True):
        assert_close(alone(config, ragged), other)


@pytest.mark.parametrize(
    "wishes",
    [
        {"balance": "ogm"},  # asks the model again, without a modality: more dropout is drawn
        {"augment": ("audio.arrays@a",)},
        {"modality_dropout": 0.4},
        {"mixup": 0.4},
        {"norm": "post"},
        {"convolution": 3},
    ],
    ids=str,
)
def test_so_do_other_settings(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, wishes: dict[str, Any]
) -> None:
    configs = settings("transformer", **wishes)
    for config, other in zip(configs, stacked(configs, ragged), strict=True):
        assert_close(alone(config, ragged), other)


@pytest.mark.parametrize(
    "wishes",
    [
        {"gate_input": "brff"},
        {"gate_input": "encoder", "adf": False},
        {"attention": "bilinear"},
        {"convolution": 5},
        {"head": "cosine", "cosine_scale": 7.0},
    ],
)
def test_so_do_the_forms_of_balancemla(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, wishes: dict[str, Any]
) -> None:
    configs = settings("balancemla", **wishes)
    for config, other in zip(configs, stacked(configs, ragged), strict=True):
        assert_close(alone(config, ragged), other)


def test_a_head_without_a_loss_is_left_alone_as_it_is_alone(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features
) -> None:
    configs = settings("joint-aux", lambda_audio=0.0)
    solo = alone(configs[1], ragged)  # with a weight decay of .1
    other = stacked(configs, ragged)[1]
    assert torch.equal(solo.model.state_dict()["audio_head.weight"], other.model.state_dict()["audio_head.weight"])
    assert key_of(configs[0]) != key_of(replace(configs[0], lambda_audio=1.0))


def test_runs_that_end_early_leave_and_others_take_their_place(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features
) -> None:
    one = tiny("transformer-vo", epochs=12, lr=3e-2)
    configs = [replace(one, seed=seed, patience=patience) for seed, patience in ((0, 1), (1, 0), (2, 2), (3, 1))]
    ended: list[int] = []
    starts = [(c, partial(training, c, ragged, on_epoch=lambda e, c=c: ended.append(c.seed))) for c in configs]
    found = dict(run_stacked(starts, 2))
    assert ended.index(3) > ended.index(0)  # only two at once
    lengths = {c.seed: len(found[c].history) for c in configs}
    assert lengths[1] == 12 > lengths[0]
    for config in configs[1:3]:
        solo = alone(config, ragged)
        assert abs(solo.history[0]["train_loss"] - found[config].history[0]["train_loss"]) < 1e-5


def test_a_run_that_diverges_leaves_and_disturbs_no_other(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features
) -> None:
    good, _, other = settings("transformer")
    bad = replace(good, seed=3, lr=90.0, weight_decay=1e6)
    results = stacked([good, bad, other], ragged)
    assert isinstance(results[1], Diverged)
    assert_close(alone(good, ragged), results[0])
    assert_close(alone(other, ragged), results[2])


def test_global_generators_are_as_they_were(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    stacked(settings("transformer-ao")[:2], ragged)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_tests_would_see_masks_of_another_run(
    tiny: Tiny, ragged: Features, monkeypatch: pytest.MonkeyPatch, settings: Settings, assert_close: Close
) -> None:
    real = StackedDropout.forward

    def swapped(self: StackedDropout, x: Tensor) -> Tensor:
        self.layout.generators = list(reversed(self.layout.generators))
        try:
            return real(self, x)
        finally:
            self.layout.generators = list(reversed(self.layout.generators))

    monkeypatch.setattr(StackedDropout, "forward", swapped)
    configs = settings("transformer-ao")
    with pytest.raises(AssertionError):
        assert_close(alone(configs[0], ragged), stacked(configs, ragged)[0])


def test_parameters_are_views_of_one_matrix(
    tiny: Tiny, settings: Settings, assert_close: Close, ragged: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = Rows.__init__

    def look(self: Rows, *arguments: Any) -> None:
        real(self, *arguments)
        seen.append(len(self.values))
        for slot, _ in self.slots:
            for e, part in enumerate(slot.parts):
                row = range(self.values[e].data_ptr(), self.values[e].data_ptr() + 4 * self.values.shape[1])
                assert part.data_ptr() in row
                assert slot.value[e].data_ptr() in row

    monkeypatch.setattr(Rows, "__init__", look)
    stacked(settings("transformer"), ragged)
    assert seen[0] == 3
