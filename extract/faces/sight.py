"""What an encoder of pictures is given: each clip's frames with the track and the landmarks of its one face."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...store.errors import BmlaError, NoFace
from ..encoders.base import Sight
from .detector import FaceDetector
from .landmarks import POINTS, Landmarks68
from .smoothing import smooth_valid
from .track import choose_track, describe_track

LANDMARK_SIGMA_FRAMES = 1.0  # cuts dlib's jitter to a third and keeps what lips do at 25 frames a second


def see(clips: Sequence[np.ndarray], detector: FaceDetector, landmarks: Landmarks68) -> list[Sight | BmlaError]:
    """Finds, follows and measures the face of each clip.

    Each clip is a batch of its own: it fills the detector's chunks, and no clip can change another's numbers.

    Args:
        clips: each (T, H, W, 3) uint8 RGB at 25 frames a second.

    Returns:
        One result a clip: a Sight or, where no frame has a face, the NoFace to be recorded.
    """
    results: list[Sight | BmlaError] = []
    for frames in clips:
        try:
            results.append(see_one(frames, detector, landmarks))
        except NoFace as error:
            results.append(error)
    return results


def see_one(frames: np.ndarray, detector: FaceDetector, landmarks: Landmarks68) -> Sight:
    """One clip. Where the face was not found its landmarks are interpolated, not predicted from a guessed box.

    Raises:
        NoFace: no frame has a face.
    """
    track = choose_track(detector.detect(frames))
    points = np.zeros((len(frames), POINTS, 2), np.float32)
    for t in np.flatnonzero(track.valid):
        points[t] = landmarks.predict(frames[t], track.boxes[t])
    points = smooth_valid(points, track.valid, LANDMARK_SIGMA_FRAMES)
    return Sight(frames, track.boxes, points, track.valid, track.scores)


def describe_sight(detector: FaceDetector, landmarks: Landmarks68) -> dict[str, Any]:
    """All that shapes a Sight, for the stream specification."""
    return {
        **detector.describe(),
        "track": describe_track(),
        "landmarks": {
            **landmarks.describe(),
            "smoothing": {"window": "gaussian", "sigma_frames": LANDMARK_SIGMA_FRAMES},
        },
    }
