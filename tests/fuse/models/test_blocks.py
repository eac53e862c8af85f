import numpy as np
import pytest
import torch
from torch import nn

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input, Output, Standardise, Steps, losses
from bmla.fuse.models.blocks import Attention, Encoder, Project, attend, masked_mean, positions


def test_positions_count_seconds_so_that_streams_of_different_rates_agree() -> None:
    assert torch.allclose(positions(10, 16, 50.0)[::2], positions(5, 16, 25.0), atol=1e-6)
    assert not torch.allclose(positions(5, 16, 50.0), positions(5, 16, 25.0), atol=0.1)


def test_positions_at_50_hz_are_those_of_vaswani() -> None:
    p, d = positions(7, 8, 50.0).numpy(), 8
    for pos in range(7):
        for i in range(d // 2):
            angle = pos / 10_000 ** (2 * i / d)
            assert p[pos, 2 * i] == pytest.approx(np.sin(angle), abs=1e-6)
            assert p[pos, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-6)


def test_masked_mean_is_the_mean_of_the_valid_steps_and_zero_without_any() -> None:
    values = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [6.0], [7.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(values, mask).tolist() == [[2.0], [0.0]]


def test_attention_is_the_written_out_softmax_over_valid_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, t, 4, generator=generator) for t in (5, 6, 6))
    mask = torch.tensor([[True, False, True, True, False, False], [False] * 6])
    out = attend(query, key, value, mask)
    for h in range(3):
        for j in range(5):
            valid = [0, 2, 3]
            scores = np.array([float(query[0, h, j] @ key[0, h, i]) / 2.0 for i in valid])
            beta = np.exp(scores) / np.exp(scores).sum()
            expected = sum(b * value[0, h, i] for b, i in zip(beta, valid, strict=True))
            assert torch.allclose(out[0, h, j], expected.float(), atol=1e-5)
    assert (out[1] == 0).all()


def test_gradients_stay_finite_where_a_clip_has_no_valid_step() -> None:
    x = torch.randn(2, 3, 8, requires_grad=True)
    attention = Attention(8, 2)
    attention(x, x, torch.tensor([[True, True, False], [False] * 3])).square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_equals_torchs_own(norm: str) -> None:
    torch.manual_seed(1)
    ours = Encoder(16, 4, 2, 0.0, norm).eval()
    layer = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=norm == "pre")
    last = nn.LayerNorm(16) if norm == "pre" else None
    theirs = nn.TransformerEncoder(layer, 2, norm=last, enable_nested_tensor=False)
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        query_key_value = torch.cat([a.attention.query.weight, a.attention.key_value.weight])
        with torch.no_grad():
            b.self_attn.in_proj_weight.copy_(query_key_value)
            b.self_attn.in_proj_bias.copy_(torch.cat([a.attention.query.bias, a.attention.key_value.bias]))
        for mine, other in (
            (a.attention.out, b.self_attn.out_proj),
            (a.widen, b.linear1),
            (a.narrow, b.linear2),
            (a.norm_attention, b.norm1),
            (a.norm_forward, b.norm2),
        ):
            other.load_state_dict(mine.state_dict())
    x = torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    expected = theirs(x, src_key_padding_mask=~mask)
    assert torch.allclose(ours(x, mask)[mask], expected[mask], atol=1e-5)


def test_projection_standardises_and_ignores_what_stands_at_invalid_steps() -> None:
    project = Project(Input(2, 25.0), 4, RunConfig("balancemla"))
    project.standardise.mean.copy_(torch.tensor([1.0, 2.0]))
    project.standardise.std.copy_(torch.tensor([2.0, 4.0]))
    steps = Steps(torch.tensor([[[3.0, 10.0], [float("nan"), 1e30]]]), torch.tensor([[True, False]]))
    assert project.standardise(steps).tolist() == [[[1.0, 2.0], [0.0, 0.0]]]
    assert torch.isfinite(project(steps)).all()


def test_statistics_are_saved_with_the_weights() -> None:
    assert set(Standardise(3).state_dict()) == {"mean", "std"}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_losses_are_the_written_out_means_and_ask_no_branch_about_a_missing_modality(
    weighted: bool, smoothing: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    result, audio, visual = (torch.randn(3, 4, generator=generator).log_softmax(-1) for _ in range(3))
    labels = torch.tensor([0, 2, 3])
    sound = Steps(torch.zeros(3, 1, 1), torch.tensor([[True], [False], [True]]))
    sight = Steps(torch.zeros(3, 1, 1), torch.tensor([[True], [True], [True]]))
    weights = torch.tensor([1.0, 1.0, 2.0, 0.5])

    def mean(answer: torch.Tensor, clips: list[int]) -> float:
        total = norm = 0.0
        for i in clips:
            w = float(weights[labels[i]]) if weighted else 1.0
            target = [smoothing / 4 + (1 - smoothing) * (c == labels[i]) for c in range(4)]
            total += w * sum(-float(answer[i, c]) * float(t) for c, t in enumerate(target))
            norm += w
        return total / norm

    got = losses(
        Output(result, audio, visual), sound, sight, labels, weights if weighted else None, smoothing=smoothing
    )
    for value, expected in zip(
        got, (mean(result, [0, 1, 2]), mean(audio, [0, 2]), mean(visual, [0, 1, 2])), strict=True
    ):
        assert float(value) == pytest.approx(expected, rel=1e-5)
    assert losses(Output(result), sound, sight, labels)[1:] == (None, None)


CUBE = Input(24, 25.0, (3, 8))
SMALL = RunConfig("balancemla", front_width=2, resnet_depth=18)


def cubes(mask: list[list[int]], seed: int = 0) -> Steps:
    valid = torch.tensor(mask, dtype=torch.bool)
    return Steps(torch.randn(*valid.shape, 3, 8, generator=torch.Generator().manual_seed(seed)), valid)


def test_pictures_go_through_a_front_end_are_normalised_and_then_projected_as_vectors_are() -> None:
    torch.manual_seed(0)
    project = Project(CUBE, 4, SMALL).eval()
    steps = cubes([[1, 1, 0], [1, 0, 0]])
    assert project.front is not None
    made = project.front(steps)
    assert made.shape == (2, 3, 16)
    expected = (made - made.mean(-1, keepdim=True)) / (made.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = expected * steps.mask[..., None]
    torch.testing.assert_close(project.features(steps), expected)
    torch.testing.assert_close(project(steps), expected @ project.linear.weight.T + project.linear.bias)


def test_time_is_hidden_from_vectors_in_training_where_that_is_asked_for() -> None:
    torch.manual_seed(0)
    project = Project(Input(2, 25.0), 4, RunConfig("balancemla", time_mask=1.0))
    steps = Steps(torch.ones(50, 6, 2), torch.ones(50, 6, dtype=torch.bool))
    hidden = project.features(steps)
    assert {0.0, 1.0} == set(hidden.flatten().tolist())
    assert (project.eval().features(steps) == 1).all()


def test_what_reads_pictures_is_shared_and_statistics_are_not() -> None:
    torch.manual_seed(0)
    one, other = (Project(CUBE, 4, SMALL).eval() for _ in range(2))
    assert one.front is not None
    assert other.front is not None
    one.front.standardise.take(torch.full((3, 1), 2.0), torch.full((3, 1), 0.5))
    steps = cubes([[1, 1, 1]])
    assert not torch.allclose(one(steps), other(steps), atol=1e-3)
    other.share(one)
    assert (other.front.standardise.mean == 0).all()
    shifted = Steps(steps.values * 0.5 + 2.0, steps.mask)
    torch.testing.assert_close(one(shifted), other(steps), atol=1e-5, rtol=1e-5)
    own = {id(p) for p in one.parameters()}
    assert {id(p) for p in other.parameters()} == own
    before = [b.clone() for b in other.buffers()]
    one.train()(cubes([[1, 1, 1]], seed=1))
    assert all(torch.equal(a, b) for a, b in zip(before, other.buffers(), strict=True)), "running means and variances"
    with torch.no_grad():
        one.linear.weight += 1
    assert torch.equal(one.linear.weight, other.linear.weight)
