"""Training that can be killed: after an epoch, everything that the next one depends on is on disk.

    <out>/.unfinished/<run>/state.safetensors

holds weights, moments, random states and the best weights so far, and in its metadata the history and where training stands: one
file, so that no kill can leave parts of different epochs; it is written beside and renamed. Whoever goes on from it gets the
very weights that an uninterrupted run would have. A file that can't be read counts as none.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .lockstep import Optimiser

FOLDER = ".unfinished"
NAME = "state.safetensors"
EVERY_S = 10.0  # a state is written after an epoch if the last one is older; less often than it costs


@dataclass
class Unfinished:
    """The place of one run's state.

    Attributes:
        path: its folder.
        every_s: see EVERY_S; 0: after every epoch.
    """

    path: Path
    every_s: float = EVERY_S
    written_s: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        return time.monotonic() - self.written_s >= self.every_s

    def write(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Replaces the state. Tensors of any device; the document is plain JSON."""
        self.path.mkdir(parents=True, exist_ok=True)
        # Copies: what several tasks share stands under the name of each, and safetensors takes no memory twice.
        plain = {n: v.detach().cpu().clone(memory_format=torch.contiguous_format) for n, v in tensors.items()}
        beside = self.path / f"{NAME}.new"
        save_file(plain, beside, {"document": json.dumps(document)})
        beside.replace(self.path / NAME)
        self.written_s = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last state that was written whole; None where there is none that can be read."""
        try:
            with safe_open(self.path / NAME, framework="pt") as file:
                document = json.loads(file.metadata()["document"])
                return {name: file.get_tensor(name) for name in file.keys()}, document  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None

    def document(self) -> dict[str, Any] | None:
        """That of `read`, without a look at the tensors."""
        try:
            with safe_open(self.path / NAME, framework="pt") as file:
                found = json.loads(file.metadata()["document"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, dict) else None

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `prefixed` put there."""
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def optimiser_tensors(optimiser: Optimiser) -> dict[str, Tensor]:
    """The moments and step counts of every parameter."""
    state = optimiser.state_dict()["state"]
    return {f"{i}/{name}": value for i, values in state.items() for name, value in values.items()}


def load_optimiser(optimiser: Optimiser, tensors: Mapping[str, Tensor]) -> None:
    """The reverse; the optimiser has the same parameters in the same groups."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def random_states(order: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """Of the generators that training draws from."""
    states = {"global": torch.get_rng_state(), "order": order.get_state()}
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Tensor], order: torch.Generator, device: torch.device) -> None:
    torch.set_rng_state(states["global"])
    order.set_state(states["order"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
