"""Bad pictures: (T, H, W, 3) uint8 frames in, the same shape out; the track of the face stays that of the clean clip.

Ours throughout; the paper disturbs sound alone. Noise acts after the face was found and before the crop, so that a noisy
stream differs from the clean one in its pictures and in nothing else: not in where the crop lies, nor in which steps
have a face (but for `Drop`). A detector in the field would see the noise too and lose faces: these variants don't say
how many. Sizes are relative to the face box, so that they mean the same in any picture size.

Shape legend: T frames, H x W pixels.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from ...store.clips import Clip
from ..encoders.base import Sight
from ..faces.landmarks import MOUTH
from ..faces.smoothing import smooth

FACES = {"faces": "found on the clean pictures"}

PATCH_GREY = 128  # about 0 for encoders that scale by (x - 127.5) / 128
PATCH_SWAY = 0.1  # of the box's sides: how far to each side of the mouth the patch's middle may lie
PATCH_SIGMA_FRAMES = 2.0  # as the crops: the patch moves with the head and does not shake

FULL_SCALE = 5000.0  # electrons of a pixel at the picture's white: a small sensor
READ_NOISE = 3.0  # electrons


@dataclass(frozen=True)
class Blur:
    """Out of focus. percent: sigma of a Gaussian in percent of the face's size, the same in all frames of a clip."""

    percent: float

    def describe(self) -> dict[str, Any]:
        return {
            **FACES,
            "filter": "gaussian",
            "unit": "percent of the face's size: the median over valid frames of the box's longer side",
        }

    def add(self, sight: Sight, clip: Clip, rng: np.random.Generator) -> Sight:
        sigma_px = self.percent / 100 * face_size(sight).max()
        if sigma_px == 0:
            return sight
        return replace(sight, frames=np.stack([cv2.GaussianBlur(frame, (0, 0), sigma_px) for frame in sight.frames]))


@dataclass(frozen=True)
class Occlude:
    """Something in front of the mouth. share: of the face box's area that a grey patch covers.

    The patch has the box's proportions and lies inside it, its middle as near as can be to a random place about the
    mouth. It keeps its place in the box for the whole clip: a hand or a microphone that goes with the head.
    """

    share: float

    def describe(self) -> dict[str, Any]:
        return {
            **FACES,
            "patch": "as the face box in proportions, inside it, around the mouth; goes with the box",
            "grey_level": PATCH_GREY,
            "sway": PATCH_SWAY,
            "sigma_frames": PATCH_SIGMA_FRAMES,
        }

    def add(self, sight: Sight, clip: Clip, rng: np.random.Generator) -> Sight:
        boxes = smooth(sight.boxes.astype(np.float64), PATCH_SIGMA_FRAMES).reshape(-1, 2, 2)  # (T, corner, xy)
        corner, size = boxes[:, 0], boxes[:, 1] - boxes[:, 0]
        mouth = sight.landmarks[:, MOUTH].mean(axis=1) + 0.5  # dlib names pixels; their middles are meant
        middle = np.median((mouth - corner) / size, axis=0) + rng.uniform(-PATCH_SWAY, PATCH_SWAY, 2)
        half = np.sqrt(self.share) / 2
        middle = np.clip(middle, half, 1 - half)  # in shares of the box
        frames = sight.frames.copy()
        H, W = frames.shape[1:3]
        for frame, (x0, y0), (x1, y1) in zip(
            frames, corner + (middle - half) * size, corner + (middle + half) * size, strict=True
        ):
            left, right = (round(min(max(x, 0), W)) for x in (x0, x1))
            top, bottom = (round(min(max(y, 0), H)) for y in (y0, y1))
            frame[top:bottom, left:right] = PATCH_GREY
        return replace(sight, frames=frames)


@dataclass(frozen=True)
class Dark:
    """Low light without a longer exposure. share: of the light that is taken away.

    A pixel of e electrons keeps each with probability 1 - share: mean g e, variance g (1 - g) e, g = 1 - share, which leaves
    a Poisson count a Poisson count (shot noise). The read noise that scaling takes away is made up: variance
    (1 - g^2) READ_NOISE^2. Both are Gaussian here. So nothing changes at share 0, and at 1 read noise alone is left.
    """

    share: float

    def describe(self) -> dict[str, Any]:
        return {
            **FACES,
            "light": "sRGB decoded; each channel on its own; no gain after the noise",
            "full_scale_electrons": FULL_SCALE,
            "read_noise_electrons": READ_NOISE,
        }

    def add(self, sight: Sight, clip: Clip, rng: np.random.Generator) -> Sight:
        kept = 1 - self.share
        electrons = FULL_SCALE * to_light(np.arange(256) / 255)  # of each grey level
        mean = (kept * electrons).astype(np.float32)
        spread = np.sqrt(kept * (1 - kept) * electrons + (1 - kept**2) * READ_NOISE**2).astype(np.float32)
        level_of = np.rint(255 * from_light(np.arange(FULL_SCALE + 1) / FULL_SCALE)).astype(np.uint8)  # a count's
        frames = np.empty_like(sight.frames)
        for dark, frame in zip(frames, sight.frames, strict=True):  # a frame at a time: little memory
            counted = mean[frame] + spread[frame] * rng.standard_normal(frame.shape, np.float32)
            dark[:] = level_of[np.clip(np.rint(counted), 0, FULL_SCALE).astype(np.int32)]
        return replace(sight, frames=frames)


@dataclass(frozen=True)
class Drop:
    """Frames lost on the way. share: of the frames, each on its own.

    A lost step is not valid, and shows the frame before it again (the first that is left, at the start), as `media` does
    where a file lacks a frame: black instead would reach into the time derivatives of its neighbours. Where all are
    lost, all are black.
    """

    share: float

    def describe(self) -> dict[str, Any]:
        return {
            **FACES,
            "dropped": "round(share x T) frames, any set of so many alike likely",
            "shown": "the frame before again; not valid",
        }

    def add(self, sight: Sight, clip: Clip, rng: np.random.Generator) -> Sight:
        T = len(sight.frames)
        lost = np.zeros(T, bool)
        lost[rng.permutation(T)[: round(self.share * T)]] = True
        valid, scores = sight.valid & ~lost, np.where(lost, 0, sight.scores).astype(sight.scores.dtype)
        if lost.all():
            return replace(sight, frames=np.zeros_like(sight.frames), valid=valid, scores=scores)
        shown = np.maximum.accumulate(np.where(lost, -1, np.arange(T)))
        shown[shown < 0] = np.argmin(lost)
        return replace(sight, frames=sight.frames[shown], valid=valid, scores=scores)


def face_size(sight: Sight) -> np.ndarray:
    """(2,) width and height of the face box in pixels: medians over the valid frames, or over all where none is."""
    boxes = sight.boxes[sight.valid] if sight.valid.any() else sight.boxes
    return np.median(boxes[:, 2:] - boxes[:, :2], axis=0)


def to_light(level: np.ndarray) -> np.ndarray:
    """sRGB's 0 to 1 to the share of white light (IEC 61966-2-1)."""
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def from_light(light: np.ndarray) -> np.ndarray:
    """The inverse."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
