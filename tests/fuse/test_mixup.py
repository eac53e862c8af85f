import math
from dataclasses import replace

import pytest
import torch
from torch.nn import Identity

from bmla.fuse.balance.base import Step
from bmla.fuse.mixup import Mixed, mix, mixup
from bmla.fuse.models.base import Output, Steps


def steps(values: list[list[float]], mask: list[list[int]]) -> Steps:
    return Steps(torch.tensor(values)[..., None], torch.tensor(mask, dtype=torch.bool))


def test_steps_that_both_have_are_added_in_proportion_and_others_stand_alone() -> None:
    nan = float("nan")
    batch = steps([[10.0, 20.0, nan, nan], [1.0, nan, 3.0, nan]], [[1, 1, 0, 0], [1, 0, 1, 0]])
    out = mix(batch, torch.tensor([1, 0]), torch.tensor([0.75, 0.75]), torch.tensor([True, True]))
    torch.testing.assert_close(out.values[..., 0], torch.tensor([[7.75, 20.0, 3.0, 0.0], [3.25, 20.0, 3.0, 0.0]]))
    assert out.mask.tolist() == [[True, True, True, False]] * 2


def test_pixels_are_mixed_as_numbers() -> None:
    batch = Steps(torch.tensor([[[[200]]], [[[100]]]], dtype=torch.uint8), torch.ones(2, 1, dtype=torch.bool))
    out = mix(batch, torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), torch.tensor([True, True]))
    assert out.values.flatten().tolist() == [150.0, 150.0]


def test_clips_with_other_modalities_are_left_alone() -> None:
    torch.manual_seed(0)
    audio = steps([[1.0], [2.0], [3.0], [4.0]], [[1], [1], [0], [0]])
    visual = steps([[5.0]] * 4, [[1]] * 4)
    for _ in range(20):
        mixed = mixup(audio, visual, torch.arange(4), 1.0)
        alone = (mixed.other < 2) != (torch.arange(4) < 2)
        assert (mixed.share[alone] == 1).all()
        assert mixed.audio is not None
        assert mixed.audio.mask[:, 0].tolist() == [True, True, False, False]


def test_the_loss_is_that_of_both_labels_in_the_same_proportion() -> None:
    logs = torch.randn(3, 4).log_softmax(1)
    every = steps([[1.0]] * 3, [[1]] * 3)
    mixed = Mixed(every, None, torch.tensor([3, 0, 1]), torch.tensor([0.7, 0.7, 1.0]))
    labels = torch.tensor([0, 1, 2])
    step = Step(Identity(), every, None, labels, Output(logs, audio=logs), mixed=mixed)
    expected = -(0.7 * logs[0, 0] + 0.3 * logs[0, 3] + 0.7 * logs[1, 1] + 0.3 * logs[1, 0] + logs[2, 2]) / 3
    torch.testing.assert_close(step.losses.result, expected)
    torch.testing.assert_close(step.losses.audio, expected)
    assert step.losses.visual is None


def test_what_is_true_of_a_mixed_clip_is_both_labels_in_their_shares() -> None:
    values = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
    every = steps([[1.0]] * 3, [[1]] * 3)
    labels = torch.tensor([0, 1, 2])
    plain = Step(Identity(), every, every, labels, Output(values))
    assert plain.true(values).tolist() == pytest.approx([0.1, 0.3, 0.1])
    assert plain.label_entropy.tolist() == [0, 0, 0]
    mixed = Mixed(every, every, torch.tensor([2, 1, 0]), torch.tensor([0.25, 0.25, 1.0]))
    step = replace(plain, mixed=mixed)
    assert step.true(values).tolist() == pytest.approx([0.25 * 0.1 + 0.75 * 0.7, 0.3, 0.1])
    entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert step.label_entropy.tolist() == pytest.approx([entropy, 0, 0]), (
        "a clip mixed with one of its class is sure of it"
    )


@pytest.mark.parametrize("alpha", [0.4, 10.0])
def test_shares_follow_their_beta_distribution(alpha: float) -> None:
    torch.manual_seed(0)
    every = steps([[1.0]] * 2, [[1]] * 2)
    draws = torch.stack([mixup(every, None, torch.arange(2), alpha).share[0] for _ in range(500)])
    assert draws.mean() == pytest.approx(0.5, abs=0.05)
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)
