"""AV-HuBERT's filterbanks against sums that are written out."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from bmla.extract.encoders.filterbank import log_filterbank, stacked_filterbank, steps_of_sound


def written_out(signal: np.ndarray) -> np.ndarray:
    """python_speech_features' logfbank with its defaults, by its documentation, one number at a time."""
    emphasised = [float(signal[0])] + [float(b - 0.97 * a) for a, b in pairwise(signal)]
    frames = 1 if len(signal) <= 400 else 1 + math.ceil((len(signal) - 400) / 160)
    emphasised += [0.0] * ((frames - 1) * 160 + 400 - len(emphasised))
    top = 2595 * math.log10(1 + 8000 / 700)
    edges = [math.floor(513 * 700 * (10 ** (top * i / 27 / 2595) - 1) / 16000) for i in range(28)]
    waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    rows = []
    for frame in range(frames):
        power = np.abs(waves @ np.array(emphasised[160 * frame : 160 * frame + 400])) ** 2 / 512
        row = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            energy = sum(power[k] * (k - low) / (middle - low) for k in range(low, middle))
            energy += sum(power[k] * (high - k) / (high - middle) for k in range(middle, high))
            row.append(math.log(energy or 2.220446049250313e-16))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 560, 561, 1500])
def test_bands_are_the_written_out_ones(samples: int) -> None:
    signal = np.random.default_rng(samples).normal(0, 2000, samples)
    np.testing.assert_allclose(log_filterbank(signal), written_out(signal), rtol=1e-9, atol=1e-9)


def test_silence_is_the_floor_and_normalised_to_zero() -> None:
    assert np.unique(log_filterbank(np.zeros(800))).tolist() == [math.log(2.220446049250313e-16)]
    assert np.abs(stacked_filterbank(np.zeros(1280, np.float32), 3)[[0, 2]]).max() < 1e-9  # the second is half over


@pytest.mark.parametrize(("samples", "steps"), [(640, 1), (18_560, 29), (18_560, 31), (18_560, 20), (401, 1)])
def test_steps_are_four_frames_normalised_over_themselves_and_zero_where_sound_is_over(
    samples: int, steps: int
) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    bands = log_filterbank(sound.astype(np.float64) * 32768)
    found = stacked_filterbank(sound, steps)
    assert found.shape == (steps, 104)
    assert found.dtype == np.float32
    for step, row in enumerate(found):
        four = bands[4 * step : 4 * step + 4].ravel()
        four = torch.tensor(np.append(four, np.zeros(104 - len(four))))
        np.testing.assert_allclose(row, torch.nn.functional.layer_norm(four, (104,)).numpy(), atol=1e-5)


def test_level_drops_out() -> None:
    sound = np.random.default_rng(1).normal(0, 0.1, 6400).astype(np.float32)
    np.testing.assert_allclose(stacked_filterbank(sound, 9), stacked_filterbank(sound / 4, 9), atol=1e-4)


def test_there_are_as_many_steps_as_pictures() -> None:
    assert [steps_of_sound(n) for n in (1, 640, 18_560, 18_880, 16_000)] == [1, 1, 29, 30, 25]
