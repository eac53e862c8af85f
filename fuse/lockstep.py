"""What a training asks of whoever drives it, so that one epoch loop serves a run alone and many runs in a stack.

The loop of `epochs.py` is a generator: where numbers are to be crunched it yields one of the requests below and goes on with the answer.

    Optimise   ->  an optimiser of these parameters, at the start of a phase
    AllSteps   ->  the sums of an epoch whose steps were all taken; or None: they are asked for one by one, with the next three
    Forward    ->  the model's answers about a batch
    Backward   ->  None; gradients that have reached the answers are in the model's parameters afterwards
    Update     ->  the norms of the gradients, (groups,); they are clipped, and the parameters have taken a step
    Ask        ->  the model's Predictions about some clips, between epochs and when training is over; see `predictions.py`

`alone` does each for the one model at once; `stacked/stack.py` waits until all runs ask, and does it for all of them in one go. (Ask is
the only one that may differ from run to run, or that only some may wait for: such questions are answered one by one.)
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from .data import Draw
from .diagnostics import gradient_norm
from .learner import Learner
from .models.base import FusionModel, Output, Steps
from .predictions import Ask

Groups = Mapping[str, list[nn.Parameter]]
Result = TypeVar("Result")
P = ParamSpec("P")


class Optimiser(Protocol):
    """AdamW of one run's parameters: torch's, or a row of a stack."""

    def zero_grad(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Optimise:
    """Attributes:
    groups: the parameters of each owner ("audio", "visual", "shared", "balance").
    rates: the learning rate of each.
    weight_decay: of all.
    """

    groups: Groups
    rates: Mapping[str, float]
    weight_decay: float

    def alone(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [
                {"params": group, "lr": torch.tensor(self.rates[owner], device=group[0].device)}
                for owner, group in self.groups.items()
            ],
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(frozen=True)
class AllSteps:
    """Attributes:
    draws: the batches of the epoch, each a step.
    rates: by group, the learning rate of each step.
    number: how many epochs there were before.
    """

    learner: Learner
    draws: Sequence[Draw]
    optimiser: Optimiser
    groups: Groups
    rates: Mapping[str, Sequence[float]]
    number: int

    def alone(self) -> None:
        """A run alone goes step by step, on a GPU too: its dropout is then that of its seed, whatever trains beside it."""
        return None


@dataclass(frozen=True)
class Forward:
    """Attributes:
    bf16: computed in bfloat16 where that is safe; weights stay float32.
    """

    model: FusionModel
    audio: Steps | None
    visual: Steps | None
    bf16: bool

    @property
    def steps(self) -> dict[str, Steps]:
        """By modality, of those that the model takes."""
        return {m: s for m, s in (("audio", self.audio), ("visual", self.visual)) if s is not None}

    def alone(self) -> Output:
        place = next(iter(self.steps.values())).mask.device
        with torch.autocast(place.type, torch.bfloat16, enabled=self.bf16):
            output: Output = self.model(self.audio, self.visual)
        return output


@dataclass(frozen=True)
class Backward:
    """Alone, `Balance.backward` has gone all the way to the parameters."""

    def alone(self) -> None:
        return None


@dataclass(frozen=True)
class Update:
    """Attributes:
    clip_norm: the norm of the gradient of all groups together is clipped to this.
    rates: the learning rate of each group at this step, scalars.
    """

    optimiser: Optimiser
    groups: Groups
    clip_norm: float
    rates: Mapping[str, Tensor]

    def alone(self) -> Tensor:
        assert isinstance(self.optimiser, torch.optim.Optimizer)
        norms = torch.stack([gradient_norm(group) for group in self.groups.values()])
        parameters = [p for group in self.groups.values() for p in group]
        clip_grads_with_norm_(parameters, self.clip_norm, norms.square().sum().sqrt())
        for group, owner in zip(self.optimiser.param_groups, self.groups, strict=True):
            group["lr"].copy_(self.rates[owner])
        self.optimiser.step()
        return norms


Request = Optimise | AllSteps | Forward | Backward | Update | Ask
Training = Generator[Request, Any, Result]


def alone(training: Training[Result]) -> Result:
    """Drives one training to its end, and returns what it returns."""
    answer: Any = None
    try:
        while True:
            try:
                request = training.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            answer = request.alone()
    finally:  # whatever failed between two requests, torch's generators are put back at once
        training.close()


def driven(begin: Callable[P, Training[Result]]) -> Callable[P, Result]:
    """The same function, which drives what it begins by `alone`."""

    @wraps(begin)
    def whole(*args: P.args, **kwargs: P.kwargs) -> Result:
        return alone(begin(*args, **kwargs))

    return whole
