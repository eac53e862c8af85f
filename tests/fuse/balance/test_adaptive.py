import math
from typing import Any

import pytest
import torch

from bmla.fuse.balance.adaptive import Adaptive, controls
from bmla.fuse.config import RunConfig

CONFIG = RunConfig("balancemla", balance="adaptive", holdout=0.1, adaptive_smoothing=0.25, lambda_visual=2.0)


def test_controls_written_out() -> None:
    weight, scale = controls(torch.tensor([[0.5, 2.0], [1.0, 2.2]]), 3.0, 0.1)
    assert weight.tolist() == pytest.approx([2 * 1.0 / 3.2, 2 * 2.2 / 3.2])
    assert scale.tolist() == pytest.approx([(3 - 1.0) / (3 - 0.5), (3 - 2.2) / (3 - 2.0)])


@pytest.mark.parametrize(
    ("train", "held", "scale"),
    [(3.0, 3.0, 1.0), (0.1, 0.05, 1.0), (0.1, 4.0, 0.1), (3.5, 2.0, 1.0), (0.0, 2.9, 0.1)],
)
def test_the_scale_stays_between_its_floor_and_one(train: float, held: float, scale: float) -> None:
    assert controls(torch.tensor([[train, 1.0], [held, 1.0]]), 3.0, 0.1)[1][0].item() == pytest.approx(scale)


def test_losses_are_smoothed_over_epochs_and_act_from_the_second_on(late: Any, batch: Any, tools: Any) -> None:
    method, smooth = Adaptive(CONFIG, 3), None
    for epoch, (audio, visual) in enumerate(((0.9, 1.0), (0.5, 1.05))):
        step = tools.step_of(late(epoch), batch(seed=epoch))
        own = [step.losses.audio.item(), step.losses.visual.item()]
        factors = method.weight.tolist()
        if epoch == 0:
            assert factors == [1, 1]
            assert [float(s) for s in method.scales(step).values()] == [1, 1]
        expected = step.losses.result.item() + factors[0] * own[0] + 2.0 * factors[1] * own[1]
        assert method.objective(step).item() == pytest.approx(expected, rel=1e-5)
        now = [own, [audio, visual]]
        method.end_epoch({"held_loss": 1.0, "held_loss_audio": audio, "held_loss_visual": visual})
        smooth = (
            now
            if smooth is None
            else [
                [0.25 * a + 0.75 * b for a, b in zip(old, new, strict=True)]
                for old, new in zip(smooth, now, strict=True)
            ]
        )
        (t_a, t_v), (h_a, h_v) = smooth
        assert method.weight.tolist() == pytest.approx([2 * h_a / (h_a + h_v), 2 * h_v / (h_a + h_v)], rel=1e-4)
        scales = [
            min(max((math.log(3) - h) / (math.log(3) - t), 0.1), 1) if t < math.log(3) else 1
            for t, h in ((t_a, h_a), (t_v, h_v))
        ]
        assert method.scale.tolist() == pytest.approx(scales, rel=1e-3)


def test_a_modality_that_no_held_clip_has_keeps_its_level(late: Any, batch: Any, tools: Any) -> None:
    method = Adaptive(CONFIG, 3)
    method.objective(tools.step_of(late(), batch()))
    method.end_epoch({"held_loss": 1.0, "held_loss_audio": None, "held_loss_visual": 0.8})
    assert method.smooth.isfinite().all()
    assert method.smooth[1, 0].item() == pytest.approx(math.log(3))
