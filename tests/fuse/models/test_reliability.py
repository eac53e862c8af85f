import math

import numpy as np
import pytest
import torch

from bmla.fuse.models.reliability import Reliability, reliability

C, D = 5, 3
BOTH = torch.ones(4, 2, dtype=torch.bool)


def answers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio, visual = ((3 * torch.randn(4, C, generator=generator)).log_softmax(-1) for _ in range(2))
    return audio, visual, torch.randn(4, D, generator=generator), torch.randn(4, D, generator=generator)


def fitted(adf: bool, clw: bool) -> Reliability:
    decision = Reliability(D, C, adf, clw)
    generator = torch.Generator().manual_seed(1)
    for tensor in decision.state_dict().values():
        tensor.normal_(generator=generator)
    decision.std.abs_().add_(0.5)
    return decision


def test_reliability_is_entropy_greatest_log_probability_and_lead() -> None:
    p = [0.7, 0.2, 0.1]
    (got,) = reliability(torch.tensor([p]).log()).tolist()
    assert got == pytest.approx([-sum(q * math.log(q) for q in p), math.log(0.7), math.log(0.7 / 0.2)], rel=1e-5)


@pytest.mark.parametrize(("adf", "clw"), [(True, True), (True, False), (False, True), (False, False)])
def test_weights_are_the_written_out_sigmoid(adf: bool, clw: bool) -> None:
    decision = fitted(adf, clw)
    audio, visual, za, zv = answers()
    weights = decision(audio, visual, za, zv, BOTH).numpy()
    assert weights.shape == (4, 2, C if clw else 1)
    state = {name: value.double().numpy() for name, value in decision.state_dict().items()}
    for i in range(4):
        x: list[float] = []
        for logs in (audio[i].double().tolist(), visual[i].double().tolist()):
            first, second = sorted(logs)[-1], sorted(logs)[-2]
            x += [-sum(math.exp(v) * v for v in logs), first, first - second]
        x += [*za[i].tolist(), *zv[i].tolist()]
        logit = sum(
            (v - m) / s * w
            for v, m, s, w in zip(x, state["mean"], state["std"], state.get("weight", [0.0] * len(x)), strict=True)
        )
        bias = state.get("bias", np.zeros(1))
        expected = 1 / (1 + np.exp(-(logit * adf + bias)))
        np.testing.assert_allclose(weights[i, 0], np.broadcast_to(expected, weights[i, 0].shape), rtol=1e-4)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def test_it_begins_at_the_plain_mean() -> None:
    decision = Reliability(D, C, True, True)
    audio, visual, za, zv = answers()
    assert (decision(audio, visual, za, zv, BOTH) == 0.5).all()
    torch.testing.assert_close(decision.sharpen(audio), audio)


def test_a_missing_modality_has_no_weight() -> None:
    present = torch.tensor([[True, False], [False, True], [True, True], [True, True]])
    weights = fitted(True, True)(*answers(), present)
    assert (weights[0, 0] == 1).all()
    assert (weights[1, 0] == 0).all()
    assert ((weights[2:, 0] > 0) & (weights[2:, 0] < 1)).all()


def test_sharpening_is_a_power_of_the_probabilities() -> None:
    decision = fitted(True, True)
    audio = answers()[0]
    assert decision.sharpness is not None
    power = audio.exp().double().numpy() ** float(decision.sharpness.exp())
    np.testing.assert_allclose(decision.sharpen(audio).exp().numpy(), power / power.sum(1, keepdims=True), rtol=1e-4)


def test_the_branches_learn_nothing_from_how_they_are_weighed() -> None:
    audio, visual, za, zv = (t.requires_grad_(True) for t in answers())
    weights = fitted(True, True).requires_grad_(True)(audio, visual, za, zv, BOTH)
    weights.square().sum().backward()
    assert all(t.grad is None for t in (audio, visual, za, zv))
