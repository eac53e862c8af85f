"""What lies between a speaker and a recording: head pose, light and camera noise; other voices and room noise.

Everything is drawn from one generator a clip, so a clip depends on nothing but its seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from .face import TalkingFace
from .portrait import FACE_CENTRE
from .speech import Speech

WIDTH_PX = 256
CLIP_S = 1.16  # 29 frames
SOUND_S = 1.21  # LRW's sound runs on a little as well
WORD_CENTRE_S = 0.58
SAME_SHAPE = 0.02  # less movement than that is none: the picture before is used again
SPEECH_LEVEL = 0.08  # root mean square of the word
SNR_DB = (6.0, 24.0)
GRAIN_SIDE = WIDTH_PX + 64


@dataclass(frozen=True)
class Pose:
    """A head pose. angle_deg: in the picture's plane; turn: a slight yaw, as shear and perspective."""

    angle_deg: float
    scale: float
    shift_px: tuple[float, float]
    turn: float


def film(face: TalkingFace, shapes: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The talking head as a camera saw it: one (256, 256, 3) uint8 RGB picture for each of the (T, 6) mouth shapes."""
    first, last = _poses(rng)
    tone = _tone(rng)
    light = _light(rng)
    blur_px = rng.uniform(0.2, 1.0)
    grain = (rng.standard_normal((GRAIN_SIDE, GRAIN_SIDE, 1)) * rng.uniform(2, 8)).round().astype(np.int16).repeat(3, 2)
    shown: np.ndarray | None = None
    for k, shape in enumerate(shapes):
        if shown is None or np.abs(shape - shown).max() > SAME_SHAPE:
            head, shown = face.picture(shape), shape
        pose = _between(first, last, k / max(1, len(shapes) - 1))
        size = (WIDTH_PX, WIDTH_PX)
        picture = cv2.warpPerspective(
            head, _matrix(pose), size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        picture = cv2.GaussianBlur(picture, (5, 5), blur_px)
        picture = cv2.multiply(cv2.LUT(picture, tone), light, scale=1 / 128)
        x, y = rng.integers(0, GRAIN_SIDE - WIDTH_PX, 2)
        yield cv2.add(picture, grain[y : y + WIDTH_PX, x : x + WIDTH_PX], dtype=cv2.CV_8U)


def record(speech: Speech, babble: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The word as a microphone heard it, its middle at WORD_CENTRE_S, among other voices and noise.

    Args:
        babble: (m,) float32 at the speech's rate: many voices at once, longer than a clip.

    Returns:
        (SOUND_S * rate,) float32 and the signal-to-noise ratio of the word in dB.
    """
    sound = np.zeros(round(SOUND_S * speech.rate_hz), np.float32)
    start = round((WORD_CENTRE_S - word_length_s(speech) / 2) * speech.rate_hz)
    word = speech.samples[max(0, -start) : len(sound) - start]
    level = float(np.sqrt((word**2).mean())) + 1e-9
    sound[max(0, start) : max(0, start) + len(word)] = word * (SPEECH_LEVEL / level)
    offset = int(rng.integers(0, len(babble) - len(sound)))
    voices = babble[offset : offset + len(sound)]
    hiss = rng.standard_normal(len(sound)).astype(np.float32)
    share = rng.uniform(0.2, 0.8)
    noise = share * voices / np.sqrt((voices**2).mean() + 1e-9) + (1 - share) * hiss
    snr_db = float(rng.uniform(*SNR_DB))
    noise *= SPEECH_LEVEL / 10 ** (snr_db / 20) / np.sqrt((noise**2).mean())
    gain = rng.uniform(0.5, 1.2)
    return np.clip(gain * (sound + noise), -1, 1).astype(np.float32), snr_db


def word_length_s(speech: Speech) -> float:
    """From the first to the last phone, at most the clip."""
    return min(CLIP_S, speech.phones[-1].end_s)


def mix(voices: list[Speech], seconds: float) -> np.ndarray:
    """(seconds * rate,) float32: all voices at once, each repeated as often as it takes."""
    length = round(seconds * voices[0].rate_hz)
    return sum((np.resize(v.samples, length) / (v.samples.std() + 1e-9) for v in voices), np.zeros(length, np.float32))


def _poses(rng: np.random.Generator) -> tuple[Pose, Pose]:
    """Where the head is at the clip's start and at its end."""
    angle, scale, turn = rng.normal(0, 4), rng.uniform(0.86, 1.06), rng.uniform(-1, 1)
    x, y = rng.uniform(-12, 12, 2)
    drift = rng.normal(0, 1, 4)
    return (
        Pose(angle, scale, (x, y), turn),
        Pose(
            angle + 1.5 * drift[0],
            scale * (1 + 0.01 * drift[1]),
            (x + 2 * drift[2], y + 2 * drift[3]),
            turn + 0.1 * drift[0],
        ),
    )


def _between(a: Pose, b: Pose, u: float) -> Pose:
    def mixed(v: float, w: float) -> float:
        return v + (w - v) * u

    shift = mixed(a.shift_px[0], b.shift_px[0]), mixed(a.shift_px[1], b.shift_px[1])
    return Pose(mixed(a.angle_deg, b.angle_deg), mixed(a.scale, b.scale), shift, mixed(a.turn, b.turn))


def _matrix(pose: Pose) -> np.ndarray:
    """(3, 3): from the head's picture to the camera's."""
    angle = np.deg2rad(pose.angle_deg)
    cos, sin = pose.scale * np.cos(angle), pose.scale * np.sin(angle)
    narrow = 1 - 0.06 * abs(pose.turn)  # a turned head is narrower, and nearer on one side
    turned = np.array([[narrow, 0, 0], [0.03 * pose.turn, 1, 0], [2.5e-4 * pose.turn, 0, 1]])
    placed = np.array(
        [[cos, -sin, WIDTH_PX / 2 + pose.shift_px[0]], [sin, cos, WIDTH_PX / 2 + pose.shift_px[1]], [0, 0, 1]]
    )
    to_centre = np.array([[1, 0, -FACE_CENTRE[0]], [0, 1, -FACE_CENTRE[1]], [0, 0, 1]])
    return placed @ turned @ to_centre


def _tone(rng: np.random.Generator) -> np.ndarray:
    """(1, 256, 3) uint8: a table of gamma, gain and tint for cv2.LUT."""
    levels = np.linspace(0, 1, 256)[None, :, None] ** rng.uniform(0.75, 1.35)
    return np.clip(255 * levels * rng.uniform(0.75, 1.15) * rng.uniform(0.94, 1.06, (1, 1, 3)), 0, 255).astype(np.uint8)


def _light(rng: np.random.Generator) -> np.ndarray:
    """(256, 256, 3) uint8: light from one side; 128 leaves a pixel as it is."""
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    across = np.linspace(-1, 1, WIDTH_PX)
    slope = np.cos(direction) * across[None, :] + np.sin(direction) * across[:, None]
    return np.clip(128 * (1 + strength * slope), 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
