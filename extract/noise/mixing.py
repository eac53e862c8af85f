"""Additive noise at a signal-to-noise ratio: (n,) float32 in, the same length out.

The ratio is 10 log10 of the clip's mean square over the noise's, both over the whole clip, pauses included (not the
"active speech level" of ITU-T P.56). The clip itself keeps its level. The sum may leave [-1, 1]: it is not clipped,
which would change the ratio. A silent clip stays as it is: the noise at any distance below nothing is nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...store.clips import Clip
from ..encoders.base import Sound
from .recording import Recording
from .talkers import Talkers

RATIO = {"snr": "mean square of the clip over that of the noise, over the whole clip", "silent_clip": "unchanged"}


@dataclass(frozen=True)
class White:
    """Gaussian white noise. snr_db: signal-to-noise ratio."""

    snr_db: float

    def describe(self) -> dict[str, Any]:
        return {**RATIO, "noise": "gaussian, white from 0 to 8 kHz"}

    def add(self, sound: Sound, clip: Clip, rng: np.random.Generator) -> Sound:
        return Sound(mix(sound.samples, rng.standard_normal(len(sound.samples)), self.snr_db))


@dataclass(frozen=True)
class Babble:
    """Several other clips of the data set at once: see `talkers.py`."""

    snr_db: float
    talkers: Talkers

    def describe(self) -> dict[str, Any]:
        return {**RATIO, **self.talkers.describe()}

    def add(self, sound: Sound, clip: Clip, rng: np.random.Generator) -> Sound:
        if not sound.samples.any():
            return sound
        return Sound(mix(sound.samples, self.talkers.speak(clip, len(sound.samples), rng), self.snr_db))


@dataclass(frozen=True)
class FromFile:
    """A stretch of a recording of noise: see `recording.py`."""

    snr_db: float
    recording: Recording

    def describe(self) -> dict[str, Any]:
        return {**RATIO, **self.recording.describe()}

    def add(self, sound: Sound, clip: Clip, rng: np.random.Generator) -> Sound:
        if not sound.samples.any():
            return sound
        return Sound(mix(sound.samples, self.recording.stretch(len(sound.samples), rng), self.snr_db))


def mix(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """(n,) float32: samples + noise, the noise brought to `snr_db` below the samples.

    Args:
        samples: (n,) float32.
        noise: (n,) of any level but silence; not used where the samples are silent.
    """
    clean = samples.astype(np.float64)
    if not clean.any():
        return samples
    added = noise.astype(np.float64)
    gain = np.sqrt(np.mean(clean**2) / np.mean(added**2)) * 10 ** (-snr_db / 20)
    return (clean + gain * added).astype(np.float32)
