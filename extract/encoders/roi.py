"""Crops themselves: `mouth.roi`, (T, 80, 80) uint8 grey, and `face.roi`, (T, 128, 128, 3) uint8 RGB.

*Source:* section 4.1.2 of the BalanceMLA paper: "mouth regions are isolated from video frames using the Dlib library. These
extracted mouth images are converted to grayscale and resized to 80x80 pixels"; for emotion, faces found by RetinaFace are
"resized to 128x128 pixels".
"""

from typing import Any

from ..faces.crops import cropped
from .base import FRAME_RATE_HZ, Features, Sight, WithoutNetwork, frames_of
from .parameters import FaceCropOptions, MouthRoiOptions
from .pictures import FRAME_LAW


class RoiEncoder(WithoutNetwork):
    """See the module. One step is (S, S), or (S, S, 3) in colour."""

    takes = "sight"
    dtype = "uint8"
    rate_hz = float(FRAME_RATE_HZ)
    frame_law = FRAME_LAW

    def __init__(self, options: MouthRoiOptions | FaceCropOptions):
        self.crop = options.crop()
        side = (self.crop.size_px, self.crop.size_px)
        self.feature_shape: tuple[int, ...] = side if self.crop.colour == "grey" else (*side, 3)

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s)

    def describe(self) -> dict[str, Any]:
        return {"weights": None, "parameters": {}, "crop": self.crop.describe(), "versions": {}}

    def prepare(self, clip: Sight) -> Features:
        return Features(cropped(clip, self.crop), clip.valid.copy())
