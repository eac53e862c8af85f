"""Late fusion against sums that are written out."""

import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input, Output, Steps
from bmla.fuse.models.joint import CosineHead, Joint
from bmla.fuse.models.table import build
from bmla.fuse.recipes import run_config

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 25.0)}


def model(name: str, **options: object) -> Joint:
    torch.manual_seed(0)
    made = build(RunConfig(name, width=8, heads=2, layers=1, **options), INPUTS, 3).eval()
    assert isinstance(made, Joint)
    return made


def pair(clips: int = 2) -> tuple[Steps, Steps]:
    generator = torch.Generator().manual_seed(1)
    audio = Steps(torch.randn(clips, 6, 6, generator=generator), torch.ones(clips, 6, dtype=torch.bool))
    return audio, Steps(torch.randn(clips, 3, 5, generator=generator), torch.ones(clips, 3, dtype=torch.bool))


def pooled(out: Output) -> tuple[torch.Tensor, torch.Tensor]:
    assert out.pooled_audio is not None
    assert out.pooled_visual is not None
    return out.pooled_audio, out.pooled_visual


def test_the_result_is_one_linear_map_of_both_means() -> None:
    joint = model("joint")
    out = joint(*pair())
    z_audio, z_visual = pooled(out)
    w, b = joint.head.linear.weight, joint.head.linear.bias
    for n in range(2):
        logits = [
            sum(w[c, k] * z_audio[n, k] for k in range(8)) + sum(w[c, 8 + k] * z_visual[n, k] for k in range(8)) + b[c]
            for c in range(3)
        ]
        torch.testing.assert_close(out.result[n], torch.stack(logits).log_softmax(0))
    torch.testing.assert_close(out.audio, (z_audio @ w[:, :8].T + b / 2).log_softmax(1))
    torch.testing.assert_close(out.visual, (z_visual @ w[:, 8:].T + b / 2).log_softmax(1))


def test_cosine_logits_are_scaled_cosines_without_bias_or_length() -> None:
    joint = model("joint", head="cosine", cosine_scale=7.0)
    assert isinstance(joint.head, CosineHead)
    assert not [name for name, _ in joint.head.named_parameters() if name.endswith("bias")]
    out = joint(*pair())
    total = torch.zeros(2, 3)
    for z, weight in zip(pooled(out), (joint.head.audio.weight, joint.head.visual.weight), strict=True):
        total += 7 * torch.stack([torch.cosine_similarity(z, weight[c : c + 1]) for c in range(3)], 1)
    torch.testing.assert_close(out.result, total.log_softmax(1))
    with torch.no_grad():
        joint.head.audio.weight[1] *= 5
    torch.testing.assert_close(joint(*pair()).result, out.result)


def test_auxiliary_heads_answer_from_their_own_modality_and_leave_the_result_alone() -> None:
    joint = model("joint-aux")
    out = joint(*pair())
    assert joint.audio_head is not None
    torch.testing.assert_close(out.audio, joint.audio_head(pooled(out)[0]).log_softmax(1))
    with torch.no_grad():
        joint.audio_head.weight.add_(1.0)
    torch.testing.assert_close(joint(*pair()).result, out.result)
    assert {"audio_head.weight", "visual_head.weight"} <= {n for n, _ in joint.named_parameters()}


def test_a_missing_modality_has_a_pooled_zero_and_a_finite_gradient() -> None:
    joint = model("joint", head="cosine")
    audio, visual = pair()
    out = joint(audio, visual.absent())
    assert (pooled(out)[1] == 0).all()
    out.result[:, 0].sum().backward()
    assert all(p.grad.isfinite().all() for p in joint.parameters() if p.grad is not None)


def test_the_answers_of_joint_are_not_trained_and_those_of_joint_aux_are() -> None:
    assert (run_config("joint").lambda_audio, run_config("joint").lambda_visual) == (0, 0)
    assert run_config("joint", lambda_audio=0.5).lambda_audio == 0.5
    assert (run_config("joint-aux").lambda_audio, run_config("joint-aux").lambda_visual) == (1, 1)
