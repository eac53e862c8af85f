"""Face crops (T, 128, 128, 3) and mouth crops (T, 80, 80) from a clip's boxes and landmarks, all steady in time.

How a crop is laid is said by `FaceCrop` and `MouthCrop` (see `policy.py`, also for the source).

Resampling: bilinear where the crop enlarges. Where it shrinks, bilinear alone would skip pixels (and flicker as the face
moves), so the crop is first sampled at a whole multiple of its size that is no coarser than the picture, then averaged
over blocks. Beyond the picture's border its edge pixels are repeated.
"""

import threading
import weakref
from collections.abc import Callable
from math import ceil
from typing import Any

import cv2
import numpy as np

from ...store.errors import UsageError
from ..encoders.base import Sight
from .landmarks import MOUTH, POINTS
from .policy import FACE_CROP, MOUTH_CROP, FaceCrop, MouthCrop
from .smoothing import smooth

# The points of a face that do not move in speech: corners of the eyes, bridge and base of the nose. (13, 2), their mean over
# 11 GRID clips after similarity alignment: centred, symmetric, in units of the distance between the eyes' centres.
RIGID = (36, 39, 42, 45, 27, 28, 29, 30, 31, 32, 33, 34, 35)
RIGID_MEAN = np.array(
    [
        *[(-0.696, -0.357), (-0.290, -0.340), (0.290, -0.340), (0.696, -0.357)],
        *[(0.0, -0.419), (0.0, -0.223), (0.0, -0.032), (0.0, 0.171)],
        *[(-0.228, 0.349), (-0.119, 0.390), (0.0, 0.419), (0.119, 0.390), (0.228, 0.349)],
    ]
)

# Where RetinaFace's box lies in that face: side of its square and place of its middle below the middle of the rigid points,
# in eye distances; means over 70 frames of ten GRID speakers (standard deviations 0.17 and 0.04).
BOX_SIDE, BOX_DOWN = 3.3, -0.07


def cropped(clip: Sight, crop: FaceCrop | MouthCrop) -> np.ndarray:
    """A clip's crops by any policy: (T, size, size, 3) or, in grey, (T, size, size) uint8, which nobody may change.

    Raises:
        UsageError: nothing but the box of the mouth is known of the clip, and the crop is not of the mouth.
    """
    made = _LAST.of(clip)
    found = made.get(crop)
    if found is None:
        found = made[crop] = _crops(clip.frames, squares(clip, crop), crop)
    return found


class _Last(threading.local):
    """The crops of the clip that this thread asked about last: several streams of a clip take the same."""

    def __init__(self) -> None:
        self.clip: Callable[[], Sight | None] = lambda: None
        self.made: dict[FaceCrop | MouthCrop, np.ndarray] = {}

    def of(self, clip: Sight) -> dict[FaceCrop | MouthCrop, np.ndarray]:
        if self.clip() is not clip:
            made: dict[FaceCrop | MouthCrop, np.ndarray] = {}
            self.clip, self.made = weakref.ref(clip, lambda _: made.clear()), made
        return self.made


_LAST = _Last()


def squares(clip: Sight, crop: FaceCrop | MouthCrop) -> list[np.ndarray]:
    """Where the crops lie: of each frame a (2, 3) matrix, from the crop's pixels (edges, 0 to size) to the picture's.

    Raises:
        UsageError: as `cropped`.
    """
    if isinstance(crop, MouthCrop) and clip.mouth_boxes is not None:
        return _level_squares(clip.frames, clip.mouth_boxes, _as_laid(crop))
    if clip.mouth_boxes is not None and np.isnan(clip.boxes).all():
        raise UsageError("crop: the clip has a fixed box of its mouth alone; a crop of the face needs a face_box")
    if isinstance(crop, MouthCrop):
        return _mouth_squares(clip.frames, clip.landmarks, crop)
    if crop.align == "similarity":
        return _aligned_squares(clip.frames, clip.landmarks, crop)
    return _level_squares(clip.frames, clip.boxes, crop)


def face_crop(frames: np.ndarray, boxes: np.ndarray, crop: FaceCrop = FACE_CROP) -> np.ndarray:
    """Level square crops around the face box, whatever the policy says of alignment.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        boxes: (T, 4) x0 y0 x1 y1 in pixels, in every frame.

    Returns:
        (T, size, size, 3) uint8 RGB, or (T, size, size) in grey.
    """
    return _crops(frames, _level_squares(frames, boxes, crop), crop)


def _level_squares(frames: np.ndarray, boxes: np.ndarray, crop: FaceCrop) -> list[np.ndarray]:
    _check(frames, boxes, (4,), "boxes")
    corners = boxes.astype(np.float64).reshape(-1, 2, 2)
    longer = (corners[:, 1] - corners[:, 0]).max(axis=1)
    if not (longer > 0).all():
        raise UsageError(f"crop: the box of frame {int(np.argmin(longer))} has no area")
    side = longer * (1 + 2 * crop.margin)
    place = smooth(np.column_stack([corners.mean(axis=1), side]), crop.sigma_frames)  # (T, 3)
    return [_place(centre, side, 0.0, crop.size_px) for *centre, side in place]


def aligned_face_crop(frames: np.ndarray, landmarks: np.ndarray, crop: FaceCrop) -> np.ndarray:
    """Square crops around the face, turned upright and to scale by the landmarks that do not move in speech.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        landmarks: (T, 68, 2) pixels, in every frame.

    Returns:
        (T, size, size, 3) uint8 RGB, or (T, size, size) in grey.
    """
    return _crops(frames, _aligned_squares(frames, landmarks, crop), crop)


def _aligned_squares(frames: np.ndarray, landmarks: np.ndarray, crop: FaceCrop) -> list[np.ndarray]:
    _check(frames, landmarks, (POINTS, 2), "landmarks")
    points = landmarks.astype(np.float64) + 0.5  # dlib names pixels; their middles are meant
    place = smooth(np.column_stack([points[:, RIGID].mean(axis=1), alignment(points)]), crop.sigma_frames)  # (T, 4)
    side = BOX_SIDE * (1 + 2 * crop.margin)
    return [
        _place((x - BOX_DOWN * s, y + BOX_DOWN * c), side * np.hypot(c, s), np.arctan2(s, c), crop.size_px)
        for x, y, c, s in place
    ]


def mouth_crop(frames: np.ndarray, landmarks: np.ndarray, crop: MouthCrop = MOUTH_CROP) -> np.ndarray:
    """Crops around the mouth.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        landmarks: (T, 68, 2) pixels, in every frame.

    Returns:
        (T, size, size) uint8, or (T, size, size, 3) in colour.
    """
    return _crops(frames, _mouth_squares(frames, landmarks, crop), crop)


def _mouth_squares(frames: np.ndarray, landmarks: np.ndarray, crop: MouthCrop) -> list[np.ndarray]:
    _check(frames, landmarks, (POINTS, 2), "landmarks")
    points = landmarks.astype(np.float64) + 0.5  # dlib names pixels; their middles are meant
    turn = alignment(points)  # (T, 2): eye distance times cosine and sine, which may be averaged where angles may not
    place = smooth(np.column_stack([points[:, MOUTH].mean(axis=1), turn]), crop.sigma_frames)  # (T, 4)
    turned = crop.align == "similarity"
    return [
        _place((x, y), crop.width * np.hypot(c, s), np.arctan2(s, c) if turned else 0.0, crop.size_px)
        for x, y, c, s in place
    ]


def fixed_mouth_crop(frames: np.ndarray, boxes: np.ndarray, crop: MouthCrop) -> np.ndarray:
    """Level crops of boxes that somebody laid around the mouth: of the crop's policy, size and colour alone are used.

    A box that is no square is enlarged to one of its longer side, not stretched. It does not shake, so nothing is smoothed.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        boxes: (T, 4) x0 y0 x1 y1 in pixels, in every frame.

    Returns:
        (T, size, size) uint8, or (T, size, size, 3) in colour.
    """
    return face_crop(frames, boxes, _as_laid(crop))


def _as_laid(crop: MouthCrop) -> FaceCrop:
    """The policy of a box that is taken as it was laid."""
    return FaceCrop(crop.size_px, margin=0.0, sigma_frames=0.0, colour=crop.colour)


def boxes_of(landmarks: np.ndarray) -> np.ndarray:
    """Face boxes where only landmarks are known: the level squares that RetinaFace's box has on average.

    Args:
        landmarks: (T, 68, 2) pixels.

    Returns:
        (T, 4) float32, x0 y0 x1 y1 in pixels.
    """
    points = landmarks.astype(np.float64) + 0.5  # dlib names pixels; their middles are meant
    c, s = alignment(points).T
    centre = points[:, RIGID].mean(axis=1) + BOX_DOWN * np.column_stack([-s, c])
    half = BOX_SIDE / 2 * np.hypot(c, s)[:, None]
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def alignment(points: np.ndarray) -> np.ndarray:
    """Turn and size of faces: the similarity that brings the mean of the rigid points closest to each face.

    Args:
        points: (T, 68, 2) pixels.

    Returns:
        (T, 2): s cos(a), s sin(a); s is the distance between the eyes in pixels, a the angle, clockwise as seen.
    """
    x, y = np.moveaxis(points[:, RIGID] - points[:, RIGID].mean(axis=1, keepdims=True), 2, 0)  # each (T, 13)
    u, v = RIGID_MEAN.T
    return np.column_stack([x @ u + y @ v, y @ u - x @ v]) / (RIGID_MEAN**2).sum()


def _crops(frames: np.ndarray, matrices: list[np.ndarray], crop: FaceCrop | MouthCrop) -> np.ndarray:
    """One square of each frame. Colour is taken away before the resampling: fewer numbers to interpolate."""
    grey = crop.colour == "grey"
    pictures = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if grey else frame for frame in frames)
    return np.stack([_warp(picture, matrix, crop.size_px) for picture, matrix in zip(pictures, matrices, strict=True)])


def _place(centre: Any, side: float, angle: float, size_px: int) -> np.ndarray:
    """(2, 3) matrix from crop to picture coordinates (of pixels' edges) of a turned square."""
    x, y = centre
    step = side / size_px
    c, s = step * np.cos(angle), step * np.sin(angle)
    half = size_px / 2
    return np.array([[c, -s, x - half * (c - s)], [s, c, y - half * (s + c)]])


def _warp(picture: np.ndarray, to_picture: np.ndarray, size_px: int) -> np.ndarray:
    """The crop: (size, size[, 3]) uint8. `to_picture`: see `_place`."""
    step = np.hypot(to_picture[0, 0], to_picture[1, 0])  # picture pixels a crop pixel
    fine = max(1, ceil(step - 1e-6))
    matrix = to_picture.copy()
    matrix[:, :2] /= fine
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV counts from the middle of the first pixel
    side = size_px * fine
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(picture, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return crop if fine == 1 else cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_AREA)


def _check(frames: np.ndarray, measured: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise UsageError(f"crop: frames are {frames.dtype} of shape {frames.shape}, expected uint8 (T, H, W, 3)")
    if measured.shape != (len(frames), *shape) or not np.isfinite(measured).all():
        raise UsageError(f"crop: {name} have shape {measured.shape}, expected finite {(len(frames), *shape)}")
