"""Log filterbanks as AV-HuBERT was trained with them: (n,) samples at 16 kHz in, (T, 104) at 25 Hz out.

*Source:* `load_feature` of the public code, https://github.com/facebookresearch/av_hubert, which calls `logfbank` of
python_speech_features (Lyons) with its defaults: pre-emphasis 0.97, frames of 25 ms every 10 ms without a window, 512-point
power spectrum, 26 triangles on the mel scale 2595 log10(1 + f / 700) laid on whole bins, natural logarithm. Four frames make
a step; what is missing of the last one, or of as many steps as there are pictures, is zero. Each step is then
normalised over its own 104 numbers (the code's `layer_norm` over all but the first axis): the sound's level drops out.
"""

from functools import cache

import numpy as np

RATE_HZ = 16_000
FRAME, HOP = 400, 160  # samples
FFT = 512
BANDS = 26
STACK = 4
STEP = HOP * STACK  # samples
FULL_SCALE = 32768  # the code reads 16-bit numbers
EPS = 1e-5  # torch's layer_norm
FLOOR = float(np.finfo(np.float64).eps)  # in the place of a band without any energy


def steps_of_sound(samples: int) -> int:
    """How many steps belong to so many samples: as many as there are pictures at 25 a second."""
    return max(1, round(samples / STEP))


def stacked_filterbank(samples: np.ndarray, steps: int) -> np.ndarray:
    """(n,) float32 in [-1, 1] -> (steps, 104) float32."""
    bands = log_filterbank(samples.astype(np.float64) * FULL_SCALE)
    padded = np.zeros((max(steps, -(-len(bands) // STACK)) * STACK, BANDS))
    padded[: len(bands)] = bands
    stacked = padded.reshape(-1, STACK * BANDS)[:steps]
    centred = stacked - stacked.mean(axis=1, keepdims=True)
    return (centred / np.sqrt(stacked.var(axis=1, keepdims=True) + EPS)).astype(np.float32)


def log_filterbank(signal: np.ndarray) -> np.ndarray:
    """(n,) numbers, at least one -> (1 + ceil((n - 400) / 160), 26) natural logarithms of energies."""
    emphasised = np.append(signal[0], signal[1:] - 0.97 * signal[:-1])
    frames = 1 + max(0, -(-(len(signal) - FRAME) // HOP))
    padded = np.zeros((frames - 1) * HOP + FRAME)
    padded[: len(signal)] = emphasised
    windows = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    power = np.abs(np.fft.rfft(windows, FFT)) ** 2 / FFT
    energy = power @ triangles().T
    return np.log(np.where(energy == 0, FLOOR, energy))


@cache
def triangles() -> np.ndarray:
    """(26, 257): each rises from one bin to the next of 28 and falls to the one after."""
    highest = 2595 * np.log10(1 + RATE_HZ / 2 / 700)
    hz = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    edges = np.floor((FFT + 1) * hz / RATE_HZ)  # in bins
    bins = np.arange(FFT // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / np.maximum(middle - low, 1)
    falling = (high - bins) / np.maximum(high - middle, 1)
    return np.where((bins >= low) & (bins < middle), rising, np.where((bins >= middle) & (bins < high), falling, 0.0))
