"""The layers that hold numbers or draw some, each made of the same layer of E models.

*Source:* the arithmetic is that of torch's layers; here it is a batched matrix product, (E, B T, in) times (E, in, out).

Where the ratio gives the runs layers of different size, all are as large as the largest. What is added is zero and stays so: a unit
that nothing reads has no gradient, and neither has a weight that reads zeros.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.base import Standardise, Steps
from ..models.convolution import Depthwise
from ..models.decision import ABSENT, Decision
from ..models.heads import Cosine
from ..models.joint import LinearHead
from ..models.reliability import Reliability
from .layout import Layout

Place = tuple[slice, ...]


class Slot:
    """One parameter of E models.

    Attributes:
        parts: the models' own; made views into `value` by `rows.Rows`.
        places: where each lies in its row of `value`.
        value: (E, …), as large as the largest.
    """

    value: Tensor

    def __init__(self, parts: Sequence[Tensor], starts: Sequence[int] | None = None):
        """Args: starts: the first row of each part within the shape; None: 0."""
        begin = starts or [0] * len(parts)
        self.parts = list(parts)
        self.places: list[Place] = [
            (slice(first, first + p.shape[0]), *(slice(0, n) for n in p.shape[1:])) if p.ndim else ()
            for p, first in zip(parts, begin, strict=True)
        ]
        self.shape = tuple(max(place[i].stop for place in self.places) for i in range(parts[0].ndim))

    def widened(self, shape: Sequence[int]) -> "Slot":
        """The same in a larger shape."""
        self.shape = tuple(shape)
        return self


class StackedLinear(nn.Module):
    """Args of init: starts: the first unit of each run's part among those of the stack."""

    def __init__(self, parts: Sequence[nn.Linear], layout: Layout, starts: Sequence[int] | None = None):
        super().__init__()
        self.layout = layout
        self.weight = Slot([p.weight for p in parts], starts)
        self.bias = None if parts[0].bias is None else Slot([p.bias for p in parts], starts)
        self.slots = [self.weight] + ([self.bias] if self.bias else [])

    def forward(self, x: Tensor) -> Tensor:
        """(E B, …, in) -> (E B, …, out)."""
        weight = self.weight.value
        grid = x.reshape(self.layout.runs, -1, x.shape[-1])
        bias = None if self.bias is None else self.bias.value
        return batched(grid, weight, bias).view(*x.shape[:-1], weight.shape[1])


def batched(grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(E, n, in), (E, out, in), (E, out) -> (E, n, out)."""
    if bias is None:
        return torch.bmm(grid, weight.transpose(1, 2))
    return torch.baddbmm(bias[:, None], grid, weight.transpose(1, 2))


class StackedCosine(StackedLinear):
    """Of `heads.py`."""

    def __init__(self, parts: Sequence[Cosine], layout: Layout):
        super().__init__(parts, layout)
        self.scale = parts[0].scale

    def forward(self, z: Tensor) -> Tensor:
        """(E B, d) -> (E B, c)."""
        grid, weight = self.layout.unfold(F.normalize(z, dim=-1)), F.normalize(self.weight.value, dim=-1)
        return self.scale * batched(grid, weight, None).flatten(0, 1)


class StackedNorm(nn.Module):
    def __init__(self, parts: Sequence[nn.LayerNorm], layout: Layout):
        super().__init__()
        self.layout, self.eps = layout, parts[0].eps
        self.weight, self.bias = Slot([p.weight for p in parts]), Slot([p.bias for p in parts])
        self.slots = [self.weight, self.bias]

    def forward(self, x: Tensor) -> Tensor:
        """(E B, …, d), normalised over the last axis."""
        even = F.layer_norm(x, x.shape[-1:], eps=self.eps).view(self.layout.runs, -1, x.shape[-1])
        return torch.addcmul(self.bias.value[:, None], even, self.weight.value[:, None]).view_as(x)


class StackedDepthwise(nn.Module):
    """Of `convolution.py`: all features of all runs are channels of one convolution."""

    def __init__(self, parts: Sequence[Depthwise], layout: Layout):
        super().__init__()
        self.layout, self.padding = layout, parts[0].padding
        biases = [p.bias for p in parts]
        assert biases[0] is not None
        self.weight, self.bias = Slot([p.weight for p in parts]), Slot(biases)  # type: ignore[arg-type]
        self.slots = [self.weight, self.bias]

    def forward(self, x: Tensor) -> Tensor:
        """(E B, T, d) -> (E B, T, d)."""
        weight, bias = self.weight.value.flatten(0, 1), self.bias.value.flatten()
        grid = self.layout.unfold(x).permute(1, 0, 3, 2).flatten(1, 2)  # (B, E d, T)
        out = F.conv1d(grid, weight, bias, padding=self.padding, groups=len(weight))
        return out.unflatten(1, (self.layout.runs, -1)).permute(1, 0, 3, 2).reshape(x.shape)


class StackedDropout(nn.Module):
    """Each run's masks are those that it would draw alone: of the size of its own batch, from its own generator.

    That holds on a CPU; on a GPU torch's own dropout draws in another order, and a run in a stack is another draw of the same. There
    the masks of all runs can come from one generator: see `Layout.joint`.

    Args of init:
        owner: whose steps it works on; see `Layout.steps`.
    """

    def __init__(self, parts: Sequence[nn.Dropout], layout: Layout, owner: str):
        super().__init__()
        self.layout, self.owner = layout, owner
        self.shares = [p.p for p in parts]
        self.kept: Tensor | None = None  # shares of the joint draw, on its device

    def forward(self, x: Tensor) -> Tensor:
        """(E B, T, d) or (E B, d)."""
        if not (self.training and any(self.shares)):
            return x
        grid = self.layout.unfold(x)
        if self.layout.joint is not None:
            return (grid * self.factors(grid, self.layout.joint)).view_as(x)
        factors = torch.zeros_like(grid)
        for e, (share, clips, generator) in enumerate(
            zip(self.shares, self.layout.clips, self.layout.generators, strict=True)
        ):
            own = factors[e, :clips]
            if x.ndim == 3:
                own = own[:, : self.layout.steps[self.owner][e]]
            own.copy_(factors_of(own, share, generator))
        return (grid * factors).view_as(x)

    def factors(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """(E, …): 0, or 1 / (1 - share of the run), in one go."""
        if self.kept is None:
            self.kept = 1 - torch.tensor(self.shares, device=like.device).view(-1, *[1] * (like.ndim - 1))
        drawn = torch.rand(like.shape, generator=generator, device=like.device)
        return ((drawn < self.kept) / self.kept).to(like.dtype)


def factors_of(like: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """What `F.dropout` multiplies with on a CPU: 0, or 1 / (1 - share)."""
    if share == 0:
        return torch.ones_like(like)
    drawn = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    return drawn.bernoulli_(1 - share, generator=generator).div_(1 - share)


class StackedStandardise(nn.Module):
    def __init__(self, parts: Sequence[Standardise], layout: Layout):
        super().__init__()
        self.layout = layout
        self.mean, self.std = (torch.stack([getattr(p, n) for p in parts])[:, None, None] for n in ("mean", "std"))

    def forward(self, steps: Steps) -> Tensor:
        """(E B, T, l) float32, zero at invalid steps."""
        values = (self.layout.unfold(steps.values.float()) - self.mean) / self.std
        return values.view_as(steps.values).masked_fill(~steps.mask[..., None], 0.0)


class StackedLinearHead(nn.Module):
    """Of `joint.py`."""

    def __init__(self, parts: Sequence[LinearHead], layout: Layout):
        super().__init__()
        self.linear = StackedLinear([p.linear for p in parts], layout)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        linear, unfold = self.linear, self.linear.layout.unfold
        assert linear.bias is not None
        half = linear.bias.value / 2
        left, right = (
            batched(unfold(z), w, half).flatten(0, 1)
            for z, w in zip((audio, visual), linear.weight.value.chunk(2, 2), strict=True)
        )
        return left, right


class StackedDecision(nn.Module):
    """Of `decision.py`."""

    def __init__(self, parts: Sequence[Decision], layout: Layout):
        super().__init__()
        self.layout, self.columns = layout, parts[0].columns
        self.weight, self.bias = (one_of_each([getattr(p, n) for p in parts]) for n in ("weight", "bias"))
        self.slots = [slot for slot in (self.weight, self.bias) if slot is not None]

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Tensor:
        clips = len(audio)
        if self.bias is None:
            logits = audio.new_zeros(clips, 2 * self.columns)
        elif self.weight is None:
            logits = self.bias.value[:, None].expand(-1, clips // self.layout.runs, -1).flatten(0, 1)
        else:
            grid = self.layout.unfold(torch.cat([audio, visual], 1))
            logits = batched(grid, self.weight.value, self.bias.value).flatten(0, 1)
        return logits.view(clips, 2, self.columns).masked_fill(~present[..., None], ABSENT).softmax(1)


class StackedReliability(Reliability):
    """Of `reliability.py`. Its numbers are set when training is over, so they are each run's own whenever it is asked."""

    def __init__(self, parts: Sequence[Reliability], layout: Layout):
        nn.Module.__init__(self)
        self.layout, self.columns, self.parts = layout, parts[0].columns, tuple(parts)

    def of_each(self, name: str) -> Tensor | None:
        """(E, …) as they are now."""
        own = [getattr(part, name) for part in self.parts]
        return None if own[0] is None else torch.stack(own)

    def logits(self, x: Tensor) -> Tensor:
        grid = self.layout.unfold(x)
        logits = grid.new_zeros(*grid.shape[:2], self.columns)
        weight, bias, mean, std = (self.of_each(name) for name in ("weight", "bias", "mean", "std"))
        if weight is not None:
            assert mean is not None
            assert std is not None
            logits = logits + torch.bmm((grid - mean[:, None]) / std[:, None], weight[..., None])
        if bias is not None:
            logits = logits + bias[:, None]
        return logits.flatten(0, 1)

    def sharpen(self, result: Tensor) -> Tensor:
        sharpness = self.of_each("sharpness")
        if sharpness is None:
            return result
        return torch.log_softmax(sharpness.exp()[:, None, None] * self.layout.unfold(result), -1).flatten(0, 1)


def one_of_each(parts: Sequence[Any]) -> Slot | None:
    return None if parts[0] is None else Slot(parts)
