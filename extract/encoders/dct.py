"""Low frequencies of the grey mouth crop: (T, H, W, 3) frames with landmarks in, (T, 128) float16 out.

Not in the paper: the classical visual speech feature (Potamianos et al. 2003, "Recent advances in the automatic
recognition of audiovisual speech"), which needs no training and no weights. An orthonormal 2-D DCT of type II
of the crop / 255, the first 64 coefficients in zig-zag order, and their derivatives in time (see `delta.py`). The
constant coefficient is left out: it is the mean brightness, that is, light and camera more than speech.
One step is laid out [64 coefficients | 64 derivatives].
"""

from importlib import metadata
from typing import Any

import numpy as np
from scipy.fft import dctn

from ..faces.crops import cropped
from .base import FRAME_RATE_HZ, Features, Sight, WithoutNetwork, frames_of
from .delta import REACH, delta
from .finite import to_float16
from .parameters import MouthDctOptions
from .pictures import FRAME_LAW


class MouthDctEncoder(WithoutNetwork):
    """See the module."""

    takes = "sight"
    dtype = "float16"
    rate_hz = float(FRAME_RATE_HZ)
    frame_law = FRAME_LAW

    def __init__(self, options: MouthDctOptions):
        self.crop = options.crop()
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

    def prepare(self, clip: Sight) -> Features:
        mouths = cropped(clip, self.crop) / 255.0  # (T, 80, 80) float64
        still = dctn(mouths, type=2, axes=(1, 2), norm="ortho")[:, self.rows, self.columns]  # (T, 64)
        return Features(to_float16(np.concatenate([still, delta(still)], axis=1)), clip.valid.copy())


def zigzag(size: int) -> np.ndarray:
    """(2, size^2) rows and columns of a square in JPEG's zig-zag order: (0,0) (0,1) (1,0) (2,0) (1,1) (0,2) …"""
    rows, columns = np.indices((size, size)).reshape(2, -1)
    diagonal = rows + columns
    along = np.where(diagonal % 2 == 1, rows, columns)  # odd diagonals run down, even ones up
    order = np.lexsort((along, diagonal))
    return np.stack([rows[order], columns[order]])
