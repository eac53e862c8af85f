"""PMR: the weaker modality is also taught by class prototypes, the stronger one is kept from being sure too early.

    c_y    mean z of the class's clips, by modality;                            c <- momentum c + (1 - momentum) (this epoch's mean)
    P_m    = softmax(-||z_m - c||) over classes;                                PCE_m = -log P_m of the true class
    rho    = sum P_a / sum P_v of the true class over the clips with both;      beta = clip(1 / rho - 1, 0, 1), gamma = clip(rho - 1, 0, 1)
    L      = L_model + alpha (beta PCE_a + gamma PCE_v)  - mu (gamma H(P_a) + beta H(P_v)), the last in the first epochs alone (PER)

*Source:* Fan et al. (2023), "PMR: Prototypical Modal Rebalance for Multimodal Learning", CVPR. momentum .2 and alpha 1 are those
of the public code (which weighs by 0 or 1 instead of beta and gamma, and takes prototypes of one data set from its validation
split). Ours: prototypes are means of z as it was while the epoch trained, which costs no further pass; mu .01 and 10 epochs of
PER. Before the first epoch ends there are none.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import RunConfig
from ..models.base import FusionModel, Steps
from .base import MODALITIES, Balance, Step, discrepancy
from .widths import pooled_widths

NEVER = -1e9  # the logit of a class without a prototype; finite, so that gradients are


class PMR(Balance):
    """Buffers, for each modality m: prototype_m (c, d_m), seen_m (c,) bool: there is one; sum_m, count_m: of this epoch; epochs: so far."""

    epochs: Tensor

    def __init__(self, config: RunConfig, widths: Mapping[str, int], classes: int):
        super().__init__(config)
        self.alpha, self.momentum = config.pmr_alpha, config.pmr_momentum
        self.entropy, self.entropy_epochs = config.pmr_entropy, config.pmr_entropy_epochs
        for modality in MODALITIES:
            self.register_buffer(f"prototype_{modality}", torch.zeros(classes, widths[modality]))
            self.register_buffer(f"seen_{modality}", torch.zeros(classes, dtype=torch.bool))
            self.register_buffer(f"sum_{modality}", torch.zeros(classes, widths[modality]))
            self.register_buffer(f"count_{modality}", torch.zeros(classes))
        self.register_buffer("epochs", torch.zeros(()))

    def objective(self, step: Step) -> Tensor:
        own, entropies, true = [], [], []
        for modality in MODALITIES:
            z, there = pooled(step, modality)
            seen = self.get_buffer(f"seen_{modality}")
            weight = there
            for labels, share in step.truths:
                self.collect(modality, z, there * share, labels)
                weight = weight & (seen[labels] | (share == 0))
            logs = prototype_logs(z, self.get_buffer(f"prototype_{modality}"), seen)
            own.append(mean_over(weight, -step.true(logs)))
            entropies.append(mean_over(weight, -(logs.exp() * logs).sum(1)))
            true.append(step.true(logs.detach().exp()) * weight)
        known = (true[0] > 0) & (true[1] > 0) & step.both
        rho = discrepancy(torch.stack([(p * known).sum() for p in true]))[0]
        beta, gamma = (1 / rho.clamp(min=1e-6) - 1).clamp(0, 1), (rho - 1).clamp(0, 1)
        early = self.epochs < self.entropy_epochs
        total = super().objective(step) + self.alpha * (beta * own[0] + gamma * own[1])
        return total - self.entropy * early * (gamma * entropies[0] + beta * entropies[1])

    @torch.no_grad()
    def collect(self, modality: str, z: Tensor, weight: Tensor, labels: Tensor) -> None:
        """Adds a batch to the means of this epoch, each clip with its weight, (b,)."""
        self.get_buffer(f"sum_{modality}").index_add_(0, labels, z.detach() * weight[:, None])
        self.get_buffer(f"count_{modality}").index_add_(0, labels, weight)

    @torch.no_grad()
    def end_epoch(self, epoch: Mapping[str, Any]) -> None:
        for modality in MODALITIES:
            prototype, seen, total, count = (
                self.get_buffer(f"{name}_{modality}") for name in ("prototype", "seen", "sum", "count")
            )
            current = total / count[:, None].clamp(min=1)
            moved = torch.where(seen[:, None], self.momentum * prototype + (1 - self.momentum) * current, current)
            prototype.copy_(torch.where(count[:, None] > 0, moved, prototype))
            seen |= count > 0
            total.zero_()
            count.zero_()
        self.epochs += 1


def pooled(step: Step, modality: str) -> tuple[Tensor, Tensor]:
    """z of a modality, (b, d), and which clips have it, (b,) bool."""
    z: Tensor | None = getattr(step.output, f"pooled_{modality}")
    steps: Steps | None = getattr(step, modality)
    assert z is not None  # seen to when the method was built
    assert steps is not None
    return z.float(), steps.present


def prototype_logs(z: Tensor, prototypes: Tensor, seen: Tensor) -> Tensor:
    """(b, c) log-probabilities: softmax over the classes that have a prototype of minus the distance to it."""
    squares = (z[:, None] - prototypes).square().sum(-1)
    distance = squares.clamp(min=1e-12).sqrt()  # the root has no gradient at zero
    return torch.log_softmax((-distance).masked_fill(~seen, NEVER), 1)


def mean_over(clips: Tensor, values: Tensor) -> Tensor:
    """Of the values of some clips, (b,) bool; zero where there is none."""
    return torch.where(clips, values, torch.zeros_like(values)).sum() / clips.sum().clamp(min=1)


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return PMR(config, pooled_widths(model, config.balance), classes)
