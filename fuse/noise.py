"""Which noise each clip gets: in training, and on the copies that dev is judged by."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .data import Features

DEV_NOISE_SEED = 0  # not the run's seed: all runs of a sweep are judged on the same copies


def noise(clips: int, features: Features, augment: Sequence[str], generator: torch.Generator) -> dict[str, Tensor]:
    """Versions for a `Draw`, by modality. No clip has noise in both of its modalities: there is always one to rely on.

    Nothing, sound or sight is spoilt, each as often; each noise of a modality as often.
    """
    counts = {m: len(v.streams) - 1 for m, v in features.versions(augment).items() if len(v.streams) > 1}
    spoilt = torch.randint(len(counts) + 1, (clips,), generator=generator) if counts else None
    return {
        modality: torch.randint(1, count + 1, (clips,), generator=generator) * (spoilt == number)
        for number, (modality, count) in enumerate(counts.items(), 1)
    }


def with_noisy_copies(
    clips: np.ndarray, features: Features, augment: Sequence[str]
) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Clips and versions for `predictions.predict`: every clip clean, and once more as training draws it, the same in every epoch."""
    if not augment:
        return clips, {}
    drawn = noise(len(clips), features, augment, torch.Generator().manual_seed(DEV_NOISE_SEED))
    return np.concatenate([clips, clips]), {m: torch.cat([torch.zeros_like(v), v]) for m, v in drawn.items()}
