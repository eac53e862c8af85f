"""MLA: sound and sight are trained in turn on each batch, and what one does to the shared head leaves the other's answers alone.

    turn of m:   L = CE of m's own answer;   the update D of the head's weights W becomes D P_m sqrt(d) / ||P_m||
    then, for the other modality o:   P_o <- P_o - q h^T P_o,   q = P_o h / (alpha + h^T P_o h),   h: mean z_m of the batch

P_m (d, d) begins as the identity; it keeps what the other modality's features do not use, so that D P_m h ~ 0 for each h it has seen.

*Source:* Zhang et al. (2024), "Multimodal Representation Learning by Alternating Unimodal Adaptation", CVPR (recursive
least squares). Its answer at test time, weighed by entropies, is the model `shared-head`. Different here: the *update* is
projected, since AdamW turns a projected gradient back; the public code divides by the outer product of q and h where the formula
has a number, and shares one P. As there, P's size is normalised (it only shrinks). Ours: alpha stays .1, where the public code
goes from .1 to .01 within an epoch; the bias is not projected.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...store.errors import UsageError
from ..config import RunConfig
from ..models.base import FusionModel
from .base import MODALITIES, Balance, Step
from .pmr import pooled


class MLA(Balance):
    """Buffers: projection_m (d, d) of each modality; turn: 0 for sound, 1 for sight."""

    turns = 2
    turn: Tensor

    def __init__(self, config: RunConfig, width: int):
        super().__init__(config)
        self.alpha = config.mla_alpha
        for modality in MODALITIES:
            self.register_buffer(f"projection_{modality}", torch.eye(width))
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))
        self.register_buffer("weight_before", torch.zeros(0), persistent=False)

    def objective(self, step: Step) -> Tensor:
        own: Tensor | None = getattr(step.losses, MODALITIES[int(self.turn)])
        assert own is not None  # seen to when the method was built
        return own

    def backward(self, step: Step) -> Tensor:
        self.weight_before = shared_head(step.model).weight.detach().clone()
        return super().backward(step)

    @torch.no_grad()
    def updated(self, step: Step) -> None:
        turn = int(self.turn)
        weight = shared_head(step.model).weight
        projection = self.get_buffer(f"projection_{MODALITIES[turn]}")
        change = (weight - self.weight_before) @ projection
        weight.copy_(self.weight_before + change * (len(projection) ** 0.5 / projection.norm()))
        z, there = pooled(step, MODALITIES[turn])
        mean = (z * there[:, None]).sum(0) / there.sum().clamp(min=1)  # zero where no clip has it: nothing is learnt
        other = self.get_buffer(f"projection_{MODALITIES[1 - turn]}")
        other.copy_(narrowed(other, mean, self.alpha))
        self.turn.fill_(1 - turn)


def narrowed(projection: Tensor, mean: Tensor, alpha: float) -> Tensor:
    """P after it has seen one more h: a step of recursive least squares."""
    along = projection @ mean
    return projection - torch.outer(along, along) / (alpha + mean @ along)


def shared_head(model: FusionModel) -> nn.Linear:
    """Raises UsageError where the model has none."""
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear):
        raise UsageError("balance mla: the model has no linear head that both modalities share (`head`)")
    return head


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return MLA(config, shared_head(model).in_features)
