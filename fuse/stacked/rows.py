"""The numbers of E runs as the rows of a few matrices, and AdamW over all of them at once.

    values, gradients, first, second      (E, P); a layer's stacked parameter, and each model's own, are views into `values`
    rates, decay, clip                    of each run (and owner), so that every row is its own optimisation

*Source:* Loshchilov and Hutter (2019); the order of operations is that of torch's AdamW.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..lockstep import Groups
from .layers import Slot

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # torch's defaults, which a run alone has
CLIP_EPSILON = 1e-6  # of torch's clip_grads_with_norm_


class RowOptimiser:
    """One run's share: what `lockstep.Optimiser` asks for. Its state has the form of torch's, so that either goes on from the other's.

    Attributes:
        moments: by parameter (its id): views into its row of `first` and `second`.
        taken: steps that it has taken.
        touched: parameters (ids) that gradients reach; the others are left alone, as torch does.
    """

    def __init__(self, groups: Groups, weight_decay: float):
        self.parameters = [p for group in groups.values() for p in group]
        self.weight_decay = weight_decay
        self.moments: dict[int, tuple[Tensor, Tensor]] = {}
        self.taken = 0
        self.touched: set[int] = set()

    def zero_grad(self) -> None:
        """Nothing: the stack takes gradients out of its layers by itself."""

    def state_dict(self) -> dict[str, Any]:
        state = {
            i: {"step": torch.tensor(float(self.taken)), "exp_avg": first, "exp_avg_sq": second}
            for i, p in enumerate(self.parameters)
            if id(p) in self.touched
            for first, second in [self.moments[id(p)]]
        }
        return {"state": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Before the rows are made, which take it over."""
        for i, values in state_dict["state"].items():
            name = id(self.parameters[i])
            self.moments[name] = values["exp_avg"], values["exp_avg_sq"]
            self.touched.add(name)
            self.taken = int(values["step"])


class Rows:
    """Takes over the parameters of E models, and the moments that their optimisers hold."""

    def __init__(self, owned: Mapping[str, Sequence[Slot]], optimisers: Sequence[RowOptimiser]):
        slots = [slot for group in owned.values() for slot in group]
        runs = len(optimisers)
        sizes = [torch.Size(slot.shape).numel() for slot in slots]
        like = slots[0].parts[0]
        self.optimisers = list(optimisers)
        self.values, self.gradients, self.first, self.second = (
            torch.zeros(runs, sum(sizes), dtype=like.dtype, device=like.device) for _ in range(4)
        )
        self.columns: dict[str, slice] = {}
        self.slots: list[tuple[Slot, slice]] = []
        begin = 0
        numbered = iter(sizes)
        for owner, group in owned.items():
            start = begin
            for slot in group:
                end = begin + next(numbered)
                self.slots.append((slot, slice(begin, end)))
                begin = end
            self.columns[owner] = slice(start, begin)
        self.decays: Tensor | None = None  # (P,) zero for parameters without gradients; None: not known yet
        for slot, columns in self.slots:
            self.adopt(slot, columns)
        self.taken = torch.tensor([o.taken for o in optimisers], dtype=torch.float64, device=like.device)
        self.weight_decay = torch.tensor([[o.weight_decay] for o in optimisers], device=like.device)

    def adopt(self, slot: Slot, columns: slice) -> None:
        grids = [m[:, columns].view(-1, *slot.shape) for m in (self.values, self.first, self.second)]
        for e, (part, place, optimiser) in enumerate(zip(slot.parts, slot.places, self.optimisers, strict=True)):
            value, first, second = (grid[e][place] for grid in grids)
            value.copy_(part.data)
            part.data = value
            if id(part) in optimiser.moments:
                for new, old in zip((first, second), optimiser.moments[id(part)], strict=True):
                    new.copy_(old)
            optimiser.moments[id(part)] = first, second
        slot.value = grids[0].detach().requires_grad_()

    @torch.no_grad()
    def collect(self) -> None:
        """Moves the gradients of the layers' parameters to the rows, of which each model's `.grad` are views."""
        reached = [slot.value.grad is not None for slot, _ in self.slots]
        for slot, columns in self.slots:
            if slot.value.grad is not None:
                self.gradients[:, columns].view(-1, *slot.shape).copy_(slot.value.grad)
                slot.value.grad = None
        if self.decays is None:
            self.show_gradients(reached)
        assert reached == self.reached, "which parameters have gradients must not change between steps"

    def show_gradients(self, reached: list[bool]) -> None:
        self.reached, self.decays = reached, torch.ones_like(self.values[0])
        for (slot, columns), has in zip(self.slots, reached, strict=True):
            grid = self.gradients[:, columns].view(-1, *slot.shape)
            if not has:
                self.decays[columns] = 0.0
            for e, (part, place) in enumerate(zip(slot.parts, slot.places, strict=True)):
                part.grad = grid[e][place] if has else None
                if has:
                    self.optimisers[e].touched.add(id(part))

    def taken_more(self, steps: int) -> None:
        """Tells each optimiser of the steps that it has taken."""
        for optimiser in self.optimisers:
            optimiser.taken += steps

    @torch.no_grad()
    def update(self, rates: Mapping[str, Tensor], clip: Tensor) -> dict[str, Tensor]:
        """Clips every run's gradient, and takes a step.

        Args:
            rates: (E,) by owner.
            clip: (E,), the largest norm of each.

        Returns:
            (E,) by owner: the norms before they were clipped.
        """
        assert self.decays is not None
        norms = {owner: self.gradients[:, columns].norm(dim=1) for owner, columns in self.columns.items()}
        total = torch.stack(list(norms.values())).square().sum(0).sqrt()
        self.gradients *= (clip / (total + CLIP_EPSILON)).clamp(max=1.0)[:, None]
        self.first.lerp_(self.gradients, 1 - BETA_1)
        self.second.mul_(BETA_2).addcmul_(self.gradients, self.gradients, value=1 - BETA_2)
        self.taken += 1
        first_share = (1 - BETA_1**self.taken)[:, None]
        second_share = (1 - BETA_2**self.taken).sqrt()[:, None].to(total.dtype)
        for owner, columns in self.columns.items():
            rate, values = rates[owner][:, None], self.values[:, columns]
            values.mul_(1 - rate * self.weight_decay * self.decays[columns])
            size = self.second[:, columns].sqrt().div_(second_share).add_(EPSILON)
            values.sub_(self.first[:, columns] / size * (rate / first_share).to(total.dtype))
        return norms
