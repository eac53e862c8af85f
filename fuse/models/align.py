"""Two streams of different rates on one time line, which a concatenation needs.

*Source:* ours; the paper concatenates features (Sec. 3.1) without a word on their rates. Steps are matched by time, not by
position in the batch: how a clip is padded changes nothing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Steps

TOLERANCE = 1e-6  # a step that begins at the very edge of a slower one belongs to it, whatever rounding says


def pool_to_rate(steps: Steps, from_hz: float, to_hz: float) -> Steps:
    """Averages the valid steps that fall within each step of the slower rate.

    Args:
        steps: (b, t, d), at from_hz >= to_hz.

    Returns:
        (b, t', d) at to_hz with t' = floor((t - 1) to_hz / from_hz) + 1; a slow step is valid if one of its own is.
    """
    if from_hz == to_hz:
        return steps
    t = steps.mask.shape[1]
    target = torch.floor(torch.arange(t, dtype=torch.float64) * (to_hz / from_hz) + TOLERANCE).long()
    share = F.one_hot(target).to(steps.values)  # (t, t')
    weight = steps.mask.to(share.dtype)
    count = weight @ share  # (b, t')
    total = share.T @ (steps.values * weight[..., None])  # (b, t', d): a product, so the order of the sum is fixed
    return Steps(total / count.clamp(min=1)[..., None], count > 0)


def pooled_length(t: int, from_hz: float, to_hz: float) -> int:
    """t' of `pool_to_rate`."""
    return t if from_hz == to_hz else math.floor((t - 1) * (to_hz / from_hz) + TOLERANCE) + 1


def lengthen(steps: Steps, t: int) -> Steps:
    """Appends invalid steps, up to t of them."""
    missing = t - steps.mask.shape[1]
    return Steps(F.pad(steps.values, (0, 0, 0, missing)), F.pad(steps.mask, (0, missing)))


def concatenate(audio: Steps, visual: Steps) -> tuple[Tensor, Tensor]:
    """Joins two streams of one rate on the feature axis.

    A modality that is invalid at a step contributes zeros after its projection; a step is valid if either is.

    Returns:
        (b, t, d_a + d_v) and (b, t) with t of the longer one.
    """
    t = max(audio.mask.shape[1], visual.mask.shape[1])
    parts = [lengthen(steps, t) for steps in (audio, visual)]
    values = torch.cat([p.values.masked_fill(~p.mask[..., None], 0.0) for p in parts], -1)
    return values, parts[0].mask | parts[1].mask
