import math
from typing import Any

import pytest
import torch

from bmla.fuse.balance.base import Balance, discrepancy, true_class_scores
from bmla.fuse.balance.opm import OPM, chances
from bmla.fuse.config import RunConfig


def method(**settings: Any) -> OPM:
    return OPM(RunConfig("balancemla", balance="opm", **settings))


def test_chances_written_out() -> None:
    assert chances(torch.tensor([3.0, 1 / 3]), 0.4, 0.5).tolist() == pytest.approx([0.4 * (1 + 0.5 * math.tanh(2)), 0])
    assert chances(torch.tensor([1.0, 1.0]), 0.4, 0.5).tolist() == [0, 0]
    assert chances(torch.tensor([0.1, 10.0]), 0.9, 3.0).tolist() == [0, 1]


def test_the_leader_is_hidden_in_its_share_of_the_clips_that_have_both(batch: Any) -> None:
    torch.manual_seed(0)
    opm = method(opm_base=0.5, opm_slope=0.4, opm_share=0.6)
    opm.rho.copy_(torch.tensor([0.5, 2.0]))
    audio, visual, _ = batch(clips=200)
    hidden = 0
    for _ in range(100):
        seen_audio, seen_visual = opm.inputs(audio, visual)
        assert torch.equal(seen_audio.mask, audio.mask)
        assert torch.equal(seen_visual.present[:2], visual.present[:2])  # clip 1 has only sight: it stays
        hidden += int((visual.present & ~seen_visual.present).sum())
    expected = 0.6 * 0.5 * (1 + 0.4 * math.tanh(1))
    assert hidden / (100 * 198) == pytest.approx(expected, abs=0.1)
    assert opm.figures() == {"hidden_audio": 0.0, "hidden_visual": pytest.approx(hidden / (100 * 198))}


def test_the_discrepancy_of_a_step_counts_at_the_next(late: Any, batch: Any, tools: Any) -> None:
    opm, model = method(), late()
    assert torch.equal(opm.rho, torch.ones(2))
    step = tools.step_of(model, batch())
    opm.backward(step)
    expected = discrepancy(true_class_scores(step, step.unimodal()))
    assert torch.equal(opm.rho, expected)
    assert expected[0] * expected[1] == pytest.approx(1)
    opm.backward(tools.step_of(model, batch(none=True)))
    assert torch.equal(opm.rho, expected)


def test_modality_dropout_hides_either_in_half_its_share(batch: Any) -> None:
    torch.manual_seed(0)
    balance = Balance(RunConfig("balancemla", balance="modality-dropout", modality_dropout=0.15))
    audio, visual, _ = batch(clips=40_002)
    seen = balance.inputs(audio, visual)
    shares = [(~s.present[2:]).float().mean().item() for s in seen]
    assert shares == pytest.approx([0.075, 0.075], abs=0.005)
    assert (seen[0].present | seen[1].present).all()
