"""What is said of attention is what the model computed with."""

import math
from collections.abc import Callable

import pytest
import torch

from bmla.fuse.attention import looking
from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import FusionModel, Input, Steps
from bmla.fuse.models.table import build

B, T1, T2, D, H = 3, 6, 4, 16, 2


@pytest.fixture
def steps() -> tuple[Steps, Steps]:
    torch.manual_seed(0)
    masks = torch.ones(B, T1, dtype=torch.bool), torch.ones(B, T2, dtype=torch.bool)
    masks[0][1, 4:] = False
    masks[1][1, 1:3] = False
    masks[1][2] = False
    return Steps(torch.randn(B, T1, 12), masks[0]), Steps(torch.randn(B, T2, 8), masks[1])


@pytest.fixture
def make(tiny: Callable[..., RunConfig]) -> Callable[..., FusionModel]:
    def make(model: str = "balancemla", **wishes: object) -> FusionModel:
        torch.manual_seed(1)
        built = build(tiny(model, **wishes), {"audio": Input(12, 50.0), "visual": Input(8, 25.0)}, 4).eval()
        with torch.no_grad():
            for parameter in built.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        return built

    return make


@pytest.mark.parametrize("wishes", [{}, {"attention": "bilinear"}, {"brff_layers": 1}], ids=str)
def test_rows_are_distributions_over_valid_steps(make: Callable[..., FusionModel], steps, wishes) -> None:
    audio, visual = steps
    with torch.inference_mode(), looking(make(**wishes)) as seen:
        seen_model = seen
        make(**wishes)(audio, visual)
    assert seen_model == {}, "another model leaves nothing"
    model = make(**wishes)
    with torch.inference_mode(), looking(model) as seen:
        model(audio, visual)
    sound = seen["audio"].weights
    assert sound.shape == (B, T1, T2)
    torch.testing.assert_close(sound[:2].sum(2), torch.ones(2, T1))
    assert not sound[1, :, 1:3].any()
    assert not sound[2].any(), "a clip without sight looks nowhere"
    assert not seen["audio"].added[2].any()
    assert (seen["audio"].added[:2] > 0).all()
    assert seen["visual"].weights.shape == (B, T2, T1)


def test_the_weights_of_a_cross_block_are_those_that_its_output_is_made_of(
    make: Callable[..., FusionModel], steps
) -> None:
    """One block: what was added is the values weighed by these very weights, written out head by head."""
    audio, visual = steps
    model = make(brff_layers=1)
    (block,) = model.audio_brff.blocks
    with torch.inference_mode(), looking(model) as seen:
        model(audio, visual)
        basic, other = model.audio.embed(audio), model.visual.embed(visual)
        fused = model.audio_brff(basic, other, visual.mask)
        attention = block.attention
        query = attention.query(block.norm_basic(basic))[0]
        key, value = attention.key_value(block.norm_auxiliary(other))[0].split(D, -1)
        parts, weights = [], []
        for h in range(H):
            own = slice(h * D // H, (h + 1) * D // H)
            weight = torch.stack([(key[:, own] @ query[t, own] / math.sqrt(D / H)).softmax(0) for t in range(T1)])
            weights.append(weight)
            parts.append(weight @ value[:, own])
        added = attention.out(torch.cat(parts, 1))
    torch.testing.assert_close(fused[0] - basic[0], added, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen["audio"].weights[0], torch.stack(weights).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen["audio"].added[0], added.norm(dim=-1) / basic[0].norm(dim=-1), atol=1e-5, rtol=1e-4)


def test_bilinear_weights_are_those_of_the_equation(make: Callable[..., FusionModel], steps) -> None:
    audio, visual = steps
    model = make(attention="bilinear")
    with torch.inference_mode(), looking(model) as seen:
        model(audio, visual)
        basic, other = model.audio.embed(audio)[0], model.visual.embed(visual)[0]
        w = model.audio_brff.weight.weight
        for j in range(T1):
            beta = torch.stack([f @ w @ basic[j] for f in other]).softmax(0)
            torch.testing.assert_close(seen["audio"].weights[0, j], beta, atol=1e-5, rtol=1e-4)


def test_models_without_brff_say_nothing_and_hooks_are_gone_afterwards(make: Callable[..., FusionModel], steps) -> None:
    for name, wishes, asking in (
        ("joint", {}, set()),
        ("balancemla", {"brff": False}, set()),
        ("single-res", {}, {"audio"}),
    ):
        model = make(name, **wishes)
        with torch.inference_mode(), looking(model) as seen:
            model(*steps)
        assert set(seen) == asking
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
