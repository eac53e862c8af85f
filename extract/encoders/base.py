"""The contract of an encoder: prepared sound, sight or both of some clips in, features per step out.

Shape legend: n samples, T steps, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from .device import DeviceBatch

SAMPLE_RATE_HZ = 16_000
FRAME_RATE_HZ = 25


@dataclass(frozen=True)
class Sound:
    """One clip's sound. samples: (n,) float32 in [-1, 1], mono, 16 kHz."""

    samples: np.ndarray


@dataclass(frozen=True)
class Sight:
    """One clip's pictures with the track of its one face. How it was found, and what valid then means: `faces.finding`.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, 25 per second.
        boxes: (T, 4) float32, x0 y0 x1 y1 in pixels; interpolated where no face was found; NaN where nothing but the box of
            the mouth is known.
        landmarks: (T, 68, 2) float32 pixels, smoothed; interpolated and NaN likewise.
        valid: (T,) bool: a face was found in this very frame (or, where the detector skips frames, around it).
        scores: (T,) float32: the detector's score, 0 where it found no face; NaN where it did not look.
        mouth_boxes: (T, 4) float32: where mouth crops are cut out whatever the landmarks say; None: by the landmarks.
    """

    frames: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    valid: np.ndarray
    scores: np.ndarray
    mouth_boxes: np.ndarray | None = None


@dataclass(frozen=True)
class Pictures:
    """One clip's whole pictures, where no face is looked for. `Sight` has the same two, and may stand in its place.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, 25 per second.
        valid: (T,) bool: the file had a frame for this step.
    """

    frames: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class Both:
    """One clip's sound and pictures, for an encoder that takes both at once."""

    sound: Sound
    sight: Sight | Pictures


@dataclass(frozen=True)
class Features:
    """One clip's features. values: (T, *feature_shape) in the encoder's dtype; valid: (T,) bool."""

    values: np.ndarray
    valid: np.ndarray


class Preparer(Protocol):
    """An encoder's work on one clip alone. Light, and can be pickled: it runs in whatever process holds the pictures."""

    def prepare(self, clip: Any) -> Any:
        """Sound, Sight, Pictures or Both in; what the network takes out or, of an encoder without a network, the Features.

        Raises:
            MediaError: this clip can't be encoded.
        """
        ...


class Encoder(Protocol):
    """One loaded encoder.

    Attributes:
        takes: "sound", "sight" or "pictures"; of both, "sound+sight" or "sound+pictures": see `inputs_of`.
        feature_shape, dtype, rate_hz, frame_law: as in the stream specification.
        preparer: its first step.
        waits: the batches, in units of an input's length, that inputs of equal length are gathered for, as no others may
            share one; None where any may.
    """

    takes: str
    feature_shape: tuple[int, ...]
    dtype: str
    rate_hz: float
    frame_law: str

    @property
    def waits(self) -> "DeviceBatch | None": ...

    @property
    def preparer(self) -> Preparer: ...

    def steps(self, duration_s: float) -> int:
        """T of a clip of this length: exactly what `encode` will give."""
        ...

    def describe(self) -> dict[str, Any]:
        """Its part of the stream specification: keys weights, parameters, crop (sight only), versions."""
        ...

    def finish(self, prepared: Sequence[Any]) -> list[Features]:
        """Its second step: some clips together. The result of a clip does not depend on its neighbours."""
        ...


def inputs_of(takes: str) -> tuple[str, ...]:
    """What an encoder has to be given of a clip, a word each: "sound+sight" -> ("sound", "sight")."""
    return tuple(takes.split("+"))


def encode(encoder: Encoder, clips: Sequence[Any]) -> list[Features]:
    """Features of some clips (all of the kind that the encoder takes): both steps."""
    return encoder.finish([encoder.preparer.prepare(clip) for clip in clips])


class WithoutNetwork:
    """What an encoder has whose first step does everything."""

    waits = None

    @property
    def preparer(self) -> Any:
        return self

    def finish(self, prepared: Sequence[Features]) -> list[Features]:
        return list(prepared)


@dataclass(frozen=True)
class Crops:
    """A clip's crops on their way to a network. images: (T, S, S) or (T, S, S, 3) uint8; valid: (T,) bool."""

    images: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class CropsAndSound(Crops):
    """The same with what a network takes of the clip's sound."""

    sound: np.ndarray


def samples_of(duration_s: float) -> int:
    """How many samples a cut of this length has."""
    return round(duration_s * SAMPLE_RATE_HZ)


def frames_of(duration_s: float) -> int:
    """How many frames a cut of this length has: at least one."""
    return max(1, round(duration_s * FRAME_RATE_HZ))
