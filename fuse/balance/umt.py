"""UMT: each modality's features are drawn towards those of a teacher that learnt from this modality alone.

    L = L_model + weight * sum_m mean (z_m - t_m)^2        over the features of the clips that have the modality

*Source:* Du et al. (2023), "On Uni-Modal Feature Learning in Supervised Multi-Modal Learning", ICML. The teachers are frozen and
see what the model sees. Ours: weight 1, and where z is not as long as the teacher's, a linear map of z, trained with the model,
is compared.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...store.errors import UsageError
from ..config import RunConfig
from ..models.base import FusionModel, Steps
from .base import MODALITIES, Balance, Step
from .pmr import pooled
from .widths import pooled_widths, probe


class UMT(Balance):
    """Submodules: the teachers, and for each modality the map from z to what they give."""

    def __init__(self, config: RunConfig, teachers: Mapping[str, FusionModel], maps: Mapping[str, nn.Module]):
        super().__init__(config)
        self.weight = config.umt_weight
        self.teachers, self.maps = nn.ModuleDict(teachers), nn.ModuleDict(maps)
        self.teachers.eval().requires_grad_(False)

    def objective(self, step: Step) -> Tensor:
        total = super().objective(step)
        for modality in MODALITIES:
            z, there = pooled(step, modality)
            teacher = self.teachers[modality]
            with torch.no_grad():
                target = features_of(teacher, modality, getattr(step, modality))
            apart = (self.maps[modality](z) - target).square().mean(1)
            total = total + self.weight * (apart * there).sum() / there.sum().clamp(min=1)
        return total


def features_of(teacher: nn.Module, modality: str, steps: Steps) -> Tensor:
    """(b, d) z of a teacher."""
    output = teacher(*(steps if m == modality else None for m in MODALITIES))
    z: Tensor = getattr(output, f"pooled_{modality}")
    return z.float()


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`. Raises UsageError where a teacher is missing."""
    if missing := [m for m in MODALITIES if m not in teachers]:
        raise UsageError(
            f"balance {config.balance}: no teacher for {' and '.join(missing)}: expected a trained model of each modality"
        )
    widths = pooled_widths(model, config.balance)
    maps: dict[str, nn.Module] = {}
    for modality in MODALITIES:
        target = features_of(teachers[modality].eval(), modality, probe(model, modality)).shape[1]
        maps[modality] = nn.Identity() if target == widths[modality] else nn.Linear(widths[modality], target)
    return UMT(config, teachers, maps)
