"""Numbers that can be encoded and stored: checks of the sound that goes in and of the features that come out."""

import numpy as np

from ...store.errors import MediaError
from .base import SAMPLE_RATE_HZ

FLOAT16_MAX = float(np.finfo(np.float16).max)


def check_sound(samples: np.ndarray, window: int) -> None:
    """Raises MediaError for sound shorter than the encoder's window (in samples) or with samples that are no numbers."""
    if len(samples) < window:
        shortest_ms = 1000 * window / SAMPLE_RATE_HZ
        raise MediaError(
            f"{len(samples)} samples of sound, expected at least one window of {window} ({shortest_ms:.0f} ms)"
        )
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).sum())
        raise MediaError(f"{count} of {len(samples)} samples of sound are NaN or infinite")


def to_float16(values: np.ndarray, place: str = "") -> np.ndarray:
    """The values as float16.

    Args:
        place: which clip, for the message: see `place_of`; "" where only one can be meant.

    Raises:
        MediaError: where a value is NaN or infinite, or is larger than float16 can hold.
    """
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise MediaError(f"{place}{count} of {values.size} feature values are NaN or infinite")
    if values.size and (largest := float(np.abs(values).max())) > FLOAT16_MAX:
        raise MediaError(f"{place}feature value {largest:.4g} is beyond float16 (largest: {FLOAT16_MAX:.0f})")
    return values.astype(np.float16)


def place_of(index: int, count: int) -> str:
    """How a message names a clip, which carries no name of its own here."""
    return f"clip {index + 1} of the {count} in this batch: " if count > 1 else ""
