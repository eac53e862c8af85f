from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.epochs import parameter_groups
from bmla.fuse.models.base import FusionModel, Input, Steps
from bmla.fuse.models.table import build, takes
from bmla.fuse.tasks.share import FAMILY, branch, check_model, share
from bmla.store.errors import UnknownName, UsageError

INPUTS = {"audio": Input(12, 50.0), "visual": Input(8, 25.0)}
SAME = {"audio": "a", "visual": "v"}
SHARED = ("widen", "encoder")


def model_of(config: RunConfig, classes: int, visual: int = 8) -> FusionModel:
    inputs = {**INPUTS, "visual": Input(visual, 25.0)}
    return build(config, {m: inputs[m] for m in takes(config.model)}, classes)


def is_shared(name: str) -> bool:
    """Of two tasks with the same streams."""
    owner, _, rest = name.partition(".")
    return owner.endswith("_brff") or rest.split(".")[0] in SHARED or rest.startswith("project.linear")


@pytest.mark.parametrize("name", FAMILY)
def test_what_is_shared_is_the_same_and_heads_gates_and_statistics_are_not(
    tiny: Callable[..., RunConfig], name: str
) -> None:
    config = replace(tiny(name), gate_input="brff") if name == "balancemla" else tiny(name)
    first, second = model_of(config, 4), model_of(config, 3)
    heads = {n for n, p in second.named_parameters() if "head" in n or n.startswith("decision")}
    share([first, second], [{m: SAME[m] for m in takes(name)}] * 2)
    mine, theirs = dict(first.named_parameters()), dict(second.named_parameters())
    assert list(mine) == list(theirs)
    for n in mine:
        assert (mine[n] is theirs[n]) == is_shared(n), n
    assert heads == {n for n in mine if not is_shared(n)}
    for (n, a), b in zip(first.named_buffers(), second.buffers(), strict=True):
        assert a is not b, n


def test_tasks_share_a_projection_where_they_share_a_stream(tiny: Callable[..., RunConfig]) -> None:
    models = [model_of(tiny("balancemla"), 3, visual) for visual in (8, 5, 5, 5)]
    share(models, [{"audio": "a", "visual": v} for v in ("dct", "face", "face", "other")])
    first, second, third, fourth = (branch(model, "visual").project.linear.weight for model in models)
    assert second is third
    assert len({first, second, fourth}) == 3
    assert len({branch(model, "audio").project.linear.bias for model in models}) == 1
    assert len({branch(model, "visual").encoder for model in models}) == 1


def test_tasks_of_the_same_pictures_share_the_front_end_but_for_its_standardisation(
    tiny: Callable[..., RunConfig],
) -> None:
    config = tiny("balancemla-vo", front_width=2, resnet_depth=18)
    pictures = Input(64, 25.0, (8, 8), pixels=True)
    first, second = (build(config, {"visual": pictures}, classes) for classes in (4, 3))
    share([first, second], [{"visual": "crops"}] * 2)
    mine, theirs = dict(first.named_parameters()), dict(second.named_parameters())
    assert {n for n in mine if mine[n] is not theirs[n]} == {n for n in mine if "head" in n}
    assert any("front.trunk" in n for n in mine)
    assert all(a is not b for a, b in zip(first.buffers(), second.buffers(), strict=True))
    second.set_statistics("visual", torch.tensor([100.0]), torch.tensor([20.0]))
    assert first.mean_of("visual").tolist() == [0.0]


def test_a_shared_model_answers_about_clips_of_its_own_task_as_before(tiny: Callable[..., RunConfig]) -> None:
    models = [model_of(tiny("balancemla"), classes, visual).eval() for classes, visual in ((4, 8), (3, 5))]
    audio = Steps(torch.randn(2, 6, 12), torch.ones(2, 6, dtype=torch.bool))
    visual = Steps(torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool))
    before = models[0](audio, visual).result
    share(models, [SAME, {"audio": "a", "visual": "w"}])
    assert torch.equal(models[0](audio, visual).result, before)
    assert models[1](audio, Steps(torch.randn(2, 3, 5), visual.mask)).result.shape == (2, 3)


def test_every_parameter_is_in_one_group_once(tiny: Callable[..., RunConfig]) -> None:
    models = [model_of(tiny("balancemla"), classes) for classes in (4, 3)]
    share(models, [SAME, SAME])
    groups = parameter_groups(models)
    assert list(groups) == list(models[0].parameter_groups())
    found = [p for parameters in groups.values() for p in parameters]
    assert len(found) == len(set(found))
    assert set(found) == {p for model in models for p in model.parameters()}
    for owner, parameters in groups.items():
        assert set(parameters) == {p for model in models for p in model.parameter_groups()[owner]}


def test_a_model_of_one_task_is_refused_by_name() -> None:
    with pytest.raises(
        UsageError, match="concat is a model of one task; of several: balancemla-ao, balancemla-vo, bal"
    ):
        check_model("concat")
    with pytest.raises(UnknownName, match='unknown model "odd"'):
        check_model("odd")
