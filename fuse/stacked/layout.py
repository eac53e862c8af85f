"""How the batches of E runs lie in one, and from where each run draws its random numbers.

Shape legend, for all of `stacked/`: E runs; B, T the clips and steps of the largest batch and the longest clip among theirs; b_e, t_e
those of run e; P parameters of a run. Batches are folded, (E B, T, …), run after run: what works on clips one by one needs no change.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models.base import Steps


class Draws:
    """One run's share of torch's global generators: their states while this run is not at work.

    Attributes:
        here: the generator of the run's device.
    """

    def __init__(self, device: torch.device):
        self.cpu = torch.Generator()
        self.cpu.set_state(torch.get_rng_state())
        self.here = self.cpu
        if device.type == "cuda":
            self.here = torch.Generator(device)
            self.here.set_state(torch.cuda.get_rng_state(device))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, torch's global generators are this run's; afterwards, they are as they were."""
        gpu = self.here.device if self.here is not self.cpu else None
        with torch.random.fork_rng([] if gpu is None else [gpu]):
            torch.set_rng_state(self.cpu.get_state())
            if gpu is not None:
                torch.cuda.set_rng_state(self.here.get_state(), gpu)
            try:
                yield
            finally:
                self.cpu.set_state(torch.get_rng_state())
                if gpu is not None:
                    self.here.set_state(torch.cuda.get_rng_state(gpu))


@dataclass
class Layout:
    """Shared by all layers of a stack, and set anew for each batch.

    Attributes:
        generators: of each run, for its dropout masks.
        joint: where all masks are drawn from instead, in one go; None: from each run's own.
        clips: b_e of each run.
        steps: t_e of each run, by what a layer works on: "audio", "visual", or "shared".
    """

    generators: Sequence[torch.Generator]
    joint: torch.Generator | None = None
    clips: Sequence[int] = ()
    steps: dict[str, Sequence[int]] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        return len(self.generators)

    @property
    def largest(self) -> int:
        """B."""
        return max(self.clips)

    def unfold(self, x: Tensor) -> Tensor:
        """(E B, …) -> (E, B, …)."""
        return x.view(self.runs, -1, *x.shape[1:])


def fold(parts: Sequence[Steps]) -> Steps:
    """The batches of E runs as one; what is added to the smaller ones is not valid.

    Args:
        parts: (b_e, t_e, …) of each run.

    Returns:
        (E B, T, …).
    """
    clips, steps = (max(p.mask.shape[i] for p in parts) for i in (0, 1))
    like = max((p.values for p in parts), key=lambda v: v.dtype.itemsize)
    values = like.new_zeros(len(parts), clips, steps, *like.shape[2:])
    mask = torch.zeros(len(parts), clips, steps, dtype=torch.bool, device=like.device)
    for e, part in enumerate(parts):
        b, t = part.mask.shape
        values[e, :b, :t], mask[e, :b, :t] = part.values, part.mask
    return Steps(values.flatten(0, 1), mask.flatten(0, 1))
