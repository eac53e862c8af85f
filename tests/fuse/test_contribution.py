from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch

from bmla.fuse import contribution as module
from bmla.fuse.config import RunConfig
from bmla.fuse.contribution import shapley
from bmla.fuse.data import Features
from bmla.fuse.lockstep import driven
from bmla.fuse.predictions import predict, with_mean
from bmla.fuse.training import train

Tiny = Callable[..., RunConfig]
BOTH = ("audio", "visual")
contribution, quick_contribution = driven(module.contribution), driven(module.quick_contribution)


def test_shapley_is_the_mean_gain_over_all_orders_of_arrival() -> None:
    value = {(): 0.25, ("audio",): 0.7, ("visual",): 0.4, ("audio", "visual"): 0.8}
    expected = dict.fromkeys(BOTH, 0.0)
    for order in permutations(BOTH):
        for i, player in enumerate(order):
            gain = value[tuple(sorted(order[: i + 1]))] - value[tuple(sorted(order[:i]))]
            expected[player] += gain / 2
    got = shapley(0.8, 0.7, 0.4, 0.25)
    assert got == pytest.approx(expected)
    assert sum(got.values()) == pytest.approx(0.8 - 0.25)


def test_contributions_of_a_model_are_those_of_its_accuracies(tiny: Tiny, features: Features) -> None:
    config = tiny("transformer", epochs=2)
    model = train(config, features).model
    clips = features.clips("test", BOTH)
    labels = features.labels.numpy()[clips]

    def right(**options: object) -> float:
        return float((predict(model, features, clips, BOTH, **options).predicted == labels).mean())

    nothing = max((labels == c).mean() for c in range(4))
    expected = shapley(right(), right(hidden=("visual",)), right(hidden=("audio",)), nothing)
    got = contribution(model, features, clips, BOTH)
    assert {m: got[f"shapley_absent_{m}"] for m in BOTH} == pytest.approx(expected)
    assert got["shapley_mean_audio"] + got["shapley_mean_visual"] == pytest.approx(right() - nothing)


@pytest.mark.parametrize(("training_clips", "count"), [(1, 1), (144, 4), (100_000, 32)])
def test_that_of_an_epoch_asks_a_few_and_takes_what_is_answered_already(
    tiny: Tiny, make_features: Callable[..., Features], training_clips: int, count: int
) -> None:
    features = make_features(drop={"visual": range(0, 240, 9)})
    model = train(tiny("transformer", epochs=2), features).model
    clips = features.clips("dev", BOTH)
    asked: list[int] = []
    answers = predict(
        model, features, np.concatenate([clips, clips[::-1]]), BOTH
    )  # those after the first are not of these clips
    model.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0].mask)))
    got = quick_contribution(model, features, clips, BOTH, answers, training_clips)
    few = clips[np.linspace(0, len(clips) - 1, count).astype(int)]
    there = int(features.stream("visual").present[few].sum())
    assert asked == 2 * [there][: bool(there)], "each modality alone, nothing else"
    assert got == contribution(model, features, few, BOTH, impute=False)


def test_a_modality_without_signal_is_worth_nothing(tiny: Tiny, make_features: Callable[..., Features]) -> None:
    features = make_features(audio=1.5, visual=0.0)
    model = train(tiny("transformer"), features).model
    got = contribution(model, features, features.clips("test", BOTH), BOTH)
    for name in ("absent", "mean"):
        assert got[f"shapley_{name}_audio"] > 0.4
        assert abs(got[f"shapley_{name}_visual"]) < 0.1


def test_an_imputed_modality_is_its_training_mean_at_every_valid_step(tiny: Tiny, features: Features) -> None:
    model = train(tiny("transformer", epochs=1), features).model
    clips = torch.arange(5)
    was, now = features.stream("audio").batch(clips), with_mean(features, model, "audio").stream("audio").batch(clips)
    assert torch.equal(was.mask, now.mask)
    mean, _ = features.stream("audio").statistics(np.flatnonzero(features.split == "train"))
    assert torch.equal(now.values, mean.expand(now.values.shape))


def test_only_clips_with_both_modalities_count(tiny: Tiny, make_features: Callable[..., Features]) -> None:
    whole = make_features()
    test = np.flatnonzero(whole.split == "test")
    features = make_features(drop={"audio": test[:7], "visual": test[7:9]})
    model = train(tiny("transformer", epochs=1), features).model
    assert contribution(model, features, test, BOTH) == contribution(model, features, test[9:], BOTH)
    assert contribution(model, features, test[:9], BOTH) == {}
    assert contribution(model, features, test, ("audio",)) == {}
