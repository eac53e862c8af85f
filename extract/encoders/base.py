"""The contract of an encoder: prepared sound or sight of some clips in, features per step out.

Shape legend: n samples, T steps, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

SAMPLE_RATE_HZ = 16_000
FRAME_RATE_HZ = 25


@dataclass(frozen=True)
class Sound:
    """One clip's sound. samples: (n,) float32 in [-1, 1], mono, 16 kHz."""

    samples: np.ndarray


@dataclass(frozen=True)
class Sight:
    """One clip's pictures with the track of its one face.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, 25 per second.
        boxes: (T, 4) float32, x0 y0 x1 y1 in pixels; interpolated where no face was found.
        landmarks: (T, 68, 2) float32 pixels, smoothed; interpolated likewise.
        valid: (T,) bool: a face was found in this very frame.
        scores: (T,) float32: the detector's score, 0 where no face was found.
    """

    frames: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    valid: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Features:
    """One clip's features. values: (T, *feature_shape) in the encoder's dtype; valid: (T,) bool."""

    values: np.ndarray
    valid: np.ndarray


class Encoder(Protocol):
    """One loaded encoder.

    Attributes:
        takes: "sound" or "sight".
        feature_shape, dtype, rate_hz, frame_law: as in the stream specification.
    """

    takes: str
    feature_shape: tuple[int, ...]
    dtype: str
    rate_hz: float
    frame_law: str

    def steps(self, duration_s: float) -> int:
        """T of a clip of this length: exactly what `encode` will give."""
        ...

    def describe(self) -> dict[str, Any]:
        """Its part of the stream specification: keys weights, parameters, crop (sight only), versions."""
        ...

    def encode(self, clips: Sequence[Any]) -> list[Features]:
        """Features of some clips (all Sound or all Sight). The result of a clip does not depend on its neighbours."""
        ...


def samples_of(duration_s: float) -> int:
    """How many samples a cut of this length has."""
    return round(duration_s * SAMPLE_RATE_HZ)


def frames_of(duration_s: float) -> int:
    """How many frames a cut of this length has: at least one."""
    return max(1, round(duration_s * FRAME_RATE_HZ))
