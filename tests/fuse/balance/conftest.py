"""A late-fusion model small enough to follow by hand, and batches in which some clips lack a modality."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmla.fuse.balance.base import Balance, Step
from bmla.fuse.models.base import FusionModel, Input, Output, Steps

CLASSES, WIDTH = 3, 4
LENGTHS = {"audio": 5, "visual": 6}


class Late(FusionModel):
    """z_m = linear of the mean over time; one head on both, or one for either.

    The modalities' answers are the halves of the head on both, unless they have heads of their own.
    """

    def __init__(self, shared: bool = False, answers: bool = True, own: bool = False):
        super().__init__()
        self.inputs = {m: Input(length, 25.0) for m, length in LENGTHS.items()}
        self.audio, self.visual = (nn.Linear(LENGTHS[m], WIDTH, bias=False) for m in ("audio", "visual"))
        self.head = nn.Linear(WIDTH if shared else 2 * WIDTH, CLASSES)
        self.shared, self.answers, self.own = shared, answers, own
        if own:
            self.audio_head, self.visual_head = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        z = [self.pool("audio", audio), self.pool("visual", visual)]
        if self.shared:
            logs = [self.head(each).log_softmax(1) for each in z]
            return Output((logs[0] + logs[1]).detach().log_softmax(1), *logs, None, *z)
        parts = [each @ w.T + self.head.bias / 2 for each, w in zip(z, self.head.weight.chunk(2, 1), strict=True)]
        result = (parts[0] + parts[1]).log_softmax(1)
        if self.own:
            parts = [self.audio_head(z[0]), self.visual_head(z[1])]
        answers = [p.log_softmax(1) for p in parts] if self.answers else [None, None]
        return Output(result, *answers, None, *z)

    def pool(self, modality: str, steps: Steps | None) -> Tensor:
        assert steps is not None
        values = steps.values.masked_fill(~steps.mask[..., None], 0)
        mean = values.sum(1) / steps.mask.sum(1, keepdim=True).clamp(min=1)
        return self.get_submodule(modality)(mean)

    def mean_of(self, modality: str) -> Tensor:
        return torch.zeros(LENGTHS[modality])


@pytest.fixture
def late() -> Callable[..., Late]:
    """Seeded weights."""

    def make(seed: int = 0, **options: bool) -> Late:
        torch.manual_seed(seed)
        return Late(**options)

    return make


@pytest.fixture
def batch() -> Callable[..., tuple[Steps, Steps, Tensor]]:
    """Audio, visual and labels; clip 0 lacks sight and clip 1 sound, unless all clips have both or none has."""

    def make(clips: int = 8, seed: int = 0, whole: bool = False, none: bool = False) -> tuple[Steps, Steps, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        values = [torch.randn(clips, 3, length, generator=generator) for length in LENGTHS.values()]
        masks = [torch.ones(clips, 3, dtype=torch.bool) for _ in values]
        if not whole:
            masks[1][0] = masks[0][1] = False
        if none:
            masks[1][:] = False
            masks[0][:] = True
        audio, visual = (Steps(v, m) for v, m in zip(values, masks, strict=True))
        return audio, visual, torch.randint(CLASSES, (clips,), generator=generator)

    return make


def step_of(model: FusionModel, batch: tuple[Steps, Steps, Tensor], balance: Balance | None = None) -> Step:
    """What the epoch loop makes of a batch."""
    audio, visual, labels = batch
    if balance is not None:
        audio, visual = balance.inputs(audio, visual)
    return Step(model, audio, visual, labels, model(audio, visual))


def one_step(model: FusionModel, balance: Balance, optimiser: torch.optim.Optimizer, batch: Any) -> Step:
    """As the epoch loop does it, without clipping."""
    step = step_of(model, batch, balance)
    optimiser.zero_grad()
    balance.backward(step)
    balance.gradients(step)
    scales = balance.scales(step)
    for group in optimiser.param_groups:
        group["lr"] = 0.01 * float(scales.get(group["owner"], 1.0))
    optimiser.step()
    balance.updated(step)
    return step


def adamw(model: FusionModel, balance: Balance | None = None) -> torch.optim.Optimizer:
    groups = dict(model.parameter_groups())
    if balance is not None and (own := [p for p in balance.parameters() if p.requires_grad]):
        groups["balance"] = own
    return torch.optim.AdamW([{"params": p, "owner": owner} for owner, p in groups.items()], lr=0.01)


@pytest.fixture
def tools() -> SimpleNamespace:
    return SimpleNamespace(step_of=step_of, one_step=one_step, adamw=adamw, classes=CLASSES, width=WIDTH)
