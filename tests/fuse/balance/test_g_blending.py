from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.balance.g_blending import GBlending, blend
from bmla.fuse.config import RunConfig

CONFIG = RunConfig("balancemla", balance="g-blending", holdout=0.1, gblend_epochs=2)


def held(result: float, audio: float | None, visual: float) -> dict[str, float | None]:
    return {"held_loss": result, "held_loss_audio": audio, "held_loss_visual": visual}


def test_weights_are_generalisation_over_overfitting_squared() -> None:
    before = torch.tensor([[3.0, 3.1, 3.2], [3.0, 3.2, 3.3]])
    now = torch.tensor([[1.0, 0.5, 2.9], [2.0, 2.7, 3.05]])
    gained = np.array([1.0, 0.5, 0.25])
    overfitted = np.array([1.0 - 0.0, 2.2 - 0.1, 0.15 - 0.1])
    raw = gained / overfitted**2
    assert blend(before, now, torch.full((3,), 1 / 3)).tolist() == pytest.approx((raw / raw.sum()).tolist(), rel=1e-3)


def test_a_loss_that_did_not_fall_weighs_nothing_and_none_at_all_leave_the_weights() -> None:
    before, old = torch.tensor([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]), torch.tensor([0.2, 0.3, 0.5])
    weights = blend(before, torch.tensor([[1.0, 1.0, 1.0], [1.5, 2.1, 1.5]]), old)
    assert weights.tolist() == pytest.approx([0.5, 0, 0.5])
    assert torch.equal(blend(before, torch.tensor([[1.0, 1.0, 1.0], [2.5, 2.1, 2.5]]), old), old)


def test_weights_move_at_the_end_of_each_super_epoch_by_losses_on_both_kinds_of_clips(
    late: Any, batch: Any, tools: Any
) -> None:
    method = GBlending(CONFIG)
    levels = []
    for epoch, (model, on_held) in enumerate(
        ((late(0), (3.0, 3.0, 3.0)), (late(1), (9.0, 9.0, 9.0)), (late(2), (2.0, 2.5, 2.9)))
    ):
        step = tools.step_of(model, batch(seed=epoch))
        expected = sum(w * loss.item() for w, loss in zip([1 / 3] * 3, step.losses, strict=True))
        assert method.objective(step).item() == pytest.approx(expected, rel=1e-5)
        levels.append(([loss.item() for loss in step.losses], on_held))
        method.end_epoch(held(*on_held))
        if epoch < 2:
            assert method.weights.tolist() == pytest.approx([1 / 3] * 3)
    first, last = (np.array(levels[i]) for i in (0, 2))  # rows: training clips, held clips
    raw = (first[1] - last[1]) / np.maximum(np.abs((last[1] - last[0]) - (first[1] - first[0])), 1e-2) ** 2
    assert method.weights.tolist() == pytest.approx((raw / raw.sum()).tolist(), rel=1e-4)
    assert method.figures()["weight_audio"] == method.weights[1].item()


def test_a_modality_that_no_held_clip_has_weighs_nothing(late: Any, batch: Any, tools: Any) -> None:
    method = GBlending(CONFIG)
    for seed, level in enumerate((3.0, 2.5, 2.0)):
        method.objective(tools.step_of(late(seed), batch(seed=seed)))
        method.end_epoch(held(level, None, level))
    assert method.weights[1] == 0
    assert method.weights.sum() == pytest.approx(1)
