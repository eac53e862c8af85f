"""Which noise each clip gets: in training, and on the copies that dev is judged by."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .data import Features
from .models.base import MODALITIES

DEV_NOISE_SEED = 0  # not the run's seed: all runs of a sweep are judged on the same copies


def noise(
    clips: int, features: Features, augment: Sequence[str], generator: torch.Generator, share: float = 0.0
) -> dict[str, Tensor]:
    """Versions for a `Draw`, by modality. No clip has noise in both of its modalities: there is always one to rely on.

    Args:
        share: of the clips, have noise in their sound, and as many in their sight, where `augment` has some; 0: nothing and each
            modality that has noise as often. Of one modality each noise as often.
    """
    counts = {m: len(v.streams) - 1 for m, v in features.versions(augment).items() if len(v.streams) > 1}
    if not counts:
        return {}
    if share:
        spoilt = (torch.rand(clips, generator=generator) / share).long()  # 0: sound, 1: sight, more: nothing
        numbers = {m: MODALITIES.index(m) for m in counts}
    else:
        spoilt = torch.randint(len(counts) + 1, (clips,), generator=generator)
        numbers = {m: number for number, m in enumerate(counts, 1)}
    return {
        modality: torch.randint(1, count + 1, (clips,), generator=generator) * (spoilt == numbers[modality])
        for modality, count in counts.items()
    }


def with_noisy_copies(
    clips: np.ndarray, features: Features, augment: Sequence[str]
) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Clips and versions for `predictions.predict`: every clip clean, and once more with nothing, sound or sight spoilt, each as often.

    They are the same in every epoch and for every share of noise in training: runs of one sweep are judged by the same.
    """
    if not augment:
        return clips, {}
    drawn = noise(len(clips), features, augment, torch.Generator().manual_seed(DEV_NOISE_SEED))
    return np.concatenate([clips, clips]), {m: torch.cat([torch.zeros_like(v), v]) for m, v in drawn.items()}
