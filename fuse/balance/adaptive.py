"""Adaptive: each modality's objective weighs what it has still to learn, and its steps shrink as it begins to memorise.

For each modality m, T_m is the loss of its own answer on the training clips, H_m that on clips set apart, both smoothed over epochs
(x <- smoothing x + (1 - smoothing) new) and both in nats; a guess costs log C.

    lambda_m = lambda 2 H_m / (H_a + H_v)                      who generalises worse has the heavier objective; the mean stays lambda
    scale_m  = clip((log C - H_m) / (log C - T_m), floor, 1)   the share of what m has learnt that holds on clips it was not shown

scale_m is 1 as long as m learns nothing that does not generalise, and falls as its training loss runs away. It is a factor on the update of
m's parameters. Nothing is changed before the first epoch has ended.

*Source:* ours, for "independently adjust the objectives of each modality and adaptively control their optimization" (abstract):
the paper gives no formula. The two halves answer two known causes of imbalance: an objective that its easier modality satisfies
(relative loss, as in GradNorm, Chen et al., 2018), and modalities that overfit at different rates (G-Blending, Wang et al.,
2020), but read as levels, not as noisy differences. Smoothing .5 and floor .1 are untuned.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import RunConfig
from ..models.base import FusionModel
from .base import MODALITIES, Balance, Step, by_modality
from .g_blending import held_losses
from .means import MeanLosses


class Adaptive(Balance):
    """Buffers: smooth (2, 2), T and H of sound and sight; epochs: so far; weight, scale: (2,) of each modality."""

    smooth: Tensor
    epochs: Tensor
    weight: Tensor
    scale: Tensor

    def __init__(self, config: RunConfig, classes: int):
        super().__init__(config)
        self.smoothing, self.floor, self.guess = config.adaptive_smoothing, config.adaptive_floor, math.log(classes)
        self.means = MeanLosses()
        self.register_buffer("smooth", torch.full((2, 2), self.guess))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("weight", torch.ones(2))
        self.register_buffer("scale", torch.ones(2))

    def objective(self, step: Step) -> Tensor:
        self.means.add(step)
        total = step.losses.result
        for modality, weight in zip(MODALITIES, self.weight, strict=True):
            total = total + self.lambdas[modality] * weight * getattr(step.losses, modality)
        return total

    def scales(self, step: Step) -> Mapping[str, Tensor]:
        return by_modality(self.scale)

    @torch.no_grad()
    def end_epoch(self, epoch: Mapping[str, Any]) -> None:
        now = torch.stack([self.means.take()[1:], held_losses(epoch, self.smooth.device)[1:]])
        now = torch.where(now.isfinite(), now, self.smooth)
        keep = self.smoothing if self.epochs > 0 else 0.0
        self.smooth.copy_(keep * self.smooth + (1 - keep) * now)
        self.epochs += 1
        weight, scale = controls(self.smooth, self.guess, self.floor)
        self.weight.copy_(weight)
        self.scale.copy_(scale)

    def figures(self) -> dict[str, float]:
        return {f"weight_{m}": w for m, w in zip(MODALITIES, self.weight.tolist(), strict=True)}


def controls(losses: Tensor, guess: float, floor: float) -> tuple[Tensor, Tensor]:
    """Factors on lambda, and scales of the update, (2,) each.

    Args:
        losses: (2, 2) T and H of each modality.
        guess: the loss of a guess.
    """
    train, held = losses
    weight = 2 * held / held.sum().clamp(min=1e-12)
    learnt, holds = guess - train, guess - held
    scale = torch.where(learnt > 0, holds / learnt.clamp(min=1e-12), torch.ones_like(learnt)).clamp(floor, 1)
    return weight, scale


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return Adaptive(config, classes)
