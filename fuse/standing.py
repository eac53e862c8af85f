"""How far a training is: what the next epoch depends on, on its way to disk and back; see `unfinished.py`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..store.errors import BmlaError
from .config import RunConfig
from .lockstep import Optimiser
from .unfinished import Unfinished, below, optimiser_tensors, prefixed, random_states, set_random_states

Epoch = dict[str, Any]


class Diverged(BmlaError, ArithmeticError):
    """The loss is no number any more."""


@dataclass
class Standing:
    """How far a training is.

    Attributes:
        phase, epoch: the phase, and how many of its epochs are done.
        stale: epochs of this phase since a better one.
        best: the entry of the best epoch so far, and its weights.
    """

    phase: int = 0
    epoch: int = 0
    stale: int = 0
    history: list[Epoch] = field(default_factory=list)
    best: Epoch = field(default_factory=lambda: {"dev_accuracy": -1.0, "dev_loss": math.inf})
    weights: dict[str, Tensor] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """All but the weights, as plain JSON."""
        names = ("phase", "epoch", "stale", "history", "best")
        return {name: getattr(self, name) for name in names}


def rank(epoch: Epoch) -> tuple[float, float]:
    """The better epoch has the greater rank."""
    return epoch["dev_accuracy"], -epoch["dev_loss"]


def keep(
    unfinished: Unfinished,
    config: RunConfig,
    model: nn.Module,
    balance: nn.Module,
    optimiser: Optimiser,
    order: torch.Generator,
    device: torch.device,
    now: Standing,
) -> None:
    """Writes all that the next epoch depends on."""
    tensors = {
        **prefixed("model", model.state_dict()),
        **prefixed("balance", balance.state_dict()),
        **prefixed("optimiser", optimiser_tensors(optimiser)),
        **prefixed("random", random_states(order, device)),
        **prefixed("best", now.weights),
    }
    unfinished.write(tensors, {"torch": torch.__version__, "config": config.to_dict(), **now.document()})


def go_on(
    unfinished: Unfinished | None,
    model: nn.Module,
    balance: nn.Module,
    order: torch.Generator,
    device: torch.device,
    now: Standing,
) -> dict[str, Tensor]:
    """Puts a state that was kept back into everything but the optimiser; returns its tensors, empty where there is none.

    A state of another torch is not used: its weights would not be those of an uninterrupted run.
    """
    state = unfinished.read() if unfinished is not None else None
    if state is None or state[1].get("torch") != torch.__version__ or not state[1]["history"]:
        return {}
    tensors, document = state
    model.load_state_dict(below("model", tensors))
    balance.load_state_dict(below("balance", tensors))
    set_random_states(below("random", tensors), order, device)
    now.phase, now.epoch, now.stale = document["phase"], document["epoch"], document["stale"]
    now.history, now.best = document["history"], document["best"]
    now.weights = {name: value.to(device) for name, value in below("best", tensors).items()}
    return tensors


def diverged(
    config: RunConfig, tasks: Sequence[str], epoch: Epoch, unfinished: Unfinished | None, now: Standing
) -> Diverged:
    """Keeps the best weights so far, and says what happened: of several tasks, to all, since what one spoils is soon spoilt for all."""
    line = (
        f"{config.model}, seed {config.seed}: the loss is no number any more in epoch {epoch['epoch']} "
        f"(learning rate {epoch['lr']:g}, batches of {config.batch_size}): try a lower --lr"
    )
    if len(tasks) > 1:
        line = f"{' + '.join(tasks)}: {line}"
    if unfinished is None or not now.weights:
        return Diverged(line)
    unfinished.write(prefixed("best", now.weights), {"diverged": epoch["epoch"], **now.document()})
    return Diverged(f"{line}; the weights of epoch {now.best['epoch']} are kept in {unfinished.path}")
