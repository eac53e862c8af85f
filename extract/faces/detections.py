"""What a detector says of a picture, as plain arrays: importing it loads no network."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, best score first.

    Attributes:
        boxes: (K, 4) float32, x0 y0 x1 y1 in pixels; may reach over the border.
        scores: (K,) float32 in 0 to 1.
        landmarks: (K, 5, 2) float32 pixels: the two eyes (left in the picture first), nose, mouth corners.
        best: the best score in the picture, also where it is below the threshold (K = 0).
        points: (K, 68, 2) float32 pixels: dlib's landmarks, where a GPU measured them at once; None: still to be measured.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray
    best: float
    points: np.ndarray | None = None
