"""Where the picture and the sound of many media files end, without decoding them.

By the header alone where it is exact (MP4 and WAV state every stream's length: a few ms a file), else by the timestamps
of all packets. A header that promises more than there is counts: the clip of a truncated file fails, it does not shrink.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...store.errors import MediaError
from ..container import MediaFile
from ..media import END_TOLERANCE_S

EXACT_HEADERS = (".mp4", ".m4v", ".mov", ".wav")
THREADS = 8  # the work is waiting for the disk


def ends_s(path: Path) -> dict[str, float]:
    """Seconds from the file's time zero at which its "video" and "audio" end; a stream that is not there, or empty, has no entry.

    Raises:
        MediaError: the file cannot be read, or holds neither.
    """
    with MediaFile(path) as media:
        streams: dict[str, Any] = {
            kind: s for kind, s in (("video", media.video), ("audio", media.audio)) if s is not None
        }
        if path.suffix.lower() in EXACT_HEADERS and all(
            None not in (s.start_time, s.duration) for s in streams.values()
        ):
            ends = {k: float((s.start_time + s.duration) * s.time_base) - media.zero_s for k, s in streams.items()}
        else:
            ends = media.ends_s()
    held = {kind: end_s for kind, end_s in ends.items() if end_s > 0}
    if not held:
        raise MediaError(f"{path.name}: neither picture nor sound in it")
    return held


def ends_of_many(paths: Sequence[Path]) -> list[dict[str, float] | MediaError]:
    """`ends_s` of each file, or its error."""

    def one(path: Path) -> dict[str, float] | MediaError:
        try:
            return ends_s(path)
        except MediaError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, paths))


def longest_cut_s(picture_s: float | None, sound_s: float | None) -> float:
    """The longest cut from 0 that can be read: the picture's length, or the sound's where that ends much earlier."""
    if picture_s is None or sound_s is None:
        return picture_s or sound_s or 0.0
    return picture_s if sound_s >= picture_s - END_TOLERANCE_S else sound_s
