"""AGM: each modality is sped up or slowed down by how far its lead is from what it usually is.

    phi_a = (f(a, v) - f(0, v) + f(a, 0)) / 2          the share of a modality in the answer (Shapley value), for any fusion
    C_m   = CE(phi_m)                                  mean over the clips with both modalities
    r_m   = exp(C_other - C_m)                         its lead on this batch
    k_m   = exp(alpha min(mean r_m - r_m, 7))          mean r_m: over the steps before this one

*Source:* Li et al. (2023), "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation", ICCV. Sources differ in
the sign of C and in what is averaged; here, as in the paper's intent and most code, a modality that is further ahead than usual
is slowed. For n modalities the exponent is n / (n - 1) (mean C - C_m), which for two is C_other - C_m. Ours: k_m scales the
update (AdamW), f(0, v) is the model's answer where sound is missing, alpha is .2, and the first step, which has no mean yet, is
left alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import RunConfig
from ..models.base import FusionModel
from .base import Balance, Step, by_modality

LARGEST = 7.0  # keeps exp within bounds


class AGM(Balance):
    """Buffers: mean, (2,) running mean of r; steps: how many it is of."""

    mean: Tensor
    steps: Tensor

    def __init__(self, config: RunConfig):
        super().__init__(config)
        self.alpha = config.agm_alpha
        self.register_buffer("mean", torch.ones(2))
        self.register_buffer("steps", torch.zeros(()))

    @torch.no_grad()
    def scales(self, step: Step) -> Mapping[str, Tensor]:
        whole = step.output.result.float()
        audio_only, visual_only = (answer.float() for answer in step.alone())
        weight = step.both / step.both.sum().clamp(min=1)
        costs = [
            -(step.true(phi.log_softmax(-1)) * weight).sum()
            for phi in ((whole - visual_only + audio_only) / 2, (whole - audio_only + visual_only) / 2)
        ]
        lead = lead_of(torch.stack(costs))
        some = step.both.any()
        known = some & (self.steps > 0)
        k = torch.where(known, modulation(self.mean, lead, self.alpha), torch.ones_like(lead))
        self.steps += some
        self.mean += torch.where(some, (lead - self.mean) / self.steps.clamp(min=1), torch.zeros_like(lead))
        return by_modality(k)


def lead_of(costs: Tensor) -> Tensor:
    """r of each modality, (2,), from C of each."""
    return (costs.flip(0) - costs).exp()


def modulation(mean: Tensor, lead: Tensor, alpha: float) -> Tensor:
    """k of each modality, (2,)."""
    return (alpha * (mean - lead).clamp(max=LARGEST)).exp()


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return AGM(config)
