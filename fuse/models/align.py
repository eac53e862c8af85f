"""Two streams of different rates on one time line, which a concatenation needs.

*Source:* ours; the paper concatenates features (Sec. 3.1) without a word on their rates. Steps are matched by time, not by
position in the batch: how a clip is padded changes nothing.
"""

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Steps

LARGEST_DENOMINATOR = (
    10_000  # of the two rates' proportion: whole numbers say without rounding at which edge a step begins
)


def pool_to_rate(steps: Steps, from_hz: float, to_hz: float) -> Steps:
    """Averages the valid steps that fall within each step of the slower rate.

    Args:
        steps: (b, t, d), at from_hz >= to_hz.

    Returns:
        (b, t', d) at to_hz with t' = floor((t - 1) to_hz / from_hz) + 1; a slow step is valid if one of its own is.
    """
    if from_hz == to_hz:
        return steps
    t, proportion = steps.mask.shape[1], Fraction(to_hz / from_hz).limit_denominator(LARGEST_DENOMINATOR)
    slow, fast = proportion.numerator, proportion.denominator
    target = torch.arange(t, device=steps.mask.device) * slow // fast
    wanted = torch.arange((t - 1) * slow // fast + 1 + spare(), device=steps.mask.device)
    share = (target[:, None] == wanted).to(steps.values.dtype)  # (t, t')
    weight = steps.mask.to(share.dtype)
    count = weight @ share  # (b, t')
    total = share.T @ (steps.values * weight[..., None])  # (b, t', d): a product, so the order of the sum is fixed
    return Steps(total / count.clamp(min=1)[..., None], count > 0)


def pooled_length(t: int, from_hz: float, to_hz: float) -> int:
    """t' of `pool_to_rate`, of a clip of t steps."""
    if from_hz == to_hz:
        return t
    proportion = Fraction(to_hz / from_hz).limit_denominator(LARGEST_DENOMINATOR)
    return (t - 1) * proportion.numerator // proportion.denominator + 1


def spare() -> int:
    """An invalid step more where a graph is exported: one for any length takes no computed length that may be 1."""
    return 1 if torch.compiler.is_exporting() else 0


def lengthen(steps: Steps, t: int | torch.SymInt) -> Steps:
    """Appends invalid steps, up to t of them."""
    missing: Any = t - steps.mask.shape[1]  # a number, or what stands for one in a graph
    return Steps(F.pad(steps.values, (0, 0, 0, missing)), F.pad(steps.mask, (0, missing)))


def concatenate(audio: Steps, visual: Steps) -> tuple[Tensor, Tensor]:
    """Joins two streams of one rate on the feature axis.

    A modality that is invalid at a step contributes zeros after its projection; a step is valid if either is.

    Returns:
        (b, t, d_a + d_v) and (b, t) with t of the longer one.
    """
    t = torch.sym_max(audio.mask.shape[1], visual.mask.shape[1]) + spare()
    parts = [lengthen(steps, t) for steps in (audio, visual)]
    values = torch.cat([p.values.masked_fill(~p.mask[..., None], 0.0) for p in parts], -1)
    return values, parts[0].mask | parts[1].mask
