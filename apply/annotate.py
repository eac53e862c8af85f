"""A clip with what was seen drawn into it: the track of the face, the square that the encoder was given, and the answer.

A frame in which no face was found is kept and says so; a clip without any face, or a run that does not look at faces, keeps its
pictures and the answer.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np

from ..extract import media
from ..extract.encoders.base import FRAME_RATE_HZ, SAMPLE_RATE_HZ, Sight
from ..extract.faces.crops import squares
from ..extract.failures import attempt
from ..extract.pipeline import Decoded, detect, follow
from ..extract.rebuild import Maker
from ..store.clips import Clip
from ..store.errors import MediaError
from ..store.ledger import Failure
from .cuts import Cut
from .loaded import LoadedRun, few_threads
from .prediction import SENSES, Prediction

SHORTEST_PX = 480  # of a picture's sides, after enlarging: smaller text could not be read
GREEN, GREY, WHITE, YELLOW = (64, 220, 64), (150, 150, 150), (255, 255, 255), (255, 210, 60)
LINE_PX = 22
FONT = cv2.FONT_HERSHEY_SIMPLEX
PIXEL_LIMIT = 4096  # longest side of a video


def annotate(loaded: LoadedRun, cut: Cut, prediction: Prediction, out: Path) -> None:
    """Writes an mp4 (H.264, with the sound where there is some) at 25 frames a second.

    Raises:
        MediaError: the clip has no pictures, or nothing can be written there.
    """
    clip, root = cut.clip(), Path("/")
    frames = media.read_frames(root / str(clip.video), clip.start_s, clip.end_s)
    maker = loaded.makers.get("visual")
    with few_threads(loaded.device):
        sight = seen(clip, frames, maker) if maker else None
    lines = result_lines(prediction)
    places = crop_corners(sight, maker) if maker and isinstance(sight, Sight) else None
    pictures = (drawn(frames.images[t], t, sight, places, lines) for t in range(len(frames.images)))
    sound = attempt(clip, "sound", media.read_audio, root / str(clip.audio), *clip.sound_cut)
    try:
        write(out, pictures, None if isinstance(sound, Failure) else sound)
    except (OSError, ValueError) as error:  # PyAV's own errors are both
        raise MediaError(f"{out}: can't be written: {error}") from error


def seen(clip: Clip, frames: media.Frames, maker: Maker) -> Sight | Failure | None:
    """The clip's face, as the stream's tools see it; None where they do not look for one."""
    tools = maker.tools
    if "sight" not in tools.kit.wanted([maker.made]):
        return None
    found = detect([Decoded(clip, frames=frames)], [maker.made], tools)
    sight: Sight | Failure = attempt(clip, "face", follow, clip, frames, found[0], tools.kit)
    return sight


def result_lines(prediction: Prediction) -> list[str]:
    """The answer in a few short lines. OpenCV's letters are ASCII."""
    if prediction.answer is None:
        lines = [f"no answer: {prediction.error}"]
    else:
        lines = ["  ".join(f"{name} {share:.0%}" for name, share in prediction.top(3))]
        if prediction.alpha is not None:
            lines.append("  ".join(f"{SENSES[m]} {share:.0%}" for m, share in prediction.alpha.items()))
        lines += [f"no {SENSES[m]}" for m in prediction.missing]
    return [line.encode("ascii", "replace").decode()[:60] for line in lines]


def crop_corners(sight: Sight, maker: Maker) -> np.ndarray | None:
    """(T, 4, 2) pixels: the square of the encoder's crop in each frame; None for an encoder that cuts by itself."""
    crop = getattr(maker.tools.encoders[maker.made], "crop", None)
    if crop is None:
        return None
    side = float(crop.size_px)
    edges = np.array([(0, 0, 1), (side, 0, 1), (side, side, 1), (0, side, 1)])
    return np.stack([edges @ matrix.T for matrix in squares(sight, crop)])


def drawn(
    image: np.ndarray, t: int, sight: Sight | Failure | None, places: np.ndarray | None, lines: list[str]
) -> np.ndarray:
    """Frame t, enlarged so that text can be read, with all that is known of it: (H, W, 3) uint8 RGB, even sides."""
    height, width = image.shape[:2]
    scale = max(1, -(-SHORTEST_PX // min(height, width)))
    scale = max(1, min(scale, PIXEL_LIMIT // max(height, width)))
    picture = cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_LINEAR)
    picture = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
    notes = list(lines)
    if isinstance(sight, Sight):
        colour = GREEN if sight.valid[t] else GREY
        if np.isfinite(sight.boxes[t]).all():
            outline(picture, corners_of(sight.boxes[t]) * scale, colour)
        if np.isfinite(sight.landmarks[t]).all():
            for x, y in np.rint((sight.landmarks[t] + 0.5) * scale).astype(int):
                cv2.circle(picture, (int(x), int(y)), scale, colour, -1)
        if places is not None:
            outline(picture, places[t] * scale, YELLOW)
        if not sight.valid[t]:
            notes.append("no face in this frame")
    elif isinstance(sight, Failure):
        notes.append("no face in this clip")
    top = slice(LINE_PX * len(notes) + LINE_PX // 2)
    picture[top] = picture[top] // 3  # white text can be read on it
    for number, line in enumerate(notes, 1):
        cv2.putText(picture, line, (8, number * LINE_PX), FONT, 0.6, WHITE, 1, cv2.LINE_AA)
    return picture


def corners_of(box: np.ndarray) -> np.ndarray:
    """x0 y0 x1 y1 -> (4, 2)."""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def outline(picture: np.ndarray, corners: np.ndarray, colour: tuple[int, int, int]) -> None:
    points = np.rint(np.clip(corners, -1e6, 1e6)).astype(np.int32)
    cv2.polylines(picture, [points[:, None]], True, colour, 2, cv2.LINE_AA)


def write(path: Path, pictures: Iterator[np.ndarray], sound: np.ndarray | None) -> None:
    """Pictures at 25 and mono sound at 16,000 a second."""
    first = next(pictures)
    with av.open(str(path), "w", format="mp4") as out:
        video = out.add_stream("libx264", rate=FRAME_RATE_HZ, options={"crf": "18"})
        video.height, video.width = first.shape[:2]
        video.pix_fmt = "yuv420p"
        audio = out.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono") if sound is not None else None
        for number, picture in enumerate(chain([first], pictures)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE_HZ)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio is None or sound is None:
            return
        block = audio.codec_context.frame_size or 1024
        for start in range(0, len(sound), block):
            part = av.AudioFrame.from_ndarray(sound[None, start : start + block], format="fltp", layout="mono")
            part.sample_rate, part.pts, part.time_base = SAMPLE_RATE_HZ, start, Fraction(1, SAMPLE_RATE_HZ)
            out.mux(audio.encode(part))
        out.mux(audio.encode())
