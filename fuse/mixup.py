"""Mixup: a training clip and another one of its batch, added up in a random proportion, and so are their losses.

*Source:* Zhang et al. (2018): x = lambda x_1 + (1 - lambda) x_2, lambda from Beta(alpha, alpha); with the cross-entropy, mixed labels are
mixed losses. Ours, for clips that differ in length: where only one of both has a valid step, that step stands alone; a clip is mixed
only with one that has the same modalities.

Shape legend: see `models/base.py`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .models.base import Steps


class Mixed(NamedTuple):
    """A batch in which clips were mixed.

    Attributes:
        other: (b,) int64: the label of the clip that was added to each.
        share: (b,) of the clip itself; 1 where it was left alone.
    """

    audio: Steps | None
    visual: Steps | None
    other: Tensor
    share: Tensor


def mixup(audio: Steps | None, visual: Steps | None, labels: Tensor, alpha: float) -> Mixed:
    """One proportion for the batch and a random partner for each clip, from torch's global generators."""
    partner = torch.randperm(len(labels), device=labels.device)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    alike = torch.ones_like(labels, dtype=torch.bool)
    for steps in (audio, visual):
        if steps is not None:
            alike &= steps.present == steps.present[partner]
    shares = torch.where(alike, share, 1.0)
    audio, visual = (None if s is None else mix(s, partner, shares, alike) for s in (audio, visual))
    return Mixed(audio, visual, labels[partner], shares)


def mix(steps: Steps, partner: Tensor, share: Tensor, alike: Tensor) -> Steps:
    """The steps of each clip and of its partner, in float32."""
    mask = steps.mask
    theirs = mask[partner] & alike[:, None]
    wide = (*mask.shape, *(1,) * (steps.values.ndim - 2))
    weight = torch.where(mask & theirs, share[:, None], mask.float()).view(wide)
    own = steps.values.float().masked_fill(~mask.view(wide), 0.0)
    added = steps.values[partner].float().masked_fill(~theirs.view(wide), 0.0)
    return Steps(weight * own + (1 - weight) * added, mask | theirs)
