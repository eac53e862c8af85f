from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.balance.mmpareto import MMPareto, combination
from bmla.fuse.config import RunConfig

CONFIG = RunConfig("balancemla", balance="mmpareto")


def flat(*vectors: list[float]) -> list[list[torch.Tensor]]:
    return [[torch.tensor(v[:1]), torch.tensor(v[1:])] for v in vectors]


def test_gradients_that_agree_weigh_the_same() -> None:
    weights, factor, against = combination(*flat([1.0, 2.0, 0.0], [0.5, -0.1, 3.0]))
    assert weights.tolist() == [0.5, 0.5]
    assert float(factor) == 1.0
    assert float(against) == 0.0


@pytest.mark.parametrize("pair", [([1.0, 0.2, 0.0], [-2.0, 1.0, 1.0]), ([3.0, 1.0, 0.0], [-0.1, 0.0, 0.05])])
def test_gradients_in_conflict_take_the_shortest_combination_at_the_sums_length(pair: tuple) -> None:
    g, u = (np.array(v) for v in pair)
    assert g @ u < 0
    grid = np.linspace(0, 1, 20001)
    best = grid[np.argmin([np.linalg.norm(w * g + (1 - w) * u) for w in grid])]
    weights, factor, against = combination(*flat(*pair))
    assert weights.tolist() == pytest.approx([best, 1 - best], abs=1e-4)
    h = 2 * (best * g + (1 - best) * u)
    assert float(factor) == pytest.approx(min(max(1, np.linalg.norm(g + u) / np.linalg.norm(h)), 10), rel=1e-3)
    assert float(against) == 1.0
    joined = float(factor) * h
    assert joined @ g > -1e-6  # harms neither loss
    assert joined @ u > -1e-6


def test_gradients_that_cancel_are_not_blown_up() -> None:
    _, factor, _ = combination(*flat([2.0, 0.0, 0.0], [-1.0, 0.0, 0.0]))
    assert float(factor) <= 10


def test_each_encoder_gets_its_combination_and_the_head_the_sum(late: Any, batch: Any, tools: Any) -> None:
    conflicts = set()
    for seed in range(12):
        model = late(seed, own=True)
        step = tools.step_of(model, batch(seed=seed))
        own = {}
        for name, loss in step.losses._asdict().items():
            model.zero_grad()
            loss.backward(retain_graph=True)
            own[name] = {
                n: None if p.grad is None else p.grad.clone().double().numpy() for n, p in model.named_parameters()
            }
        model.zero_grad()
        pareto = MMPareto(CONFIG)
        total = pareto.backward(step)
        assert float(total) == pytest.approx(sum(float(loss.detach()) for loss in step.losses), rel=1e-5)
        for m in ("audio", "visual"):
            g, u = own["result"][f"{m}.weight"], own[m][f"{m}.weight"]
            conflict = (g * u).sum() < 0
            conflicts.add(bool(conflict))
            expected = g + u
            if conflict:
                grid = np.linspace(0, 1, 20001)
                norms = [((w * g + (1 - w) * u) ** 2).sum() for w in grid]
                w = grid[int(np.argmin(norms))]
                h = 2 * (w * g + (1 - w) * u)
                expected = h * min(max(1, np.linalg.norm(g + u) / np.linalg.norm(h)), 10)
            actual = model.get_submodule(m).weight.grad.numpy()
            np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=1e-4)
            np.testing.assert_allclose(
                model.get_submodule(f"{m}_head").weight.grad.numpy(), own[m][f"{m}_head.weight"], rtol=1e-4, atol=1e-6
            )
        np.testing.assert_allclose(model.head.weight.grad.numpy(), own["result"]["head.weight"], rtol=1e-4, atol=1e-6)
    assert conflicts == {True, False}


def test_updates_are_half_again_as_large(late: Any, batch: Any, tools: Any) -> None:
    scales = MMPareto(CONFIG).scales(tools.step_of(late(), batch()))
    assert {owner: float(s) for owner, s in scales.items()} == {"audio": 1.5, "visual": 1.5}


def test_a_modality_that_no_clip_has_leaves_the_sum(late: Any, batch: Any, tools: Any) -> None:
    model = late()
    MMPareto(CONFIG).backward(tools.step_of(model, batch(none=True)))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
