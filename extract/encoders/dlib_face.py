"""Dlib's face descriptor: (T, H, W, 3) frames with landmarks in, (ceil(T / every), 128) float16 out.

*Source:* King 2017, "High Quality Face Recognition with Deep Metric Learning", and its published network
`dlib_face_recognition_resnet_model_v1.dat`: a ResNet with 29 convolutions over the 150 x 150 face chip that dlib's
`get_face_chip` aligns by the landmarks. Not in the paper: it is here because its weights come with a package, so that a
learnt face encoder runs without any download.

It tells faces apart rather than expressions, and one face takes about 80 ms of a core: every fifth frame by default.
"""

from functools import cached_property
from importlib import metadata
from typing import Any

import dlib
import numpy as np

from ..weights import DLIB_DESCRIPTOR, face_recognition_model, sha256_of
from .base import FRAME_RATE_HZ, Features, Sight, WithoutNetwork, frames_of
from .finite import to_float16
from .parameters import DlibFaceOptions

CHIP_PX = 150  # what the network takes
CHIP_PADDING = 0.25  # of the face's size on each side: dlib's default, which the network was trained with
DESCRIPTOR = 128
BATCH_FACES = 16


class DlibFaceEncoder(WithoutNetwork):
    """See the module. Raises WeightsNotFound where the package with the network is not installed."""

    takes = "sight"
    dtype = "float16"
    feature_shape: tuple[int, ...] = (DESCRIPTOR,)

    def __init__(self, options: DlibFaceOptions):
        self.every = options.every
        self.rate_hz = FRAME_RATE_HZ / self.every
        self.frame_law = f"T = ceil(frames / {self.every}), frames = max(1, round({FRAME_RATE_HZ} x seconds))"
        self.file = face_recognition_model(DLIB_DESCRIPTOR)

    @cached_property
    def network(self) -> Any:
        return dlib.face_recognition_model_v1(str(self.file))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "network"}

    def steps(self, duration_s: float) -> int:
        return -(-frames_of(duration_s) // self.every)

    def describe(self) -> dict[str, Any]:
        return {
            "weights": {"source": self.file.name, "sha256": sha256_of(self.file)},
            "parameters": {"every": self.every},
            "crop": {"policy": "dlib face chip by 68 landmarks", "size_px": CHIP_PX, "padding": CHIP_PADDING},
            "versions": {"dlib-bin": metadata.version("dlib-bin")},
        }

    def prepare(self, clip: Sight) -> Features:
        picked = zip(clip.frames[:: self.every], clip.landmarks[:: self.every], strict=True)
        chips = [face_chip(frame, points) for frame, points in picked]
        batches = [chips[i : i + BATCH_FACES] for i in range(0, len(chips), BATCH_FACES)]
        values = np.array(
            [face for batch in batches for face in self.network.compute_face_descriptor(batch)]
        )  # (T, 128)
        return Features(to_float16(values), clip.valid[:: self.every].copy())


def face_chip(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 and (68, 2) pixels -> (150, 150, 3) uint8: the upright face. Dlib takes whole pixels."""
    points = [dlib.point(int(x), int(y)) for x, y in np.rint(landmarks)]
    (left, top), (right, bottom) = np.rint(landmarks.min(axis=0)), np.rint(landmarks.max(axis=0))
    face = dlib.full_object_detection(dlib.rectangle(int(left), int(top), int(right), int(bottom)), points)
    return dlib.get_face_chip(np.ascontiguousarray(frame), face, size=CHIP_PX, padding=CHIP_PADDING)
