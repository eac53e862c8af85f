"""Facts on a clip's sound and its files, kept beside its features so that a person sees what was extracted; those on its
face are in `faces`.

The names are those of `store.quality.MEANINGS`.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from ..store.clips import Clip
from ..store.errors import MediaError
from .datasets.lengths import EXACT_HEADERS, ends_s
from .encoders.base import SAMPLE_RATE_HZ, Sound

FULL_SCALE = 0.999  # 16-bit sound at its limit, through a resampler that rings
SILENCE_DBFS = -60.0
WINDOW = SAMPLE_RATE_HZ // 50  # 20 ms
MOST_BYTES = 32 << 20  # read through for its lengths where the header does not state them; dialogues of an hour are not
FILES_KEPT = 16  # clips of one file follow each other
FLOOR = 1e-10  # power: -100 dBFS, so that silence is a number


def quality_of_sound(sound: Sound) -> dict[str, float]:
    """Level in dB relative to full scale, share of samples at full scale, share of 20 ms windows below -60 dBFS."""
    samples = sound.samples.astype(np.float64)
    if not len(samples) or not np.isfinite(samples).all():  # no sound: the clip will fail by that, not by its facts
        return {}
    windows = samples[: max(len(samples) // WINDOW, 1) * WINDOW]
    powers = np.square(windows).reshape(-1, min(WINDOW, len(samples))).mean(1)
    return {
        "sound_level_dbfs": float(10 * np.log10(max(np.square(samples).mean(), FLOOR))),
        "clipped_share": float((np.abs(samples) >= FULL_SCALE).mean()),
        "silent_share": float((powers < 10 ** (SILENCE_DBFS / 10)).mean()),
    }


def quality_of_files(clip: Clip, root: Path) -> dict[str, float]:
    """By how much the sound of the clip's material is longer than its picture: by headers or packets, nothing is decoded.

    Returns:
        audio_minus_video_s: where the file's sound ends less where its picture ends, in seconds, whatever the cut is. Of two
            files only where both begin with the clip. Absent where there is no sound or no picture, pictures are a
            folder of images, a file can't be read, or its length is not stated and it is too large to be read through.
    """
    if clip.video is None or clip.audio is None:
        return {}
    if clip.audio != clip.video and (clip.start_s, clip.sound_cut[0]) != (0.0, 0.0):
        return {}
    sound_s, picture_s = _end_s(root / clip.audio, "audio"), _end_s(root / clip.video, "video")
    if sound_s is None or picture_s is None:
        return {}
    return {"audio_minus_video_s": round(sound_s - picture_s, 6)}


def _end_s(path: Path, kind: str) -> float | None:
    try:
        stat = path.stat()
        if path.is_dir() or (path.suffix.lower() not in EXACT_HEADERS and stat.st_size > MOST_BYTES):
            return None
        return _ends_s(path, stat.st_mtime_ns).get(kind)
    except (MediaError, OSError):  # whoever reads the clip will say so
        return None


@lru_cache(FILES_KEPT)
def _ends_s(path: Path, changed_ns: int) -> dict[str, float]:
    """`ends_s` of a file that was last changed then."""
    return ends_s(path)
