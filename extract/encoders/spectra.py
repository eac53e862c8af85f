"""Mel spectra as two public models were trained with them: AVBERT's, which stretch with the sound, and MAViL's, which are Kaldi's.

*Source:* `get_log_mel_spectrogram` of AV-SUPERB's copy of AVBERT, which calls torchaudio's MelSpectrogram with its defaults; and
`preprocess_audio` of its copy of MAViL, which calls torchaudio's kaldi.fbank (https://github.com/roger-tseng/av-superb).

Shape legend: n samples, C columns, M mel bands.
"""

from functools import cache

import numpy as np

RATE_HZ = 16_000
FRAME, HOP, FFT = 400, 160, 512  # of Kaldi's, in samples
LOWEST_HZ = 20.0
KALDI_FLOOR = float(np.finfo(np.float32).eps)


def stretched_log_mel(sound: np.ndarray, rate_hz: int, bands: int, columns: int) -> np.ndarray:
    """(n,) -> (bands, columns) float32: as many columns, whatever n is; what lacks at the end is zero.

    The window is two hops long and the hop is chosen to give that many: floor(n / columns) + 1 samples.
    """
    hop = len(sound) // columns + 1
    window = np.sin(np.pi * np.arange(2 * hop) / (2 * hop)) ** 2  # Hann, periodic
    padded = np.pad(sound.astype(np.float64), hop, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[::hop]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    found = np.log(1e-6 + power @ htk_filters(hop + 1, bands, rate_hz).T)[:columns]  # (C, M)
    spectrum = np.zeros((bands, columns), np.float32)
    spectrum[:, : len(found)] = found.T
    return spectrum


@cache
def htk_filters(bins: int, bands: int, rate_hz: int) -> np.ndarray:
    """(bands, bins): triangles on the frequency axis whose corners are even on the scale 2595 log10(1 + f / 700)."""
    hz = np.linspace(0, rate_hz // 2, bins)
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate_hz / 2 / 700), bands + 2) / 2595) - 1)
    rising = (hz - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - hz) / np.diff(corners)[1:, None]
    return np.maximum(0, np.minimum(rising, falling))


def kaldi_log_mel(sound: np.ndarray, bands: int) -> np.ndarray:
    """(n,) at 16 kHz, a frame at least -> (1 + floor((n - 400) / 160), bands) float64 natural logarithms.

    25 ms every 10 ms without a start or end made up; each frame without its mean, with a pre-emphasis of 0.97 and a Hann window.
    """
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), FRAME)[::HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames * np.hanning(FRAME), FFT)) ** 2
    return np.log(np.maximum(power @ kaldi_filters(bands).T, KALDI_FLOOR))


@cache
def kaldi_filters(bands: int) -> np.ndarray:
    """(bands, 257): triangles on the mel axis 1127 ln(1 + f / 700), from 20 Hz; the last bin is left out."""

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 1127 * np.log(1 + np.asarray(hz) / 700)

    corners = np.linspace(mel(LOWEST_HZ), mel(RATE_HZ / 2), bands + 2)
    places = mel(np.arange(FFT // 2 + 1) * RATE_HZ / FFT)
    rising = (places - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - places) / np.diff(corners)[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    filters[:, -1] = 0
    return filters
