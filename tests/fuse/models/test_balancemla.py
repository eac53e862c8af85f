from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.models.balancemla import BalanceMLA
from bmla.fuse.models.base import Input, Steps
from bmla.fuse.models.single import SingleModality
from bmla.fuse.models.table import build
from bmla.fuse.prerequisites import pretraining

INPUTS = {"audio": Input(12, 50.0), "visual": Input(8, 25.0)}
Tiny = Callable[..., RunConfig]


def batch(b: int = 3) -> tuple[Steps, Steps]:
    generator = torch.Generator().manual_seed(5)
    audio = Steps(torch.randn(b, 9, 12, generator=generator), torch.arange(9) < torch.tensor([9, 6, 4])[:b, None])
    visual = Steps(torch.randn(b, 5, 8, generator=generator), torch.arange(5) < torch.tensor([5, 3, 4])[:b, None])
    return audio, visual


def from_branches(config: RunConfig) -> tuple[BalanceMLA, dict[str, SingleModality]]:
    branches = {}
    for modality in ("audio", "visual"):
        torch.manual_seed(7)
        branch = build(pretraining(config, modality), INPUTS, 4)
        assert isinstance(branch, SingleModality)
        branches[modality] = branch.eval()
    model = build(config, INPUTS, 4)
    assert isinstance(model, BalanceMLA)
    model.start_from(branches)
    return model.eval(), branches


@pytest.mark.parametrize("ratio", ["1:1", "1:3", "3:1"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_fine_tuning_begins_exactly_at_the_pretrained_models(tiny: Tiny, ratio: str, norm: str) -> None:
    model, branches = from_branches(tiny("balancemla", ratio=ratio, norm=norm))
    audio, visual = batch()
    out = model(audio, visual)
    assert out.audio is not None
    assert torch.equal(out.audio, branches["audio"](audio, None).result)
    assert torch.equal(out.visual, branches["visual"](None, visual).result)
    expected = (0.5 * (out.audio + out.visual)).log_softmax(-1)
    assert torch.allclose(out.result, expected, atol=1e-6)


def test_bilinear_fusion_does_not_begin_there(tiny: Tiny) -> None:
    model, branches = from_branches(tiny("balancemla", attention="bilinear"))
    audio, visual = batch()
    assert not torch.allclose(model(audio, visual).audio, branches["audio"](audio, None).result, atol=1e-3)
    assert torch.equal(model(audio, visual, brff=False).audio, branches["audio"](audio, None).result)


def test_without_brff_a_branch_sees_its_own_modality_alone(tiny: Tiny) -> None:
    model, _ = from_branches(tiny("balancemla"))
    for name, parameter in model.named_parameters():
        if "brff" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    audio, visual = batch()
    other = replace_values(visual)
    assert not torch.allclose(model(audio, visual).audio, model(audio, other).audio, atol=1e-3)
    assert torch.equal(model(audio, visual, brff=False).audio, model(audio, other, brff=False).audio)


def replace_values(steps: Steps) -> Steps:
    return Steps(torch.randn(steps.values.shape, generator=torch.Generator().manual_seed(9)), steps.mask)


@pytest.mark.parametrize("removed", [(), ("brff",), ("adf",), ("clw",), ("adf", "clw"), ("brff", "adf", "clw")])
@pytest.mark.parametrize("gate_input", ["brff", "encoder"])
def test_every_rung_of_the_ladder_answers_from_the_other_modality_when_one_is_missing(
    tiny: Tiny, removed: tuple[str, ...], gate_input: str
) -> None:
    model, _ = from_branches(tiny("balancemla", gate_input=gate_input, **dict.fromkeys(removed, False)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    audio, visual = batch()
    out = model(audio, Steps(visual.values, torch.zeros_like(visual.mask)))
    alone = model(audio, visual, brff=False)
    assert torch.allclose(out.result, alone.audio, atol=1e-5)
    assert out.alpha is not None
    assert (out.alpha == 1).all()
    assert out.alpha.shape == (3, 1 if "clw" in removed else 4)
    assert (model.audio_brff is None) == ("brff" in removed)


def test_both_inputs_of_the_gate_are_honoured(tiny: Tiny) -> None:
    audio, visual = batch()
    alphas = []
    for gate_input in ("brff", "encoder"):
        torch.manual_seed(3)
        model = build(tiny("balancemla", gate_input=gate_input), INPUTS, 4).eval()
        torch.nn.init.normal_(model.get_parameter("decision.weight"))
        alphas.append(model(audio, visual).alpha)
    assert not torch.allclose(alphas[0], alphas[1], atol=1e-3)


def test_the_ratio_sets_the_lengths_of_the_projections(tiny: Tiny) -> None:
    model, _ = from_branches(tiny("balancemla", ratio="1:3", width=16, heads=2))
    assert (model.audio.project.linear.out_features, model.visual.project.linear.out_features) == (8, 24)
    assert (model.audio.widen.out_features, model.visual.widen.out_features) == (16, 16)


def test_parameters_are_grouped_by_the_modality_that_owns_them(tiny: Tiny) -> None:
    model, branches = from_branches(tiny("balancemla"))
    groups = model.parameter_groups()
    assert {k: len(v) for k, v in groups.items()}["shared"] == 3  # weight, bias and sharpness of the decision
    assert len(groups["audio"]) == len(groups["visual"])
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert list(branches["audio"].parameter_groups()) == ["audio"]
    fused = build(replace(tiny("transformer"), layers=1), INPUTS, 4).parameter_groups()
    assert {k: len(v) for k, v in fused.items() if k != "shared"} == {"audio": 2, "visual": 2}
