"""Dlib's 68 face landmarks: a picture and a face box in, (68, 2) pixels out.

*Source:* Kazemi and Sullivan 2014 as implemented in dlib; the model was trained on iBUG 300-W by dlib's author and comes
with the package face-recognition-models. Points: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67.

The model starts from a mean face laid into a box as dlib's own detector draws it: square, from the brows to the chin.
RetinaFace's is higher than wide and takes the forehead in. On 45 frames of 15 GRID clips dlib's box has a
side of 0.95 sqrt(w h), with a standard deviation of 0.07, and lies 0.08 h lower. With the square below, landmarks differ
from those of dlib's own box by 1.1 % of the distance between the eyes on average (dlib's own differ by 0.9 % from their mean
over slightly shifted boxes); with RetinaFace's box as it is, by 3.3 %. Sides of 0.84 to 0.96 and shifts of 0.04 to 0.08
are as good; squares below 0.75 fail.
"""

from functools import cached_property
from typing import Any

import dlib
import numpy as np

from ...store.errors import UsageError
from ..weights import DLIB_LANDMARKS, face_recognition_model, sha256_of

POINTS = 68
EYES, MOUTH = slice(36, 48), slice(48, 68)
SQUARE_SIDE = 0.9  # of sqrt(w h): unlike w alone it hardly changes when the head turns
SQUARE_SHIFT = 0.07  # of h, downwards


class Landmarks68:
    """The model, read when the first face is measured. Raises WeightsNotFound where its package is not installed."""

    def __init__(self) -> None:
        self.file = face_recognition_model(DLIB_LANDMARKS)

    @cached_property
    def model(self) -> dlib.shape_predictor:
        """100 MB, which a process has no use for where a GPU measures."""
        return dlib.shape_predictor(str(self.file))

    def predict(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Landmarks of one face, to whole pixels as dlib gives them.

        Args:
            frame: (H, W, 3) uint8 RGB.
            box: (4,) x0 y0 x1 y1 in pixels, as RetinaFace draws it; may reach over the border.

        Returns:
            (68, 2) float32, x y in pixels.

        Raises:
            UsageError: for a picture of another shape or dtype, or a box without area.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise UsageError(f"landmarks: picture is {frame.dtype} of shape {frame.shape}, expected uint8 (H, W, 3)")
        left, top, side = dlib_square(box)
        face = dlib.rectangle(left, top, left + side - 1, top + side - 1)  # dlib's corners are inclusive
        shape = self.model(np.ascontiguousarray(frame), face)
        return np.array([(p.x, p.y) for p in shape.parts()], np.float32)

    def describe(self) -> dict[str, Any]:
        """What shapes the landmarks, for the stream specification."""
        return {
            "name": "dlib 68 landmarks",
            "weights": {"source": self.file.name, "sha256": sha256_of(self.file)},
            "square_side": SQUARE_SIDE,
            "square_shift": SQUARE_SHIFT,
        }


def dlib_square(box: np.ndarray) -> tuple[int, int, int]:
    """RetinaFace's box (4,) -> left, top and side in pixels of the square that dlib's own detector would draw."""
    x0, y0, x1, y1 = (float(v) for v in box)
    width, height = x1 - x0, y1 - y0
    if not (width > 0 and height > 0):  # also for NaN
        raise UsageError(f"landmarks: box {x0:.1f} {y0:.1f} {x1:.1f} {y1:.1f} has no area")
    side = SQUARE_SIDE * (width * height) ** 0.5
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2 + SQUARE_SHIFT * height
    return round(left), round(top), max(1, round(side))
