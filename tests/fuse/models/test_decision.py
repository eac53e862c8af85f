import numpy as np
import pytest
import torch

from bmla.fuse.models.decision import Decision, mix

BOTH = torch.tensor([[True, True], [True, True]])


def trained(classes: int, adf: bool, clw: bool) -> Decision:
    decision = Decision(3, classes, adf, clw)
    generator = torch.Generator().manual_seed(1)
    for parameter in decision.parameters():
        parameter.data.normal_(generator=generator)
    return decision


@pytest.fixture
def pooled() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)


def test_adf_gives_the_written_out_softmax_over_modalities(pooled: tuple[torch.Tensor, torch.Tensor]) -> None:
    decision = trained(5, adf=True, clw=False)
    alpha = decision(*pooled, BOTH).detach().numpy()
    assert alpha.shape == (2, 2, 1)
    assert decision.weight is not None
    assert decision.bias is not None
    x = np.concatenate([p.numpy() for p in pooled], 1).astype(float)
    logits = x @ decision.weight.detach().numpy().T + decision.bias.detach().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(alpha[..., 0], expected, rtol=1e-5)
    np.testing.assert_allclose(alpha.sum(1), 1, rtol=1e-6)


def test_clw_gives_one_alpha_a_class_and_sums_to_one_over_modalities(pooled: tuple[torch.Tensor, torch.Tensor]) -> None:
    decision = trained(5, adf=True, clw=True)
    alpha = decision(*pooled, BOTH).detach().numpy()
    assert alpha.shape == (2, 2, 5)
    assert decision.weight is not None
    assert decision.bias is not None
    x = np.concatenate([p.numpy() for p in pooled], 1).astype(float)
    logits = x @ decision.weight.detach().numpy().T + decision.bias.detach().numpy()
    for b in range(2):
        for c in range(5):
            audio, visual = logits[b, c], logits[b, 5 + c]
            assert alpha[b, 0, c] == pytest.approx(np.exp(audio) / (np.exp(audio) + np.exp(visual)), rel=1e-5)
    assert len(np.unique(alpha[0, 0])) == 5


def test_clw_without_adf_is_the_same_for_every_sample(pooled: tuple[torch.Tensor, torch.Tensor]) -> None:
    alpha = trained(5, adf=False, clw=True)(*pooled, BOTH)
    assert torch.equal(alpha[0], alpha[1])
    assert len(alpha[0, 0].unique()) == 5


def test_neither_is_one_half(pooled: tuple[torch.Tensor, torch.Tensor]) -> None:
    decision = Decision(3, 5, adf=False, clw=False)
    assert list(decision.parameters()) == []
    assert (decision(*pooled, BOTH) == 0.5).all()


def test_training_begins_at_the_mean_of_both_branches(pooled: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert (Decision(3, 5, adf=True, clw=True)(*pooled, BOTH) == 0.5).all()


@pytest.mark.parametrize(("adf", "clw"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("what", ["log-probabilities", "probabilities"])
def test_a_missing_modality_leaves_the_whole_decision_to_the_other(
    pooled: tuple[torch.Tensor, torch.Tensor], adf: bool, clw: bool, what: str
) -> None:
    decision = trained(5, adf, clw)
    weights = decision(*pooled, torch.tensor([[True, False], [False, True]]))
    assert (weights[0, 0] == 1).all()
    assert (weights[0, 1] == 0).all()
    assert (weights[1, 1] == 1).all()
    audio, visual = torch.randn(2, 5).log_softmax(-1), torch.randn(2, 5).log_softmax(-1)
    result = mix(weights, audio, visual, what)
    assert torch.allclose(result[0], audio[0], atol=1e-6)
    assert torch.allclose(result[1], visual[1], atol=1e-6)
    result[:, 0].sum().backward() if result.requires_grad else None
    assert all(torch.isfinite(p.grad).all() for p in decision.parameters())


@pytest.mark.parametrize("what", ["log-probabilities", "probabilities"])
def test_mixing_is_the_written_out_sum_normalised(what: str) -> None:
    generator = torch.Generator().manual_seed(3)
    audio, visual = (torch.randn(2, 4, generator=generator).log_softmax(-1) for _ in range(2))
    alpha = torch.rand(2, 4, generator=generator)
    got = mix(torch.stack([alpha, 1 - alpha], 1), audio, visual, what).exp().numpy()
    a, v, w = audio.numpy().astype(float), visual.numpy().astype(float), alpha.numpy().astype(float)
    mixed = np.exp(w * a + (1 - w) * v) if what == "log-probabilities" else w * np.exp(a) + (1 - w) * np.exp(v)
    np.testing.assert_allclose(got, mixed / mixed.sum(1, keepdims=True), rtol=1e-5)
