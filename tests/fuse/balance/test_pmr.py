from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.balance.pmr import PMR, prototype_logs
from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import cross_entropy

SETTINGS = dict(lambda_audio=0.0, lambda_visual=0.0, pmr_alpha=0.7, pmr_momentum=0.3, pmr_entropy=0.05)


def method(**settings: Any) -> PMR:
    config = RunConfig("balancemla", balance="pmr", **{**SETTINGS, **settings})
    return PMR(config, {"audio": 4, "visual": 4}, 3)


def test_before_there_are_prototypes_only_the_models_loss_counts(late: Any, batch: Any, tools: Any) -> None:
    step = tools.step_of(late(), batch())
    assert method().objective(step).item() == pytest.approx(cross_entropy(step.output.result, step.labels).item())


def test_prototypes_are_class_means_of_an_epoch_and_move_by_momentum(late: Any, batch: Any, tools: Any) -> None:
    model, pmr, expected = late(), method(), {}
    for epoch in range(3):
        seen: dict[int, list[np.ndarray]] = {}
        for seed in (2 * epoch, 2 * epoch + 1):
            step = tools.step_of(model, batch(seed=seed))
            pmr.objective(step)
            for i, y in enumerate(step.labels.tolist()):
                if i != 1:  # it has no sound
                    seen.setdefault(y, []).append(step.output.pooled_audio[i].detach().numpy())
        pmr.end_epoch({})
        for y, z in seen.items():
            expected[y] = 0.3 * expected[y] + 0.7 * np.mean(z, 0) if y in expected else np.mean(z, 0)
    for y, prototype in expected.items():
        np.testing.assert_allclose(pmr.prototype_audio[y].numpy(), prototype, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("early", [True, False])
def test_the_objective_written_out(late: Any, batch: Any, tools: Any, early: bool) -> None:
    model, pmr = late(), method(pmr_entropy_epochs=10 if early else 0)
    torch.manual_seed(1)
    for m in ("audio", "visual"):
        pmr.get_buffer(f"prototype_{m}").normal_()
        pmr.get_buffer(f"seen_{m}").fill_(True)
    step = tools.step_of(model, batch())
    labels = step.labels.tolist()
    probabilities = []
    for m in ("audio", "visual"):
        z, c = getattr(step.output, f"pooled_{m}").detach().numpy(), pmr.get_buffer(f"prototype_{m}").numpy()
        e = np.exp(-np.sqrt(((z[:, None] - c) ** 2).sum(-1)))
        probabilities.append(e / e.sum(1, keepdims=True))
    true = [[p[i, y] for i, y in enumerate(labels)] for p in probabilities]
    rho = sum(true[0][2:]) / sum(true[1][2:])
    beta, gamma = np.clip(1 / rho - 1, 0, 1), np.clip(rho - 1, 0, 1)
    assert beta + gamma > 0
    audio_clips, visual_clips = [0, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7]
    pce = [-np.mean(np.log(np.array(t)[c])) for t, c in zip(true, (audio_clips, visual_clips), strict=True)]
    entropy = [
        -np.mean((p * np.log(p)).sum(1)[c]) for p, c in zip(probabilities, (audio_clips, visual_clips), strict=True)
    ]
    expected = float(step.losses.result.detach()) + 0.7 * (beta * pce[0] + gamma * pce[1])
    expected -= 0.05 * early * (gamma * entropy[0] + beta * entropy[1])
    assert pmr.objective(step).item() == pytest.approx(expected, rel=1e-5)


def test_a_class_without_a_prototype_is_never_the_answer_and_gradients_stay_finite() -> None:
    z = torch.zeros(2, 4, requires_grad=True)
    prototypes, seen = torch.zeros(3, 4), torch.tensor([True, True, False])
    logs = prototype_logs(z, prototypes, seen)
    assert logs.exp()[:, 2].tolist() == [0.0, 0.0]
    logs[:, 0].sum().backward()
    assert z.grad.isfinite().all()
