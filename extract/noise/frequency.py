"""Frequency masking of a waveform: (n,) float32 in, the same length out, with bands of its spectrum gone.

*Source:* the BalanceMLA paper, section 4.1.2: "a speech enhancement technique described in Park et al. (2019), applying
varying levels of frequency occlusion, referred to as the mask factor, to the pristine acoustic data"; Park et al. 2019
(SpecAugment), section 2. SpecAugment masks channels of a spectrogram that a network reads; HuBERT reads a waveform, so
we mask the bins of its short-time Fourier transform and resynthesise. The paper does not say what the factor counts:
here it is the share of the STFT's bins (on a linear axis from 0 to 8 kHz) that are zeroed, for the whole clip, in two
bands of equal width (two masks, as in SpecAugment's policies LD and SM) at random places where they don't overlap.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...store.clips import Clip
from ..encoders.base import SAMPLE_RATE_HZ, Sound

WINDOW = 512  # samples: 32 ms, about HuBERT's field of 25 ms
HOP = 128
BINS = WINDOW // 2 + 1
BANDS = 2


@dataclass(frozen=True)
class FrequencyMask:
    """factor: share of the frequency axis that is zeroed, 0 to 1. At 1 nothing is left: silence."""

    factor: float

    def describe(self) -> dict[str, Any]:
        return {
            "masked_bins": round(self.factor * BINS),
            "bins": BINS,
            "bands": BANDS,
            "bands_placed": "at random for the whole clip, of equal width, never overlapping",
            "window": "hann",
            "window_samples": WINDOW,
            "hop_samples": HOP,
            "rate_hz": SAMPLE_RATE_HZ,
            "resynthesis": "zeroed bins, inverse STFT, weighted overlap-add",
        }

    def add(self, sound: Sound, clip: Clip, rng: np.random.Generator) -> Sound:
        return Sound(filtered(sound.samples, ~masked_bins(self.factor, rng)))


def masked_bins(factor: float, rng: np.random.Generator) -> np.ndarray:
    """(BINS,) bool: round(factor x BINS) of them True, in BANDS runs (fewer where two of them happen to touch)."""
    total = round(factor * BINS)
    widths = [total // BANDS + (band < total % BANDS) for band in range(BANDS)]
    # Where each band sits among the free bins: any of the free + 1 slots, ascending; two bands in one slot touch.
    slots = np.sort(rng.integers(0, BINS - total, endpoint=True, size=BANDS))
    masked = np.zeros(BINS, bool)
    for band, slot in enumerate(slots):
        start = int(slot) + sum(widths[:band])
        masked[start : start + widths[band]] = True
    return masked


def filtered(samples: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The sound made of the kept bins alone.

    The window is applied before and after the transform; where all bins are kept the sound comes back to rounding.

    Args:
        samples: (n,) float32.
        kept: (BINS,) bool.

    Returns:
        (n,) float32.
    """
    n = len(samples)
    frames = -(-n // HOP) + WINDOW // HOP - 1  # every sample lies under WINDOW / HOP windows, the first and last too
    lead = WINDOW - HOP
    padded = np.zeros((frames - 1) * HOP + WINDOW)
    padded[lead : lead + n] = samples
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    heard = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * window  # (frames, WINDOW)
    spectrum = np.fft.rfft(heard, axis=1) * kept
    again = np.fft.irfft(spectrum, WINDOW, axis=1) * window
    total = np.zeros_like(padded)
    for k, frame in enumerate(again):
        total[k * HOP : k * HOP + WINDOW] += frame
    weight = (window**2).reshape(-1, HOP).sum(axis=0)  # (HOP,): what each sample was weighted with, 1.5 everywhere
    total /= np.resize(weight, len(total))
    return total[lead : lead + n].astype(np.float32)
