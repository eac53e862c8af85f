"""Frames and sound of a cut by timestamp: (T, H, W, 3) uint8 at 25 Hz and (n,) float32 at 16 kHz, whatever the file's own rates.

Step k of a cut shows the frame that is on screen at start_s + (k + 0.5) / 25 s; sample i is the sound at start_s + i / 16000 s.
Both count from the file's time zero (see container.py). The middle of a step lies as far as can be from where 25 fps material changes
its frame, so each of its frames is taken exactly once, rounding or not. What the file lacks by more than END_TOLERANCE_S is an error,
never a repeated frame or a stretch of zeros.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr
from av.video.reformatter import Interpolation, VideoReformatter

from ..store.errors import MediaError, NoSound, UsageError
from .container import MediaFile
from .encoders.base import FRAME_RATE_HZ, SAMPLE_RATE_HZ, frames_of, samples_of

END_TOLERANCE_S = 0.1  # LRW's and GRID's sound and picture differ in length by up to 0.05 s
TIE_S = 1e-4  # 50 fps frames start exactly at the middles of steps: rounding must not decide between two of them
CONTEXT_S = 0.25  # decoded on either side of a cut, so that resampling sees no edge and MDCT codecs have settled
RESYNC_S = 0.02  # timestamps rounded to milliseconds jitter less; a larger step is a real gap
PICTURE = re.compile(r"(?!\._).*?(\d+)\.(?:jpe?g|png|bmp)", re.IGNORECASE)
# Exact arithmetic: the same bytes on every processor, for 0.1 ms a frame more.
CONVERSION = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


@dataclass(frozen=True)
class Frames:
    """Pictures of a cut.

    Attributes:
        images: (T, H, W, 3) uint8 RGB, 25 per second.
        present: (T,) bool; False where the file had no frame for the step and its neighbour is shown again.
    """

    images: np.ndarray
    present: np.ndarray


@dataclass(frozen=True)
class Probe:
    """What a media file holds.

    Attributes:
        video_s, audio_s: where the stream ends, in seconds from time zero; None where there is no such stream.
        fps: average frames per second; width, height: pixels. None without video.
        rate_hz: samples per second; None without sound.
    """

    video_s: float | None
    audio_s: float | None
    fps: float | None
    width: int | None
    height: int | None
    rate_hz: int | None

    @property
    def has_video(self) -> bool:
        return self.video_s is not None

    @property
    def has_audio(self) -> bool:
        return self.audio_s is not None

    @property
    def duration_s(self) -> float:
        """The longest cut from 0 that can be read: the picture's length, or the sound's where that ends much earlier."""
        if self.video_s is None or self.audio_s is None:
            return self.video_s or self.audio_s or 0.0
        return self.video_s if self.audio_s >= self.video_s - END_TOLERANCE_S else self.audio_s


def probe(path: Path, fps: float | None = None) -> Probe:
    """Lengths and sizes. Reads a file through (without decoding it): the lengths that headers state are often estimates.

    Args:
        path: a media file, or a folder of numbered images with their `fps`.
    """
    if path.is_dir():
        numbers, files, rate_hz = _numbered_pictures(path, fps)
        height, width = _picture(files[0]).shape[:2]
        return Probe((numbers[-1] - numbers[0] + 1) / rate_hz, None, rate_hz, width, height, None)
    with MediaFile(path) as media:
        if media.video is None and media.audio is None:
            raise MediaError(f"{path.name}: neither picture nor sound in it")
        ends_s = media.ends_s()
        video_fps = 1 / media.frame_period_s() if media.video is not None else None
        sound_hz = media.audio.rate if media.audio is not None else None
    height, width = _picture(path).shape[:2] if "video" in ends_s else (None, None)
    return Probe(ends_s.get("video"), ends_s.get("audio"), video_fps, width, height, sound_hz)


def read_frames(
    path: Path, start_s: float, end_s: float, fps: float | None = None, crop: tuple[int, int, int, int] | None = None
) -> Frames:
    """The pictures of a cut.

    Args:
        path: a media file, or a folder of numbered images, whose file n shows from (n - first) / fps.
        fps: of a folder of images; not used for files, which carry timestamps.
        crop: x, y, width, height in pixels; None: the whole picture.

    Returns:
        Frames of T = frames_of(end_s - start_s) steps. Pictures of another size than the first are scaled to it.

    Raises:
        MediaError: the file cannot be read, has no video, or lacks more than END_TOLERANCE_S of the cut.
    """
    _check_cut(start_s, end_s)
    moments = start_s + (np.arange(frames_of(end_s - start_s)) + 0.5) / FRAME_RATE_HZ
    if path.is_dir():
        numbers, files, rate_hz = _numbered_pictures(path, fps)
        times = (np.array(numbers) - numbers[0]) / rate_hz
        shown, present = _on_screen(path.name, times, 1 / rate_hz, moments, end_s)
        height, width = _picture(files[shown[0]]).shape[:2]
        pictures = {int(i): _picture(files[i], width, height) for i in np.unique(shown)}
        return _stack(path.name, [pictures[int(i)] for i in shown], present, crop)
    with MediaFile(path) as media:
        if media.video is None:
            raise MediaError(f"{path.name}: no video stream in it")
        kept: list[tuple[float, av.VideoFrame]] = []
        for time_s, frame in media.decode("video", moments[0]):
            if time_s <= moments[0] + TIE_S:
                kept = []  # what was on screen before the first moment is over
            kept.append((time_s, frame))
            if time_s > moments[-1] + TIE_S:
                break
        kept.sort(key=lambda pair: pair[0])  # damaged files may jump back
        times = np.array([time_s for time_s, _ in kept])
        shown, present = _on_screen(path.name, times, media.frame_period_s(), moments, end_s, media.trouble())
    reformatter = VideoReformatter()
    first = kept[shown[0]][1]
    pictures = {int(i): _rgb(kept[i][1], reformatter, first.width, first.height) for i in np.unique(shown)}
    return _stack(path.name, [pictures[int(i)] for i in shown], present, crop)


def read_audio(path: Path, start_s: float, end_s: float) -> np.ndarray:
    """The sound of a cut: (n,) float32, n = samples_of(end_s - start_s), 16 kHz, the mean of the file's channels.

    Raises:
        NoSound: the file has no audio stream.
        MediaError: it cannot be read, or lacks more than END_TOLERANCE_S of the cut; less is filled with zeros.
    """
    _check_cut(start_s, end_s)
    with MediaFile(path) as media:
        if media.audio is None:
            raise NoSound(f"{path.name}: no audio stream in it")
        blocks, rate_hz = _sound_blocks(media, start_s - CONTEXT_S, end_s + CONTEXT_S)
        trouble = media.trouble()
    first = _grid_start(start_s, rate_hz)
    source = np.zeros(math.ceil((end_s + CONTEXT_S) * rate_hz) - first, np.float32)
    filled = np.zeros(len(source), bool)
    for position, samples in blocks:
        low, high = max(position, first), min(position + len(samples), first + len(source))
        if low < high:
            source[low - first : high - first] = samples[low - position : high - position]
            filled[low - first : high - first] = True
    _check_filled(path.name, filled, first, rate_hz, start_s, end_s, blocks, trouble)
    sound = source if rate_hz == SAMPLE_RATE_HZ else soxr.resample(source, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    skipped = round((start_s - first / rate_hz) * SAMPLE_RATE_HZ)
    return np.ascontiguousarray(sound[skipped : skipped + samples_of(end_s - start_s)])


def _check_cut(start_s: float, end_s: float) -> None:
    if not 0 <= start_s < end_s < math.inf:
        raise UsageError(f"a cut from {start_s} to {end_s} s: expected 0 <= start < end")


def _on_screen(
    name: str, times: np.ndarray, period_s: float, moments: np.ndarray, end_s: float, trouble: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the frames, shown from `times` (ascending), is on screen at each moment: indices (T,) and present (T,)."""
    if not len(times):
        raise MediaError(f"{name}: no frame of the video can be decoded{trouble}")
    gaps = np.diff(times, append=np.inf)
    over = times + np.where(gaps <= 1.5 * period_s, gaps, period_s)  # a longer gap is a hole, not a long frame
    index = np.searchsorted(times, moments + TIE_S, side="right") - 1
    missing_s = np.where(index < 0, times[0] - moments, moments - over[index]) - TIE_S
    if (missing_s > END_TOLERANCE_S).any():
        at = index[np.argmax(missing_s > END_TOLERANCE_S)]
        cut = f"the cut needs {moments[0] - 0.5 / FRAME_RATE_HZ:.2f} to {end_s:.2f} s"
        if at < 0:
            raise MediaError(f"{name}: video starts at {times[0]:.2f} s; {cut}{trouble}")
        if at == len(times) - 1:
            raise MediaError(f"{name}: video ends at {over[at]:.2f} s; {cut}{trouble}")
        raise MediaError(f"{name}: video has no frame from {over[at]:.2f} to {times[at + 1]:.2f} s; {cut}{trouble}")
    return np.maximum(index, 0), missing_s <= 0


def _rgb(frame: av.VideoFrame, reformatter: VideoReformatter, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8, upright: a phone's recording says by how much it is turned."""
    converted = reformatter.reformat(frame, width, height, "rgb24", interpolation=CONVERSION, threads=1)
    return np.rot90(converted.to_ndarray(), round(frame.rotation / 90))


def _stack(
    name: str, pictures: list[np.ndarray], present: np.ndarray, crop: tuple[int, int, int, int] | None
) -> Frames:
    height, width = pictures[0].shape[:2]
    x, y, w, h = crop or (0, 0, width, height)
    if not (0 <= x < x + w <= width and 0 <= y < y + h <= height):
        raise MediaError(
            f"{name}: the crop x {x}, y {y}, {w} x {h} does not lie inside the picture of {width} x {height}"
        )
    return Frames(np.stack([p[y : y + h, x : x + w] for p in pictures]), present)


def _picture(path: Path, width: int | None = None, height: int | None = None) -> np.ndarray:
    """The first frame of a file, scaled where a size is given: (H, W, 3) uint8."""
    with MediaFile(path) as media:
        frame = next((f for _, f in media.decode("video", 0.0)), None) if media.video is not None else None
        if frame is None:
            raise MediaError(f"{path.name}: no picture in it{media.trouble()}")
        return _rgb(frame, VideoReformatter(), width or frame.width, height or frame.height)


def _numbered_pictures(folder: Path, fps: float | None) -> tuple[list[int], list[Path], float]:
    """Numbers (ascending), their files, and the frame rate, which must be known."""
    if not fps or not fps > 0:
        raise MediaError(f"{folder.name}: a folder of images needs its frame rate (column fps)")
    found: dict[int, Path] = {}
    for entry in sorted(folder.iterdir()):
        if match := PICTURE.fullmatch(entry.name):
            if int(match[1]) in found:
                raise MediaError(f"{folder.name}: two images carry the number {int(match[1])}")
            found[int(match[1])] = entry
    if not found:
        raise MediaError(f"{folder.name}: no numbered images (1.jpg, 2.jpg, ...) in this folder")
    numbers = sorted(found)
    return numbers, [found[n] for n in numbers], float(fps)


def _sound_blocks(media: MediaFile, from_s: float, to_s: float) -> tuple[list[tuple[int, np.ndarray]], int]:
    """Mono blocks (position in source samples from time zero, samples) that cover the range, and the source's rate.

    Decoded frames follow each other without a gap unless their timestamps step by more than RESYNC_S. The last block
    before the range is kept, so that an error can say where the sound ends.
    """
    blocks: list[tuple[int, av.AudioFrame]] = []
    rate_hz, position = 0, 0
    for time_s, frame in media.decode("audio", from_s):
        if time_s >= to_s:
            break
        if rate_hz not in (0, frame.sample_rate):
            raise MediaError(
                f"{media.name}: the sound's rate changes from {rate_hz} to {frame.sample_rate} Hz at {time_s:.2f} s"
            )
        if not rate_hz or abs(time_s - position / frame.sample_rate) > RESYNC_S:
            position = round(time_s * frame.sample_rate)
        rate_hz = frame.sample_rate
        if position + frame.samples < from_s * rate_hz:
            blocks = []
        blocks.append((position, frame))
        position += frame.samples
    if not blocks:
        raise MediaError(f"{media.name}: no sound can be decoded{media.trouble()}")
    return [(position, _mono(frame)) for position, frame in blocks], rate_hz


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """(n,) float32 in [-1, 1]: the mean of the channels."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype.kind == "u":
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values.astype(np.float32) / 2.0 ** (8 * values.dtype.itemsize - 1)
    return values.mean(axis=0, dtype=np.float32)


def _grid_start(start_s: float, rate_hz: int) -> int:
    """The source sample, CONTEXT_S before the cut, whose resampling puts an output sample exactly on `start_s`.

    Source sample p lies (start_s - p / rate) * 16000 output samples before the cut. One of every rate / gcd(rate, 16000)
    samples makes that (nearly) a whole number, so a cut from the middle equals the cut of the whole.
    """
    before = math.floor((start_s - CONTEXT_S) * rate_hz)
    candidates = before - np.arange(rate_hz // math.gcd(rate_hz, SAMPLE_RATE_HZ))
    ahead = (start_s - candidates / rate_hz) * SAMPLE_RATE_HZ
    return int(candidates[np.argmin(np.abs(ahead - np.round(ahead)).round(6))])


def _check_filled(
    name: str,
    filled: np.ndarray,
    first: int,
    rate_hz: int,
    start_s: float,
    end_s: float,
    blocks: list[tuple[int, np.ndarray]],
    trouble: str,
) -> None:
    """Raises MediaError where a stretch of the cut longer than END_TOLERANCE_S has no sound."""
    low, high = math.floor(start_s * rate_hz) - first, math.floor(end_s * rate_hz) - first
    edges = np.flatnonzero(np.diff(np.concatenate([[True], filled[low:high], [True]])))
    for begin, over in edges.reshape(-1, 2):
        if over - begin > END_TOLERANCE_S * rate_hz:
            cut = f"the cut needs {start_s:.2f} to {end_s:.2f} s{trouble}"
            last = max(position + len(samples) for position, samples in blocks)
            if last <= first + low + begin:
                raise MediaError(f"{name}: sound ends at {last / rate_hz:.2f} s; {cut}")
            if blocks[0][0] >= first + low + over:
                raise MediaError(f"{name}: sound starts at {(first + low + over) / rate_hz:.2f} s; {cut}")
            raise MediaError(
                f"{name}: no sound from {(first + low + begin) / rate_hz:.2f} to {(first + low + over) / rate_hz:.2f} s; {cut}"
            )
