import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from bmla.fuse.canonical import canonical
from bmla.fuse.config import RunConfig
from bmla.fuse.models.table import MODELS
from bmla.fuse.prerequisites import pretraining, starting_points
from bmla.fuse.recipes import run_config
from bmla.store.errors import UnknownName, UsageError


def test_what_is_stored_comes_back_the_same() -> None:
    config = RunConfig("balancemla", audio="audio.hubert", visual="mouth.dct", ratio="1:2", clw=False)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lrate": 1}, "unknown keys \\['lrate'\\]; known: model, audio"),
        ({"layers": "6"}, "layers is '6', expected int"),
        ({"layers": True}, "layers is True, expected int"),
        ({"layers": 6.0}, "layers is 6.0, expected int"),
        ({"brff": 1}, "brff is 1, expected bool"),
        ({"audio": 3}, "audio is 3, expected str or null"),
        ({"lr": None}, "lr is None, expected float"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunConfig.from_dict({"model": "transformer", **change})


def test_a_whole_number_serves_as_a_float_and_gives_the_same_run() -> None:
    a, b = (RunConfig.from_dict({"model": "transformer", "lr": lr}) for lr in (1, 1.0))
    assert json.dumps(a.to_dict()) == json.dumps(b.to_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers is 0, expected 1 to 64"),
        ({"layers": 10**9}, "layers is 1000000000"),
        ({"width": 10**9}, "width"),
        ({"width": 250}, "width 250 can't be shared among 8 heads: expected a multiple of 8"),
        ({"width": 15, "heads": 3}, "expected a multiple of 6"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"dropout": 1.0}, "dropout"),
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": 0, "finetune_epochs": 0}, "nothing would be trained"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"seed": -1}, "seed"),
        ({"lambda_audio": -1.0}, "lambda audio"),
        ({"ratio": "0:1"}, 'ratio "0:1"'),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunConfig.from_dict({"model": "balancemla", **change})


@pytest.mark.parametrize("field", ["model", "ratio_mode", "norm", "attention", "gate_input", "mix"])
def test_an_unknown_name_is_answered_with_those_that_are_known(field: str) -> None:
    with pytest.raises(UnknownName, match=f'unknown {field.replace("_", " ")} "odd"; known: '):
        RunConfig.from_dict({"model": "balancemla", field: "odd"})


def test_a_model_asked_for_by_name_is_the_one_that_the_composite_starts_from() -> None:
    composite = run_config("balancemla", audio="a", visual="v", layers=2, seed=3)
    for modality, name in (("audio", "balancemla-ao"), ("visual", "balancemla-vo")):
        assert pretraining(composite, modality) == run_config(name, audio="a", visual="v", layers=2, seed=3)


def test_parts_and_fusion_settings_do_not_split_the_pretraining() -> None:
    composite = run_config("balancemla", audio="a", visual="v")
    for change in (
        dict(brff=False),
        dict(adf=False, clw=False),
        dict(attention="bilinear"),
        dict(lambda_audio=0.3),
        dict(finetune_epochs=9),
        dict(mix="probabilities"),
        dict(gate_input="encoder"),
    ):
        other = run_config("balancemla", audio="a", visual="v", **change)
        assert other != composite
        assert pretraining(other, "audio") == pretraining(composite, "audio")
    for change in (dict(seed=1), dict(ratio="1:2"), dict(layers=3), dict(audio="b"), dict(epochs=7), dict(lr=1e-3)):
        other = run_config("balancemla", **{"audio": "a", "visual": "v", **change})
        assert pretraining(other, "audio") != pretraining(composite, "audio")


def test_canonical_changes_nothing_twice_and_never_what_a_model_uses() -> None:
    for model in ("transformer-ao", "transformer", "balancemla-vo", "balancemla"):
        config = run_config(model, audio="a", visual="v")
        assert canonical(config) == config
    full = replace(run_config("balancemla", audio="a", visual="v", schedule="long"), ratio="2:3", ratio_mode="fixed-base",
                   brff_layers=2, gate_input="encoder", mix="probabilities", lambda_audio=2.0, lr_scale_visual=0.5,
                   class_weights=True, norm="post", convolution=3, dropout=0.2, weight_decay=0.1, clip_norm=2.0, lr=1e-3, pretrain_lr=2e-3,
                   finetune_lr=1e-5)  # fmt: skip
    assert canonical(full) == full


def test_the_papers_schedules() -> None:
    paper, long = run_config("balancemla"), run_config("balancemla", schedule="long")
    assert (paper.pretrain_epochs, paper.pretrain_lr, paper.epochs, paper.finetune_epochs) == (25, 3e-4, 0, 5)
    assert (paper.finetune_lr, paper.batch_size) == (5e-5, 32)
    assert (long.epochs, long.lr, long.finetune_epochs, long.pretrain_epochs) == (25, 3e-4, 5, 25)
    ao, concat = run_config("balancemla-ao"), run_config("transformer")
    assert (ao.epochs, ao.lr, ao.batch_size, ao.finetune_epochs) == (25, 3e-4, 32, 0)
    assert (concat.epochs, concat.lr, concat.batch_size) == (30, 1e-4, 16)
    assert run_config("transformer-vo", recipe="paper-sec3").lr == 5e-7


@pytest.mark.parametrize("name", [n for n, e in MODELS.items() if "crop" in e.reads])
def test_beside_pictures_every_model_is_trained_with_the_augmentations_of_lip_reading(name: str) -> None:
    names = ("crop", "flip", "time_mask", "mixup")
    convolved = name.startswith(("stconv", "bgru"))
    assert all(
        getattr(run_config(name, pictures=True), n) == v for n, v in zip(names, (0.9, 0.5, 0.4, 0.4), strict=True)
    )
    assert run_config(name, pictures=True, mixup=0.0).mixup == 0
    assert (run_config(name) == run_config(name, pictures=True)) == convolved


def test_the_branches_of_a_composite_beside_pictures_are_the_runs_of_their_own_name() -> None:
    composite = run_config("balancemla", audio="a", visual="v", pictures=True)
    for modality, name in (("audio", "balancemla-ao"), ("visual", "balancemla-vo")):
        assert pretraining(composite, modality) == run_config(name, audio="a", visual="v", pictures=True)


@pytest.mark.parametrize("name", ["balancemla", "balancemla-ao", "logit-average", "joint", "shared-head", "single-res"])
def test_encoders_have_a_convolution_but_with_the_papers_recipe(name: str) -> None:
    assert run_config(name).convolution == run_config(name, recipe="paper-sec3").convolution == 7
    assert run_config(name, convolution=0).convolution == run_config(name, recipe="paper").convolution == 0


@pytest.mark.parametrize("name", ["transformer-ao", "transformer", "concat"])
def test_the_papers_transformers_and_recurrent_models_have_none(name: str) -> None:
    assert run_config(name).convolution == 0


@pytest.mark.parametrize("name", ["balancemla", "balancemla-ao", "balancemla-vo", "logit-average"])
def test_balancemlas_branches_answer_by_cosines_but_with_the_papers_recipe(name: str) -> None:
    assert run_config(name).head == "cosine"
    assert run_config(name, head="linear").head == run_config(name, recipe="paper").head == "linear"


@pytest.mark.parametrize("name", ["joint", "joint-aux", "shared-head"])
def test_late_fusion_has_a_linear_head_until_it_is_told(name: str) -> None:
    assert run_config(name).head == "linear"
    assert run_config(name, head="cosine").head == "cosine"


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_the_average_starts_from_the_branches_of_balancemla(recipe: str) -> None:
    ours, plain = (
        starting_points(run_config(name, recipe=recipe, audio="a", visual="v"))
        for name in ("balancemla", "logit-average")
    )
    assert ours == plain


def test_wishes_reach_the_pretraining_too() -> None:
    config = run_config("balancemla", epochs=7, lr=1e-3, finetune_epochs=2)
    assert (config.pretrain_epochs, config.pretrain_lr, config.epochs, config.finetune_epochs) == (7, 1e-3, 0, 2)
    long = run_config("balancemla", schedule="long", epochs=7, lr=1e-3)
    assert (long.pretrain_epochs, long.epochs, long.lr) == (7, 7, 1e-3)
    assert run_config("transformer", lr=None).lr == 1e-4


@pytest.mark.parametrize("name", ["schedule", "recipe"])
def test_unknown_schedules_and_recipes_are_refused(name: str) -> None:
    make: Callable[..., RunConfig] = run_config
    with pytest.raises(UnknownName, match=f'unknown {name} "short"; known:'):
        make("balancemla", **{name: "short"})


def test_a_part_of_balancemla_that_is_switched_off_changes_nothing_about_other_models() -> None:
    """Single-Res has the attention of BRFF, and no switch for it."""
    options = dict(audio="a", visual="v", attention="bilinear")
    plain = run_config("single-res", **options)
    assert plain.attention == "bilinear"
    assert run_config("single-res", brff=False, **options) == plain
    assert run_config("single-res", audio="a", visual="v", brff=False, brff_layers=1).brff_layers == 1
