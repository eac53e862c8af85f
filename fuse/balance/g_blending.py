"""G-Blending: the losses are weighed by how much of what they teach generalises.

    w_k ~ dG_k / dO_k^2,  sum of w = 1,  k: the model's answer, sound's own, sight's own
    G: loss on clips that are set apart, dG how far it fell;  O: that loss minus the one on training clips, dO how far it rose

over a super-epoch of some epochs each, after which both are measured anew.

*Source:* Wang et al. (2020), "What Makes Training Multi-modal Classification Networks Hard?", CVPR (its online
form). Different here: both are read off the training itself, where the paper trains copies on one loss each; training losses
are means over the super-epoch's last epoch. The clips are part of the training split, never of dev. Ours: super-epochs of 2
epochs; a loss that did not fall has no weight, and if none fell the weights stay; all are 1 / 3 to begin with, and the first
epoch's end is the first measurement.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import RunConfig
from ..models.base import FusionModel
from .base import Balance, Step
from .means import HELD, LOSSES, MeanLosses

SMALLEST_RISE = 1e-2  # of O, in nats: below it the quotient is noise


class GBlending(Balance):
    """Buffers: weights (3,); before (2, 3): losses on training clips and on held ones when the super-epoch began; epochs: since
    then, -1 before the first."""

    weights: Tensor
    before: Tensor
    epochs: Tensor

    def __init__(self, config: RunConfig):
        super().__init__(config)
        self.length = config.gblend_epochs
        self.means = MeanLosses()
        self.register_buffer("weights", torch.full((3,), 1 / 3))
        self.register_buffer("before", torch.zeros(2, 3))
        self.register_buffer("epochs", torch.full((), -1, dtype=torch.int64))

    def objective(self, step: Step) -> Tensor:
        self.means.add(step)
        return sum(
            (w * own for w, own in zip(self.weights, step.losses, strict=True)), torch.zeros_like(self.weights[0])
        )

    @torch.no_grad()
    def end_epoch(self, epoch: Mapping[str, Any]) -> None:
        now = torch.stack([self.means.take(), held_losses(epoch, self.weights.device)])
        self.epochs += 1
        if int(self.epochs) % self.length == 0:
            if self.epochs > 0:
                self.weights.copy_(blend(self.before, now, self.weights))
            self.before.copy_(now)

    def figures(self) -> dict[str, float]:
        return {f"weight_{name}": w for name, w in zip(LOSSES, self.weights.tolist(), strict=True)}


def held_losses(epoch: Mapping[str, Any], device: torch.device) -> Tensor:
    """(3,) from an epoch's figures; NaN for a modality that none of the clips has."""
    return torch.tensor([float("nan") if epoch[n] is None else epoch[n] for n in HELD], device=device)


def blend(before: Tensor, now: Tensor, weights: Tensor) -> Tensor:
    """(3,) new weights.

    Args:
        before, now: (2, 3) losses on training clips, and on those set apart.
        weights: (3,) that stay where nothing can be told.
    """
    gained = (before[1] - now[1]).clamp(min=0)
    overfitted = ((now[1] - now[0]) - (before[1] - before[0])).abs().clamp(min=SMALLEST_RISE)
    raw = (gained / overfitted.square()).nan_to_num(0.0)
    return torch.where(raw.sum() > 0, raw / raw.sum().clamp(min=1e-30), weights)


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return GBlending(config)
