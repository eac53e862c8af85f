"""Masked features in place of masked sound: a stand-in for Fig. 3 where a store has no noise variants, and never called anything else.

The exact protocol masks the waveform's spectrum and extracts the features anew. Here parts of the cached feature axis are set to the
training clips' mean instead: what an encoder would have made of masked sound is not in it. As with the exact masks, two bands of
equal width lie at random places that depend on the clip alone, for the whole clip.
"""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..data import Features
from ..models.base import Steps
from ..stream import Stream

FACTORS = (0.2, 0.4, 0.6, 0.8)
KIND = "proxy-mask"
BANDS = 2


@dataclass(frozen=True)
class Banded(Stream):
    """A stream with some features of every clip at a fixed value.

    Attributes:
        masked: (n, *shape of a step) bool on the CPU.
        value: float32 on the CPU, of one step.
    """

    like: Stream = field(repr=False)
    masked: Tensor = field(repr=False)
    value: Tensor = field(repr=False)

    def batch(self, clips: Tensor) -> Steps:
        steps = self.like.batch(clips)
        masked, value = self.masked[clips].to(steps.values.device), self.value.to(steps.values)
        return Steps(torch.where(masked[:, None], value, steps.values), steps.mask)

    def select(self, clips: Tensor) -> "Banded":
        like = self.like.select(clips)
        return replace(self, like=like, lengths=like.lengths, present=like.present, masked=self.masked[clips])


def with_proxies(features: Features) -> tuple[Features, list[str]]:
    """The features with masked versions of the sound among their variants, and the names of these."""
    audio = features.stream("audio")
    mean, _ = audio.statistics(np.flatnonzero((features.split == "train") & audio.present))
    variants, digests = dict(features.variants), dict(features.variant_digests)
    names = []
    for factor in FACTORS:
        name = f"{audio.name}@{KIND}={factor:g}"
        masked = torch.from_numpy(np.stack([masked_features(factor, audio.shape[-1], str(i)) for i in features.ids]))
        digest = hashlib.sha256(f"{features.digest} {name}".encode()).hexdigest()
        masked = masked.view(len(masked), *(1,) * (len(audio.shape) - 1), -1).expand(
            len(masked), *audio.shape
        )  # of a cube, all alike
        facts = (audio.rate_hz, audio.shape, audio.pixels, audio.lengths, audio.present)
        variants[name] = Banded(name, *facts, digest, audio, masked, mean.view(audio.shape))
        digests[name] = digest
        names.append(name)
    return replace(features, variants=variants, variant_digests=digests), names


def masked_features(factor: float, length: int, clip: str) -> np.ndarray:
    """(l,) bool: round(factor l) of them, in BANDS runs; where a clip's bands lie among the free features is the same for all factors."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{KIND} {clip}".encode()).digest(), "big"))
    total = round(factor * length)
    widths = [total // BANDS + (band < total % BANDS) for band in range(BANDS)]
    starts = np.sort(rng.random(BANDS))  # a share of the features that are left, before each band
    free = length - total
    masked = np.zeros(length, bool)
    for band, width in enumerate(widths):
        first = round(float(starts[band]) * free) + sum(widths[:band])
        masked[first : first + width] = True
    return masked
