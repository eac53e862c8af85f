"""Log-spectrogram: (n,) samples at 16 kHz in, log power with its first and second derivative out, in float16.

Two layouts of the same numbers: (T, 3 x bands), one step laid out [log | d1 | d2], for models of vectors; and the paper's cube,
(T, 3, bands), for models that convolve over time and frequency.

*Source:* section 4.1.2 of the BalanceMLA paper: "a three-dimensional cube, encapsulating the log-spectrogram, its first, and
second-order derivatives". The paper gives no resolution, so every number here is our choice: windows of 25 ms every
10 ms as is usual in speech recognition; 80 mel bands, with `scale="linear"` for the plain 257 bins; no padding at the
ends, so that no step holds made-up sound.

T = floor((n - 400) / 160) + 1. Derivatives: see `delta.py`.
"""

from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np

from .base import SAMPLE_RATE_HZ, Features, Sound, WithoutNetwork, samples_of
from .delta import REACH, delta
from .finite import check_sound, to_float16
from .parameters import LogspecOptions

WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT = 512  # the next power of two
BINS = FFT // 2 + 1


class LogspecEncoder(WithoutNetwork):
    """See the module. cube: which of the two layouts."""

    takes = "sound"
    dtype = "float16"
    rate_hz = SAMPLE_RATE_HZ / HOP
    frame_law = f"T = floor((n - {WINDOW}) / {HOP}) + 1 for n samples at 16 kHz"

    def __init__(self, options: LogspecOptions, cube: bool = False):
        self.options = options
        self.filters = mel_triangles(options.bands) if options.scale == "mel" else None
        self.bands = options.bands if self.filters is not None else BINS
        self.feature_shape: tuple[int, ...] = (3, self.bands) if cube else (3 * self.bands,)

    def steps(self, duration_s: float) -> int:
        return max(0, (samples_of(duration_s) - WINDOW) // HOP + 1)

    def describe(self) -> dict[str, Any]:
        used = asdict(self.options)
        used["bands"] = self.bands
        fixed = {"window": WINDOW, "window_shape": "hann", "hop": HOP, "fft": FFT, "delta_reach": REACH}
        return {"weights": None, "parameters": used | fixed, "versions": {"numpy": metadata.version("numpy")}}

    def prepare(self, clip: Sound) -> Features:
        """Raises MediaError for a clip shorter than one window or with samples that are not finite."""
        check_sound(clip.samples, WINDOW)
        power = power_spectrum(clip.samples)  # (T, 257)
        if self.filters is not None:
            power = power @ self.filters  # (T, bands)
        log = np.log(np.maximum(power, self.options.floor))
        first = delta(log)
        cube = np.stack([log, first, delta(first)], axis=1)  # (T, 3, bands)
        values = to_float16(cube.reshape(-1, *self.feature_shape))
        return Features(values, np.ones(len(values), bool))


def power_spectrum(samples: np.ndarray) -> np.ndarray:
    """(n,) samples -> (T, 257) float64: |DFT of 512|^2 of each 400 samples under a periodic Hann window."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), WINDOW)[::HOP]  # (T, 400)
    return np.abs(np.fft.rfft(frames * hann, FFT)) ** 2


def mel_triangles(bands: int) -> np.ndarray:
    """(257, bands) float64: triangles evenly spaced on the mel scale from 0 to 8 kHz, each of area 1 over Hz.

    The mel scale is Slaney's (Auditory Toolbox 1998), as in librosa and Whisper: linear below 1 kHz. The HTK scale
    would, at this resolution, leave the lowest triangles between two bins and empty.
    """
    top = hz_to_mel(np.array(SAMPLE_RATE_HZ / 2))
    corners = mel_to_hz(np.linspace(0, top, bands + 2))
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    hz = np.linspace(0, SAMPLE_RATE_HZ / 2, BINS)[:, None]
    rise, fall = (hz - low) / (peak - low), (high - hz) / (high - peak)
    return np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """3 mel per 200 Hz up to 1 kHz (15 mel), then 27 mel per factor of 6.4."""
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
