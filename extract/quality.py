"""Facts on a clip's sound, kept beside its features so that a person sees what was extracted; those on its face are in `faces`.

The names are those of `store.quality.MEANINGS`.
"""

import numpy as np

from .encoders.base import SAMPLE_RATE_HZ, Sound

FULL_SCALE = 0.999  # 16-bit sound at its limit, through a resampler that rings
SILENCE_DBFS = -60.0
WINDOW = SAMPLE_RATE_HZ // 50  # 20 ms
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
