"""Mouth crops, (T, 80, 80) uint8 grey, and their low frequencies, (T, 128) float16.

*Source:* section 4.1.2 of the BalanceMLA paper: "mouth regions are isolated from video frames using the Dlib library. These
extracted mouth images are converted to grayscale and resized to 80x80 pixels": `mouth.roi`.

`mouth.dct` is not in the paper: the classical visual speech feature (Potamianos et al. 2003, "Recent advances in the
automatic recognition of audiovisual speech"), which needs no training and no weights. An orthonormal 2-D DCT of type II
of the crop / 255, the first 64 coefficients in zig-zag order, and their derivatives in time (see `delta.py`). The
constant coefficient is left out: it is the mean brightness, that is, light and camera more than speech.
One step is laid out [64 coefficients | 64 derivatives].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from scipy.fft import dctn

from ...store.errors import UsageError
from ..faces.crops import MouthCrop, mouth_crop
from .base import FRAME_RATE_HZ, Features, Sight, frames_of
from .delta import REACH, delta
from .finite import place_of, to_float16

CROP_PX = 80
FRAME_LAW = f"T = max(1, round({FRAME_RATE_HZ} x seconds))"


@dataclass(frozen=True)
class MouthRoiOptions:
    """crop_px: side of the square crop in pixels."""

    crop_px: int = CROP_PX

    def __post_init__(self) -> None:
        if self.crop_px < 1:
            raise UsageError(f"mouth.roi: crop_px {self.crop_px}, expected 1 or more")


@dataclass(frozen=True)
class MouthDctOptions:
    """crop_px: side of the square crop in pixels; coefficients: how many a frame, the constant not counted."""

    crop_px: int = CROP_PX
    coefficients: int = 64

    def __post_init__(self) -> None:
        if self.crop_px < 2 or not 1 <= self.coefficients < self.crop_px**2:
            raise UsageError(
                f"mouth.dct: {self.coefficients} coefficients of a {self.crop_px} px crop; expected 1 to crop_px^2 - 1"
            )


class MouthRoiEncoder:
    """See the module."""

    takes = "sight"
    dtype = "uint8"
    rate_hz = float(FRAME_RATE_HZ)
    frame_law = FRAME_LAW

    def __init__(self, options: MouthRoiOptions = MouthRoiOptions()):
        self.crop = MouthCrop(size_px=options.crop_px)
        self.feature_shape: tuple[int, ...] = (options.crop_px, options.crop_px)

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s)

    def describe(self) -> dict[str, Any]:
        return {"weights": None, "parameters": {}, "crop": self.crop.describe(), "versions": {}}

    def encode(self, clips: Sequence[Sight]) -> list[Features]:
        return [Features(mouth_crop(c.frames, c.landmarks, self.crop), c.valid.copy()) for c in clips]


class MouthDctEncoder:
    """See the module."""

    takes = "sight"
    dtype = "float16"
    rate_hz = float(FRAME_RATE_HZ)
    frame_law = FRAME_LAW

    def __init__(self, options: MouthDctOptions = MouthDctOptions()):
        self.crop = MouthCrop(size_px=options.crop_px)
        self.coefficients = options.coefficients
        self.rows, self.columns = zigzag(options.crop_px)[:, 1 : options.coefficients + 1]
        self.feature_shape: tuple[int, ...] = (2 * options.coefficients,)

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s)

    def describe(self) -> dict[str, Any]:
        return {
            "weights": None,
            "parameters": {
                "coefficients": self.coefficients,
                "order": "zig-zag without the constant",
                "delta_reach": REACH,
            },
            "crop": self.crop.describe(),
            "versions": {"scipy": metadata.version("scipy")},
        }

    def encode(self, clips: Sequence[Sight]) -> list[Features]:
        features = []
        for i, clip in enumerate(clips):
            mouths = mouth_crop(clip.frames, clip.landmarks, self.crop) / 255.0  # (T, 80, 80) float64
            still = dctn(mouths, type=2, axes=(1, 2), norm="ortho")[:, self.rows, self.columns]  # (T, 64)
            values = np.concatenate([still, delta(still)], axis=1)
            features.append(Features(to_float16(values, place_of(i, len(clips))), clip.valid.copy()))
        return features


def zigzag(size: int) -> np.ndarray:
    """(2, size^2) rows and columns of a square in JPEG's zig-zag order: (0,0) (0,1) (1,0) (2,0) (1,1) (0,2) …"""
    rows, columns = np.indices((size, size)).reshape(2, -1)
    diagonal = rows + columns
    along = np.where(diagonal % 2 == 1, rows, columns)  # odd diagonals run down, even ones up
    order = np.lexsort((along, diagonal))
    return np.stack([rows[order], columns[order]])
