"""MMPareto: where a modality's own loss pulls its encoder against the multimodal one, a step is taken that harms neither.

For the parameters of each modality that both losses reach, with g of the multimodal loss and u of the modality's own:

    cos(g, u) >= 0   h = g + u
    cos(g, u) <  0   h = 2 (w g + (1 - w) u),  w in [0, 1] that makes ||w g + (1 - w) u|| least,  lifted to ||g + u|| where it is shorter

and the update is 1.5 times as large. All other parameters take the sum of all gradients.

*Source:* Wei and Hu (2024), "MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance", ICML; 1.5 is theirs.
Different here: the factor 1.5 is on the update, since AdamW divides a constant factor on the gradient out; norms are of the whole
encoder, where the public code takes each tensor's. A loss of the other modality that reaches an encoder (through BalanceMLA's
BRFF) counts as multimodal.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..config import RunConfig
from ..models.base import FusionModel
from .base import MODALITIES, Balance, Step

Gradients = Sequence[Tensor | None]
LARGEST_LIFT = 10.0  # where both gradients cancel, what is left of them is rounding (ours)


class MMPareto(Balance):
    """Buffers: conflicts (2,), steps: of this epoch."""

    conflicts: Tensor
    steps: Tensor

    def __init__(self, config: RunConfig):
        super().__init__(config)
        self.lift = config.mmpareto_lift
        self.register_buffer("conflicts", torch.zeros(2))
        self.register_buffer("steps", torch.zeros(()))

    def backward(self, step: Step) -> Tensor:
        """Three passes, each with gradients of its own: no loss sees what another one left."""
        named = step.losses._asdict()
        groups = step.model.parameter_groups()
        parameters = [p for group in groups.values() for p in group if p.requires_grad]
        losses = {name: loss for name, loss in named.items() if loss is not None and loss.requires_grad}
        passes: dict[str, Gradients] = {
            name: torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for name, loss in losses.items()
        }
        for i, parameter in enumerate(parameters):
            parameter.grad = added([gradients[i] for gradients in passes.values()])
        position = {id(p): i for i, p in enumerate(parameters)}
        for number, modality in enumerate(MODALITIES):
            if modality not in passes:
                continue
            own = passes[modality]
            others = [gradients for name, gradients in passes.items() if name != modality]
            both = [
                (p, multi, u)
                for p in groups.get(modality, ())
                if p.requires_grad
                and (u := own[position[id(p)]]) is not None
                and (multi := added([g[position[id(p)]] for g in others])) is not None
            ]
            if not both:
                continue
            weights, factor, against = combination([multi for _, multi, _ in both], [u for _, _, u in both])
            for parameter, multi, u in both:
                parameter.grad = factor * 2 * (weights[0] * multi + weights[1] * u)
            self.conflicts[number] += against
        self.steps += 1
        return torch.stack(list(losses.values())).sum().detach()

    def scales(self, step: Step) -> Mapping[str, Tensor]:
        return {modality: torch.full_like(self.steps, self.lift) for modality in MODALITIES}

    def figures(self) -> dict[str, float]:
        """The share of steps at which the two losses of an encoder pulled against each other."""
        shares = (self.conflicts / self.steps.clamp(min=1)).tolist()
        self.conflicts.zero_()
        self.steps.zero_()
        return {f"conflict_{m}": share for m, share in zip(MODALITIES, shares, strict=True)}


def added(gradients: Gradients) -> Tensor | None:
    """The sum of those that are there, as a tensor of its own; None where none is."""
    there = [g for g in gradients if g is not None]
    return torch.stack(there).sum(0) if there else None


def combination(multi: Sequence[Tensor], own: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """How two gradients of the same parameters are joined.

    Returns:
        weights (2,) of the multimodal and of the own gradient, which sum to one; the factor that lifts the joined one; 1.0 where
        the two are in conflict, else 0.0.
    """
    mm, mu, uu = dots(multi, multi), dots(multi, own), dots(own, own)
    against = mu < 0
    w = torch.where(against, ((uu - mu) / (mm - 2 * mu + uu).clamp(min=1e-30)).clamp(0, 1), torch.full_like(mm, 0.5))
    joined = 4 * (w.square() * mm + 2 * w * (1 - w) * mu + (1 - w).square() * uu)  # ||h||^2
    plain = mm + 2 * mu + uu
    factor = (plain.clamp(min=0) / joined.clamp(min=1e-30)).sqrt().clamp(1, LARGEST_LIFT)
    return torch.stack([w, 1 - w]), torch.where(against, factor, torch.ones_like(factor)), against.to(mm.dtype)


def dots(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """The inner product of two lists of tensors."""
    return torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum()


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return MMPareto(config)
