"""The contract, over every method of the table."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.balance.base import Step
from bmla.fuse.balance.means import MeanLosses
from bmla.fuse.balance.pmr import PMR
from bmla.fuse.balance.table import BALANCES, build, entry
from bmla.fuse.checks import fitting
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.learner import set_apart
from bmla.fuse.mixup import Mixed
from bmla.fuse.models.table import MODELS
from bmla.fuse.prerequisites import teachers
from bmla.fuse.recipes import run_config
from bmla.fuse.sweep import grid, run_sweep
from bmla.fuse.training import Trained, train
from bmla.fuse.unfinished import Unfinished
from bmla.store.errors import UnknownName, UsageError

Make = Callable[..., Features]
Tiny = Callable[..., RunConfig]
PAIRS = [(name, model) for name in BALANCES for model in ("transformer", "balancemla") if model in fitting(name)]
PAIRS += [
    ("mla", "shared-head"),
    ("mmcosine", "joint"),
    ("joint-aux", "joint"),
    ("umt", "joint"),
    ("adaptive", "joint"),
]


@pytest.fixture
def lacking(make_features: Make) -> Features:
    """Some clips lack sight, some sound."""
    return make_features(visual=0.5, drop={"visual": range(0, 240, 7), "audio": range(3, 240, 11)})


def settings(tiny: Tiny, name: str, model: str, **wishes: Any) -> RunConfig:
    return tiny(model, balance=name, pretrain_epochs=0, epochs=3, finetune_epochs=0, schedule="long", **wishes)


def trained(config: RunConfig, features: Features, **options: Any) -> Trained:
    models = {m: train(c, features).model for m, c in teachers(config).items()}
    return train(config, features, teachers=models, **options)


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_every_method_trains_on_clips_that_lack_a_modality_the_same_each_time(
    tiny: Tiny, lacking: Features, name: str, model: str
) -> None:
    config = settings(tiny, name, model)
    first, again = trained(config, lacking), trained(config, lacking)
    assert first.history == again.history
    assert first.best["dev_accuracy"] > 0.6
    for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_every_method_goes_on_after_a_kill_to_the_same_weights(
    tiny: Tiny, lacking: Features, tmp_path: Path, name: str, model: str
) -> None:
    config = settings(tiny, name, model)
    whole = trained(config, lacking)

    class Killed(Exception):
        pass

    def kill(epoch: dict) -> None:
        if epoch["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(config, lacking, on_epoch=kill, unfinished=Unfinished(tmp_path / "state", every_s=0))
    resumed = trained(config, lacking, unfinished=Unfinished(tmp_path / "state", every_s=0))
    assert resumed.history == whole.history
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "model"), [p for p in PAIRS if p[0] != "none" and p != ("joint-aux", "balancemla")])
def test_every_method_changes_the_training(tiny: Tiny, lacking: Features, name: str, model: str) -> None:
    config = settings(tiny, name, model)
    plain = train(tiny(model, pretrain_epochs=0, epochs=3, finetune_epochs=0, schedule="long"), lacking).model
    changed = trained(config, lacking).model
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), changed.parameters(), strict=True))


def test_one_clip_at_a_time_and_batches_without_a_clip_that_has_both(tiny: Tiny, make_features: Make) -> None:
    features = make_features(clips=30, drop={"visual": range(0, 30, 2), "audio": range(1, 30, 4)})
    for name, model in PAIRS:
        config = replace(settings(tiny, name, model), batch_size=1, epochs=1)
        assert all(v.isfinite().all() for v in trained(config, features).model.state_dict().values()), name


def test_a_state_that_is_put_back_gives_the_same_next_step(
    tiny: Tiny, features: Features, late: Any, batch: Any, tools: Any
) -> None:
    for name in ("ogm", "ogm-ge", "agm", "pmr", "mmpareto", "g-blending", "opm", "adaptive"):
        config = settings(tiny, name, "balancemla")
        results = []
        for put_back in (False, True):
            model = late()
            balance = build(config, model, tools.classes, {})
            optimiser = tools.adamw(model)
            torch.manual_seed(0)
            for seed in range(2):
                tools.one_step(model, balance, optimiser, batch(seed=seed))
            balance.end_epoch({"held_loss": 0.9, "held_loss_audio": 0.8, "held_loss_visual": 1.0})
            if put_back:
                fresh = build(config, model, tools.classes, {})
                fresh.load_state_dict(balance.state_dict())
                balance = fresh
            torch.manual_seed(1)
            tools.one_step(model, balance, optimiser, batch(seed=2))
            results.append([p.clone() for p in model.parameters()])
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize("name", ["ogm", "agm", "pmr", "g-blending", "opm", "adaptive"])
def test_what_a_method_learns_of_a_clip_that_is_all_another_one_is_that_ones_label(
    tiny: Tiny, late: Any, batch: Any, tools: Any, name: str
) -> None:
    found = []
    for swapped in (False, True):
        model, balance = late(), build(settings(tiny, name, "balancemla"), late(), tools.classes, {})
        for seed in range(2):
            torch.manual_seed(seed)
            audio, visual, labels = batch(seed=seed, whole=True)
            others = (labels + 1) % tools.classes
            audio, visual = balance.inputs(audio, visual)
            step = Step(model, audio, visual, others, model(audio, visual))
            if swapped:
                step = replace(step, labels=labels, mixed=Mixed(audio, visual, others, torch.zeros(len(labels))))
            loss = balance.backward(step)
            scales = balance.scales(step)
            balance.end_epoch({"held_loss": 0.9, "held_loss_audio": 0.8, "held_loss_visual": 1.0})
            found.append([loss, *(v for _, v in sorted(scales.items())), *balance.buffers()])
    half = len(found) // 2
    for first, then in zip(found[:half], found[half:], strict=True):
        for a, b in zip(first, then, strict=True):
            torch.testing.assert_close(a, b)


def test_the_means_of_mixed_clips_are_distances_to_both_labels(late: Any, batch: Any) -> None:
    model, (audio, visual, labels) = late(), batch(whole=True)
    output, others, share = model(audio, visual), (labels + 1) % 3, torch.full((len(labels),), 0.3)
    means = MeanLosses()
    means.add(Step(model, audio, visual, labels, output, mixed=Mixed(audio, visual, others, share)))
    target = 0.3 * torch.eye(3)[labels] + 0.7 * torch.eye(3)[others]
    divergence = [(torch.xlogy(target, target) - target * logs).sum(1).mean() for logs in output[:3]]
    torch.testing.assert_close(means.take(), torch.stack(divergence))


def test_the_prototypes_of_mixed_clips_are_of_both_classes_in_their_shares(late: Any, batch: Any) -> None:
    model, (audio, visual, labels) = late(), batch(whole=True)
    balance = PMR(RunConfig("balancemla", balance="pmr"), {"audio": 4, "visual": 4}, 3)
    output, others, share = model(audio, visual), (labels + 1) % 3, torch.full((len(labels),), 0.3)
    balance.objective(Step(model, audio, visual, labels, output, mixed=Mixed(audio, visual, others, share)))
    balance.end_epoch({})
    target = 0.3 * torch.eye(3)[labels] + 0.7 * torch.eye(3)[others]
    expected = (target.T @ output.pooled_audio) / target.sum(0)[:, None]
    torch.testing.assert_close(balance.get_buffer("prototype_audio"), expected)


@pytest.mark.parametrize(("name", "model"), [*PAIRS, ("pmr", "joint"), ("ogm", "joint"), ("agm", "joint")])
def test_every_method_goes_with_mixed_pictures(tiny: Tiny, name: str, model: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    pictures = [rng.integers(0, 255, (3, 8, 8), np.uint8) for _ in labels]
    sound = [rng.normal(size=(4, 3, 8)).astype(np.float32) for _ in labels]
    features = features_from_arrays(labels, ["train"] * 16 + ["dev"] * 4 + ["test"] * 4, audio=sound, visual=pictures)
    config = settings(tiny, name, model, pictures=True, batch_size=8)
    assert config.mixup > 0
    assert all(v.isfinite().all() for v in trained(replace(config, epochs=1), features).model.state_dict().values())


def test_settings_of_other_methods_do_not_split_runs_and_its_own_do(tiny: Tiny) -> None:
    assert tiny("balancemla", balance="ogm", agm_alpha=3.0) == tiny("balancemla", balance="ogm")
    for name, method in BALANCES.items():
        for setting in method.reads:
            if fitting(name):
                model = fitting(name)[0]
                plain = run_config(model, balance=name)
                assert (
                    run_config(
                        model, balance=name, **{setting: getattr(plain, setting) + 1 if "epochs" in setting else 0.9}
                    )
                    != plain
                )


def test_what_a_method_sets_goes_after_the_recipe_and_before_the_users_wish() -> None:
    assert run_config("transformer", balance="modality-dropout").modality_dropout == 0.15
    assert run_config("transformer", balance="modality-dropout", modality_dropout=0.3).modality_dropout == 0.3
    with pytest.raises(
        UsageError, match=r"balance modality-dropout needs modality_dropout to be other than 0\.0, such as 0\.15"
    ):
        RunConfig("transformer", balance="modality-dropout")


@pytest.mark.parametrize("model", ["shared-head", "own:mine"])
def test_mla_is_of_a_linear_head_and_says_so_before_anything_is_trained(model: str) -> None:
    run_config(model, balance="mla", head="linear")
    with pytest.raises(UsageError, match="balance mla needs head linear, not cosine"):
        run_config(model, balance="mla", head="cosine")


def test_methods_that_need_answers_refuse_models_without(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="balance mmpareto does not go with transformer; expected balancemla"):
        tiny("transformer", balance="mmpareto")
    with pytest.raises(UnknownName, match='unknown balance method "odd"; known: none, joint-aux'):
        entry("odd")
    assert all(fitting(name) for name in BALANCES)
    assert all(not {"transformer-ao", "logit-average"} & {*fitting(name)} for name in BALANCES)
    assert fitting("mla") == ("shared-head",)
    assert fitting("mmcosine") == ("joint",)


def test_clips_that_are_set_apart_train_nothing_and_are_never_dev(tiny: Tiny, features: Features) -> None:
    config = tiny("transformer", holdout=0.2)
    train_clips = np.flatnonzero(features.split == "train")
    left, held = set_apart(train_clips, features, config)
    assert sorted([*left, *held]) == train_clips.tolist()
    assert 0.15 < len(held) / len(train_clips) < 0.25
    assert not set(features.groups[left]) & set(features.groups[held])
    audio = features.stream("audio")
    values = audio.values.clone()
    for i in held:
        start = int(audio.starts[i])
        values[start : start + int(audio.lengths[i])] = 100.0
    first, second = (train(config, f).model for f in (features, replace(features, audio=replace(audio, values=values))))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_teachers_are_runs_that_are_trained_once_and_shared(features: Features, tmp_path: Path) -> None:
    small = dict(
        layers=1, width=16, heads=2, epochs=1, finetune_epochs=1, lr=5e-3, audio="audio.arrays", visual="visual.arrays"
    )
    configs = grid(["balancemla-ao", "balancemla"], ["1:1"], [0], balances=["none", "umt"], **small)
    assert [(c.model, c.balance) for c in configs] == [
        ("balancemla-ao", "none"),
        ("balancemla", "none"),
        ("balancemla", "umt"),
    ]
    runs = run_sweep(configs, features, tmp_path)
    taught = runs[-1].document["teachers"]
    assert taught == runs[1].document["branches"]
    assert taught["audio"] == runs[0].name
    folders = [p for p in tmp_path.iterdir() if (p / "config.json").is_file()]
    assert len(folders) == 4


def test_teachers_of_a_model_that_starts_afresh_are_transformers_of_its_size() -> None:
    config = replace(
        run_config("balancemla", balance="umt", schedule="long", audio="a", visual="v", layers=2), pretrain_epochs=0
    )
    taught = teachers(config)
    assert {m: c.epochs for m, c in taught.items()} == {"audio": 25, "visual": 25}
    assert all(c.layers == 2 and c.balance == "none" for c in taught.values())
    assert teachers(replace(config, balance="ogm")) == {}
    assert set(MODELS) >= {c.model for c in taught.values()}
