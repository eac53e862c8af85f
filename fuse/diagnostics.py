"""What every run logs of each epoch: who learns how fast, and who leans on whom.

*Source:* the discrepancy rho is that of OGM-GE (Peng et al., 2022): the summed probability of the true class by sound alone over that by
sight alone. Sums stay on the device and are read once an epoch: a look at every step would wait.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from .balance.base import Step, true_class_scores
from .metrics import branch_accuracy, confusion, macro_f1, mean, own_class_alpha, uar
from .predictions import Predictions

LOSSES = ("result", "audio", "visual")


class Running:
    """Sums over the steps of one epoch."""

    def __init__(self, owners: Sequence[str], device: torch.device):
        self.owners = owners
        self.clips = self.steps = 0
        self.loss = torch.zeros((), device=device)
        self.losses = torch.zeros(len(LOSSES), device=device)
        self.has_losses = [False] * len(LOSSES)
        self.norms = torch.zeros(len(owners), device=device)
        self.scales = torch.zeros(len(owners), device=device)
        self.true = torch.zeros(2, device=device)

    @torch.no_grad()
    def add(self, step: Step, loss: Tensor, norms: Tensor, scales: Mapping[str, Tensor]) -> None:
        """Args: loss: what was minimised; norms: of the gradients, scales: of the updates, by group."""
        n = len(step.labels)
        self.clips, self.steps = self.clips + n, self.steps + 1
        self.loss += loss * n
        self.norms += norms
        self.scales += torch.stack([torch.as_tensor(scales.get(o, 1.0), device=norms.device) for o in self.owners])
        own = [getattr(step.losses, name) for name in LOSSES]
        self.has_losses = [value is not None for value in own]
        self.losses += torch.stack([torch.zeros_like(loss) if value is None else value.detach() for value in own]) * n
        if step.output.audio is not None and step.output.visual is not None:
            self.true += true_class_scores(step, (step.output.audio, step.output.visual))

    def figures(self) -> dict[str, Any]:
        """train_loss (what was minimised), train_loss_result, …_audio, …_visual, grad_norm_…, scale_…, rho."""
        per_step = {f"grad_norm_{o}": v / self.steps for o, v in zip(self.owners, self.norms.tolist(), strict=True)}
        per_step |= {f"scale_{o}": v / self.steps for o, v in zip(self.owners, self.scales.tolist(), strict=True)}
        losses = {
            f"train_loss_{name}": value / self.clips
            for name, value, has in zip(LOSSES, self.losses.tolist(), self.has_losses, strict=True)
            if has
        }
        audio, visual = self.true.tolist()
        return {
            "train_loss": float(self.loss) / self.clips,
            **losses,
            **per_step,
            "rho": audio / visual if audio > 0 and visual > 0 else None,
        }


def dev_figures(predictions: Predictions) -> dict[str, Any]:
    """What an epoch is judged by, and what is drawn as learning curves."""
    truth, predicted = predictions.labels, predictions.predicted
    alpha = own_class_alpha(predictions)
    known = ~np.isnan(alpha)
    classes = predictions.result.shape[1]
    counts = confusion(truth, predicted, classes)
    return {
        "dev_loss": negative_log(predictions.result, truth),
        "dev_accuracy": float((predicted == truth).mean()),
        "dev_macro_f1": macro_f1(counts),
        "dev_uar": uar(counts),
        **{f"dev_loss_{m}": branch_loss(predictions, m) for m in ("audio", "visual")},
        "dev_accuracy_audio": branch_accuracy(predictions, "audio"),
        "dev_accuracy_visual": branch_accuracy(predictions, "visual"),
        "alpha": mean(alpha[known]),
        "alpha_per_class": [mean(alpha[known & (truth == c)]) for c in range(classes)] if known.any() else None,
    }


def held_figures(predictions: Predictions) -> dict[str, float | None]:
    """Losses on clips that are set apart, for balance methods that judge by them: the model's, and each modality's own."""
    return {
        "held_loss": negative_log(predictions.result, predictions.labels),
        **{f"held_loss_{m}": branch_loss(predictions, m) for m in ("audio", "visual")},
    }


def negative_log(logs: np.ndarray, truth: np.ndarray) -> float:
    """Mean of -log p of the true class."""
    return float(-logs[np.arange(len(truth)), truth].mean(dtype=np.float64))


def branch_loss(predictions: Predictions, modality: str) -> float | None:
    """Of one modality's own answers, over the clips that have it."""
    logs, there = getattr(predictions, modality), getattr(predictions, f"{modality}_present")
    return None if logs is None or not there.any() else negative_log(logs[there], predictions.labels[there])


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Zero where nothing has a gradient."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return get_total_norm(gradients) if gradients else torch.zeros((), device=parameters[0].device)
