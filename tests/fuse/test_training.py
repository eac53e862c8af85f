from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bmla.fuse.balance.base import Balance
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features, features_from_store
from bmla.fuse.epochs import shuffled
from bmla.fuse.learner import inverse_frequency
from bmla.fuse.models.kinds import VECTORS
from bmla.fuse.models.single import SingleModality
from bmla.fuse.models.table import MODELS, takes
from bmla.fuse.noise import noise, with_noisy_copies
from bmla.fuse.predictions import Predictions, predict
from bmla.fuse.prerequisites import starting_points
from bmla.fuse.standing import Diverged
from bmla.fuse.training import Trained, train
from bmla.store import open_store
from bmla.store.errors import UsageError

Make = Callable[..., Features]
Tiny = Callable[..., RunConfig]


def train_whole(config: RunConfig, features: Features) -> Trained:
    """With the pre-training of both branches, where the model has one."""
    branches = {}
    for modality, start in starting_points(config).items():
        model = train(start, features).model
        assert isinstance(model, SingleModality)
        branches[modality] = model
    return train(config, features, branches=branches)


def on_test(trained: Trained, config: RunConfig, features: Features) -> Predictions:
    modalities = takes(config.model)
    return predict(trained.model, features, features.clips("test", modalities), modalities)


def accuracy(config: RunConfig, features: Features) -> float:
    predictions = on_test(train_whole(config, features), config, features)
    return float((predictions.predicted == predictions.labels).mean())


@pytest.mark.parametrize("name", ["transformer", "balancemla"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(tiny: Tiny, features: Features, name: str) -> None:
    config = tiny(name, epochs=1, finetune_epochs=1)
    torch.manual_seed(1)
    first = train_whole(config, features)
    torch.manual_seed(2)
    again = train_whole(config, features)
    for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert first.history == again.history
    other = train_whole(replace(config, seed=1), features)
    assert not torch.equal(next(first.model.parameters()), next(other.model.parameters()))


def test_training_leaves_the_callers_random_numbers_alone(tiny: Tiny, features: Features) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(tiny("transformer", epochs=1), features)
    assert torch.equal(torch.rand(1), expected)


def test_the_test_split_never_shapes_a_run(tiny: Tiny, features: Features) -> None:
    config = tiny("transformer", epochs=2)
    audio = features.stream("audio")
    test = np.flatnonzero(features.split == "test")
    values = audio.values.clone()
    for i in test:
        start = int(audio.starts[i])
        values[start : start + int(audio.lengths[i])] = 100.0
    labels = features.labels.clone()
    labels[test] = 0
    spoilt = replace(features, audio=replace(audio, values=values), labels=labels)
    first, second = train(config, features), train(config, spoilt)
    assert first.history == second.history
    for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_statistics_in_the_model_are_those_of_the_training_split(tiny: Tiny, features: Features) -> None:
    model = train(tiny("transformer-ao", epochs=1), features).model
    audio = features.stream("audio")
    steps = torch.cat([
        audio.values[int(audio.starts[i]) : int(audio.starts[i] + audio.lengths[i])]
        for i in np.flatnonzero(features.split == "train")
    ]).double()  # fmt: skip
    state = model.state_dict()
    torch.testing.assert_close(state["audio.project.standardise.mean"].double(), steps.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        state["audio.project.standardise.std"].double(), steps.std(0, correction=0), atol=1e-6, rtol=1e-5
    )


def test_the_epoch_is_chosen_by_dev_accuracy_then_by_loss_and_its_weights_are_kept(
    tiny: Tiny, features: Features
) -> None:
    config = tiny("transformer", epochs=6, lr=3e-2)
    trained = train(config, features)
    best = max(trained.history, key=lambda e: (e["dev_accuracy"], -e["dev_loss"]))
    assert trained.best is best
    modalities = takes(config.model)
    dev = predict(trained.model, features, features.clips("dev", modalities), modalities)
    assert float((dev.predicted == dev.labels).mean()) == best["dev_accuracy"]
    losses = -dev.result[np.arange(len(dev)), dev.labels]
    assert losses.mean() == pytest.approx(best["dev_loss"], rel=1e-6)
    assert not trained.model.training


def test_history_tells_every_epoch(tiny: Tiny, features: Features) -> None:
    config = tiny("balancemla", schedule="long", epochs=2, finetune_epochs=1)
    seen: list[dict] = []
    trained = train(config, features, on_epoch=seen.append)
    assert seen == trained.history
    assert [(e["phase"], e["epoch"], e["lr"]) for e in seen] == [
        ("train", 1, 5e-3),
        ("train", 2, 5e-3),
        ("finetune", 3, 1e-3),
    ]
    for epoch in seen:
        names = {"train_loss", "dev_loss", "dev_accuracy", "dev_accuracy_audio", "dev_accuracy_visual", "alpha"}
        names |= {"grad_norm_audio", "grad_norm_visual", "grad_norm_shared"}
        assert names <= set(epoch)
        assert all(np.isfinite(epoch[name]) for name in names)


@pytest.mark.parametrize("name", [n for n, e in MODELS.items() if VECTORS in e.kinds])
def test_every_model_learns_what_it_is_shown(tiny: Tiny, features: Features, name: str) -> None:
    assert accuracy(tiny(name), features) > 0.75


def test_each_modality_learns_its_own_signal_and_fusion_the_better_one(tiny: Tiny, make_features: Make) -> None:
    only_sound, only_sight = make_features(audio=1.0, visual=0.0), make_features(audio=0.0, visual=1.0)
    for features, good, bad in ((only_sound, "ao", "vo"), (only_sight, "vo", "ao")):
        known, blind = accuracy(tiny(f"transformer-{good}"), features), accuracy(tiny(f"transformer-{bad}"), features)
        assert known > 0.8
        assert blind < 0.45  # chance is .25, and its standard error .056
        for fused in ("transformer", "balancemla"):
            assert accuracy(tiny(fused), features) > known - 0.15


def test_fusion_is_better_than_either_of_two_weak_modalities(tiny: Tiny, make_features: Make) -> None:
    features = make_features(audio=0.4, visual=0.45, clips=480)
    audio, visual, both = (accuracy(tiny(f"transformer{m}"), features) for m in ("-ao", "-vo", ""))
    assert both > max(audio, visual) - 0.03
    assert accuracy(tiny("balancemla"), features) > max(audio, visual) - 0.03


def test_permuted_labels_give_chance(tiny: Tiny, make_features: Make) -> None:
    features = make_features(permuted=True)
    for name in ("transformer", "balancemla"):
        assert accuracy(tiny(name), features) < 0.45


def test_clips_that_lack_a_modality_train_and_are_answered_from_the_other(tiny: Tiny, make_features: Make) -> None:
    features = make_features(drop={"visual": range(0, 240, 3), "audio": range(1, 240, 3)})
    for name in ("transformer", "balancemla"):
        config = tiny(name, epochs=10)
        predictions = on_test(train_whole(config, features), config, features)
        right = predictions.predicted == predictions.labels
        assert len(predictions) == (features.split == "test").sum()
        for present, absent in (("audio_present", "visual_present"), ("visual_present", "audio_present")):
            lacking = getattr(predictions, present) & ~getattr(predictions, absent)
            assert lacking.sum() > 10
            assert right[lacking].mean() > 0.6
    audio_only = tiny("transformer-ao")
    assert len(on_test(train(audio_only, features), audio_only, features)) < len(predictions)


def test_a_modality_masked_throughout_gives_the_other_ones_result(tiny: Tiny, make_features: Make) -> None:
    features = make_features()
    visual = features.stream("visual")
    config = tiny("balancemla")
    trained = train_whole(config, features)
    blind = replace(features, visual=replace(visual, valid=torch.zeros_like(visual.valid)))
    clips = features.clips("test", ("audio",))
    alone = predict(trained.model, features, clips, ("audio", "visual"), brff=False)
    masked = predict(trained.model, blind, clips, ("audio", "visual"))
    assert alone.audio is not None
    np.testing.assert_allclose(masked.result, alone.audio, atol=1e-5)


def test_a_loss_that_is_no_number_stops_the_run(
    tiny: Tiny, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Balance.objective
    monkeypatch.setattr(Balance, "objective", lambda *a: real(*a) * float("nan"))
    with pytest.raises(
        Diverged, match=r"transformer, seed 0: the loss is no number any more in epoch 1 .* try a lower --lr"
    ):
        train(tiny("transformer"), features)


def test_a_split_without_the_modality_is_an_error(tiny: Tiny, make_features: Make) -> None:
    full = make_features()
    dev = np.flatnonzero(full.split == "dev")
    features = make_features(drop={"visual": dev.tolist()})
    with pytest.raises(UsageError, match="transformer-vo: no clip of the dev split has visual features"):
        train(tiny("transformer-vo"), features)
    train(tiny("transformer", epochs=1), features)


def test_class_weights_are_the_inverse_frequencies(make_features: Make) -> None:
    features = make_features()
    clips = np.concatenate(
        [np.flatnonzero(features.labels.numpy() == 0)[:30], np.flatnonzero(features.labels.numpy() == 1)[:10]]
    )
    assert inverse_frequency(features, clips).tolist() == pytest.approx([40 / 4 / 30, 40 / 4 / 10, 0, 0])


def test_class_weights_and_learning_rate_scales_change_the_training(tiny: Tiny, features: Features) -> None:
    plain = train(tiny("balancemla", epochs=0, finetune_epochs=1), features)
    for change in (dict(lr_scale_audio=0.0), dict(lambda_visual=0.0), dict(class_weights=True)):
        other = train(tiny("balancemla", epochs=0, finetune_epochs=1, **change), features)
        assert other.history != plain.history
    frozen = train(tiny("balancemla", epochs=0, finetune_epochs=1, lr_scale_audio=0.0), features).model
    fresh = train(tiny("balancemla", epochs=0, finetune_epochs=3, lr_scale_audio=0.0), features).model
    for (name, a), b in zip(frozen.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b) == name.startswith(("audio", "decision.weight")), name  # without noise not fitted


def test_weights_do_not_depend_on_where_the_features_are_kept(tiny: Tiny, tiny_store: Path) -> None:
    store = open_store(tiny_store)
    trained = [
        train(
            tiny("transformer", audio="audio.logspec", visual="mouth.dct", epochs=2),
            features_from_store(store, "audio.logspec", "mouth.dct", tier=tier),
        )
        for tier in ("ram", "mmap", "shard")
    ]
    for other in trained[1:]:
        assert other.history == trained[0].history
        for a, b in zip(trained[0].model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


NOISES = ("audio.arrays@a", "audio.arrays@b", "visual.arrays@c")


def test_nothing_sound_or_sight_is_spoilt_each_as_often_and_never_both(make_features: Make) -> None:
    features = make_features(noises=dict.fromkeys(NOISES, 1.0))
    drawn = noise(30_000, features, NOISES, torch.Generator().manual_seed(0))
    audio, visual = drawn["audio"].numpy(), drawn["visual"].numpy()
    assert not ((audio > 0) & (visual > 0)).any()
    shares = [((audio == 0) & (visual == 0)).mean(), (audio == 1).mean(), (audio == 2).mean(), (visual == 1).mean()]
    assert shares == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 3], abs=0.01)
    only = noise(30_000, features, NOISES[:1], torch.Generator().manual_seed(0))
    assert set(only) == {"audio"}
    assert float((only["audio"] == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert noise(5, features, (), torch.Generator()) == {}


def test_a_share_of_noise_is_that_of_each_modality_whatever_else_is_seen(make_features: Make) -> None:
    features = make_features(noises=dict.fromkeys(NOISES, 1.0))
    for share in (0.05, 1 / 3, 0.5):
        for names in (NOISES, NOISES[:2], NOISES[2:]):
            drawn = noise(30_000, features, names, torch.Generator().manual_seed(0), share)
            assert set(drawn) == {name.partition(".")[0] for name in names}
            for spoilt in drawn.values():
                assert float((spoilt > 0).float().mean()) == pytest.approx(share, abs=0.01)
            assert not torch.stack([v > 0 for v in drawn.values()]).all(0).any() or len(drawn) == 1
            if "audio" in drawn:
                assert float((drawn["audio"] == 1).float().mean()) == pytest.approx(share / 2, abs=0.01)
    assert noise(5, features, (), torch.Generator(), 0.5) == {}


def test_training_has_as_much_noise_as_it_is_told(tiny: Tiny, make_features: Make) -> None:
    features = make_features(noises=dict.fromkeys(NOISES, 1.0))
    for share, expected in ((None, 1 / 3), (0.0, 1 / 2), (0.1, 0.1)):
        config = tiny("transformer-ao", augment=NOISES[:2], noise_share=share)
        learner = SimpleNamespace(
            clips=SimpleNamespace(train=np.zeros(20_000, np.int64)), config=config, features=features,
            balance=SimpleNamespace(turns=1),
        )  # fmt: skip
        drawn = torch.cat([d.versions["audio"] for d in shuffled(learner, torch.Generator().manual_seed(0))])
        assert float((drawn > 0).float().mean()) == pytest.approx(expected, abs=0.01)
    assert tiny("transformer-ao", augment=(), noise_share=0.1).noise_share == 0  # it would be the same training
    with pytest.raises(UsageError, match=r"noise share is 0\.6, expected 0 to 0\.5"):
        tiny("transformer-ao", augment=NOISES[:2], noise_share=0.6)


def test_training_sees_the_noise_and_dev_is_judged_with_and_without(tiny: Tiny, make_features: Make) -> None:
    features = make_features(noises=dict.fromkeys(NOISES, 1.0))
    config = tiny("transformer", epochs=1)
    noisy = replace(config, augment=NOISES)
    assert train(config, features).history != train(noisy, features).history
    clips = features.clips("dev", ("audio", "visual"))
    judged, versions = with_noisy_copies(clips, features, NOISES)
    assert judged.tolist() == [*clips, *clips]
    assert not any(versions[m][: len(clips)].any() for m in versions)
    assert any(versions[m][len(clips) :].any() for m in versions)
    trained = train(noisy, features)
    again = predict(trained.model, features, judged, ("audio", "visual"), versions=versions, augment=NOISES)
    assert trained.best["dev_accuracy"] == float((again.predicted == again.labels).mean())


def test_the_learning_rate_rises_over_the_warm_up_and_is_scaled_by_modality(
    tiny: Tiny, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[list[float]] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object) -> object:
        rates.append([float(group["lr"]) for group in self.param_groups])
        return real(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    config = replace(tiny("transformer", epochs=2, lr=1e-2, batch_size=40), warmup_steps=5, lr_scale_visual=0.5)
    train(config, features)
    warm = [min(1.0, (i + 1) / 5) for i in range(len(rates))]
    np.testing.assert_allclose(rates, [[w * 1e-2, w * 5e-3, w * 1e-2] for w in warm], rtol=1e-6)


def test_an_epoch_logs_what_was_asked_for(tiny: Tiny, features: Features) -> None:
    (epoch,) = train(tiny("balancemla", epochs=1, schedule="long", finetune_epochs=0), features).history
    assert epoch["train_loss"] == pytest.approx(
        epoch["train_loss_result"] + epoch["train_loss_audio"] + epoch["train_loss_visual"], rel=1e-5
    )
    for name in (
        "dev_macro_f1",
        "dev_uar",
        "dev_loss_audio",
        "rho",
        "alpha",
        "shapley_absent_audio",
        "grad_norm_shared",
    ):
        assert np.isfinite(epoch[name]), name
    assert epoch["scale_audio"] == epoch["scale_visual"] == 1.0
    assert len(epoch["alpha_per_class"]) == 4


def test_the_logged_discrepancy_is_that_of_the_answers(tiny: Tiny, features: Features) -> None:
    config = tiny("balancemla", epochs=1, schedule="long", finetune_epochs=0, dropout=0.0, lr=1e-12, batch_size=1000)
    trained = train(config, features)
    clips = features.clips("train", ("audio", "visual"))
    got = predict(trained.model, features, clips, ("audio", "visual"))
    assert got.audio is not None
    assert got.visual is not None
    true = [np.exp(a[np.arange(len(clips)), got.labels]).sum() for a in (got.audio, got.visual)]
    assert trained.history[0]["rho"] == pytest.approx(true[0] / true[1], rel=1e-4)
