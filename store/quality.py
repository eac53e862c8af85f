"""Facts on how good a clip's material is: one number a clip and name, kept in the ledger beside the features.

They shape no feature and no digest of features, so a store with them and one without are the same store to `merge`,
`push` and `fuse`. A clip that failed may have some too.

Shape legend: S clips of a shard, N clips of a store.
"""

import math
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
LARGEST_VALUE = 1e38  # what float32 holds; also keeps NaN and infinity out
MOST_NAMES = 32
DIGITS = 6  # kept of each number: facts for a person, in a small ledger

# What extraction fills in. Any other name that fits NAME is kept and shown as well.
MEANINGS = {
    "detector_score": "face detector's score, mean over the frames with a face",
    "face_width_px": "width of the face in pixels of the source, median over frames",
    "interpolated_share": "share of frames whose face was not found but interpolated",
    "track_jump": "largest movement of the face's centre from frame to frame, in face widths",
    "sound_level_dbfs": "root mean square of the sound, in dB relative to full scale",
    "clipped_share": "share of samples at full scale",
    "silent_share": "share of the sound that is silence",
    "audio_minus_video_s": "length of the sound minus length of the picture, in seconds",
}

Quality = dict[str, tuple[float | None, ...]]


def check_quality(quality: Any, clips: int) -> Quality:
    """Facts as they may be stored, sorted by name.

    Args:
        quality: name -> (clips,) numbers, None where there is none.

    Raises:
        ValueError: a name that is none, too many names, a number that is none, NaN, infinite or beyond float32, or not
            one number a clip.
    """
    if not isinstance(quality, Mapping) or len(quality) > MOST_NAMES:
        raise ValueError(f"quality: expected at most {MOST_NAMES} names with one number a clip")
    checked = {}
    for name, column in sorted(quality.items(), key=lambda item: str(item[0])):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"quality: {str(name)[:60]!r} is no name: expected small letters, digits and _")
        if isinstance(column, str) or not isinstance(column, Sequence) or len(column) != clips:
            raise ValueError(f"quality: {name}: expected one number for each of {clips} clips")
        if not all(issubclass(t, int | float | None) and t is not bool for t in {*map(type, column)}):
            raise ValueError(f"quality: {name}: a value is neither a number nor missing")
        if any(x is not None and not -LARGEST_VALUE <= x <= LARGEST_VALUE for x in column):
            raise ValueError(f"quality: {name}: a number is not finite")
        checked[name] = tuple(None if x is None else float(x) for x in column)
    return checked


def packed(quality: Quality) -> dict[str, str]:
    """As the ledger keeps it: per name the base64 text of float32 numbers, little endian, NaN where there is none.

    A ledger of numbers in decimals takes ten times as long to read.
    """
    return {
        name: b64encode(np.array([math.nan if x is None else x for x in column], "<f4").tobytes()).decode()
        for name, column in quality.items()
    }


def check_packed(quality: Any, clips: int) -> dict[str, str]:
    """What `packed` gave, from a stranger: names and lengths are proven here, numbers when they are unpacked.

    Raises:
        ValueError: a name that is none, too many names, or no text of the length of one number a clip.
    """
    length = 4 * -(-4 * clips // 3)
    if not isinstance(quality, Mapping) or len(quality) > MOST_NAMES:
        raise ValueError(f"quality: expected at most {MOST_NAMES} names with one number a clip")
    for name, text in quality.items():
        if not NAME.fullmatch(name):
            raise ValueError(f"quality: {name[:60]!r} is no name: expected small letters, digits and _")
        if not isinstance(text, str) or len(text) != length:
            raise ValueError(f"quality: {name}: expected one number for each of {clips} clips")
    return dict(quality)


def unpacked(quality: Mapping[str, str], clips: int) -> Quality:
    """The facts again. Raises ValueError where the text holds no finite numbers."""
    columns = {}
    for name, text in quality.items():
        numbers = np.frombuffer(b64decode(text, validate=True), "<f4")
        columns[name] = tuple(None if x != x else rounded(x) for x in numbers.tolist())  # NaN is unlike itself
    return check_quality(columns, clips)


def columns_of(clips: Sequence[Mapping[str, float]]) -> dict[str, tuple[float | None, ...]]:
    """Each clip's own facts as one column a name, rounded; what a clip lacks is None."""
    names = sorted({name for clip in clips for name in clip})
    return {name: tuple(rounded(clip.get(name)) for clip in clips) for name in names}


def rounded(value: float | None) -> float | None:
    """The same text, and so the same ledger, where two machines differ in the last bits."""
    return None if value is None else float(f"{float(value):.{DIGITS}g}")


def row_of(quality: Quality, at: int) -> dict[str, float]:
    """One clip's facts, without those that it lacks."""
    return {name: value for name, column in quality.items() if (value := column[at]) is not None}


def gathered(parts: Iterable[tuple[int, Quality]], clips: int) -> dict[str, np.ndarray]:
    """Facts of many shards as (N,) float64 a name, NaN where there is none.

    Args:
        parts: first clip of a shard, and its facts.
        clips: N.
    """
    columns: dict[str, np.ndarray] = {}
    for start, quality in parts:
        for name, values in quality.items():
            column = columns.setdefault(name, np.full(clips, np.nan))
            column[start : start + len(values)] = np.array(values, np.float64)
    return dict(sorted(columns.items()))
