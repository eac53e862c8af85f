"""OGM and OGM-GE: the modality that is ahead on a batch is slowed down.

    rho_a = sum p_a / sum p_v  (p_m: probability of the true class by modality m alone),   rho_v = 1 / rho_a
    k_m = 1 - tanh(alpha rho_m) where rho_m > 1, else 1

*Source:* Peng et al. (2022), "Balanced Multimodal Learning via On-the-fly Gradient Modulation", CVPR; alpha .1 is what
it uses on VGGSound. Different here: k_m scales the *update* of every parameter of the modality (AdamW would divide a scaled
gradient out again; the public code scales gradients, and of convolutions only). GE adds noise N(0, std(g)^2) to the gradient g of
each of these parameters.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import RunConfig
from ..models.base import FusionModel
from .base import MODALITIES, Balance, Step, by_modality, discrepancy, true_class_scores


class OGM(Balance):
    """Args of init: noise: with generalisation enhancement (GE)."""

    def __init__(self, config: RunConfig, noise: bool):
        super().__init__(config)
        self.alpha, self.noise = config.ogm_alpha, noise

    def gradients(self, step: Step) -> None:
        if self.noise:
            add_noise(step.model)

    def scales(self, step: Step) -> Mapping[str, Tensor]:
        rho = discrepancy(true_class_scores(step, step.unimodal()))
        return by_modality(modulation(rho, self.alpha))


def modulation(rho: Tensor, alpha: float) -> Tensor:
    """k of each modality, (2,)."""
    return torch.where(rho > 1, 1 - torch.tanh(alpha * rho), torch.ones_like(rho))


def add_noise(model: FusionModel) -> None:
    """To the gradients of the modalities' own parameters, of each one's own size; from torch's global generator."""
    groups = model.parameter_groups()
    for parameter in (p for modality in MODALITIES for p in groups.get(modality, ())):
        if parameter.grad is not None:
            parameter.grad.add_(torch.randn_like(parameter.grad) * parameter.grad.std(correction=0))


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return OGM(config, noise=config.balance == "ogm-ge")
