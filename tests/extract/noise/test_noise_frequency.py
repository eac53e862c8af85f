"""Frequency masking: the share that is gone, where it is, and what is left."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmla.extract.encoders.base import Sound
from bmla.extract.noise.frequency import BINS, FrequencyMask, filtered, masked_bins
from bmla.store.clips import Clip

CLIP = Clip(id="a", start_s=0, end_s=1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.1 * rng(seed).standard_normal(n)).astype(np.float32)


def mask(factor: float, samples: np.ndarray, seed: int = 0) -> np.ndarray:
    return FrequencyMask(factor).add(Sound(samples), CLIP, rng(seed)).samples


def power_left(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """(257,) share of each frequency's power that is left: windows of 512 in steps of 100, the DFT as a matrix."""
    n = np.arange(512)
    dft = np.exp(-2j * np.pi * np.outer(n, np.arange(257)) / 512) * (np.sin(np.pi * n / 512) ** 2)[:, None]

    def power(x: np.ndarray) -> np.ndarray:
        frames = np.stack([x[i : i + 512] for i in range(0, len(x) - 512, 100)]).astype(float)
        return (np.abs(frames @ dft) ** 2).sum(axis=0)

    return power(noisy) / power(clean)


@given(st.floats(0, 1), st.integers(0, 2**32))
def test_masked_share_is_the_factor_within_half_a_bin_in_at_most_two_bands(factor: float, seed: int) -> None:
    masked = masked_bins(factor, rng(seed))
    assert abs(masked.mean() - factor) * BINS <= 0.5 + 1e-9
    runs = int(np.diff(np.concatenate([[0], masked.astype(int)])).clip(0).sum())
    assert runs <= 2


def test_bands_are_of_equal_width_and_fall_everywhere() -> None:
    counts = np.zeros(BINS)
    for seed in range(400):
        masked = masked_bins(0.4, rng(seed))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], masked.astype(int), [0]])))
        widths = edges[1::2] - edges[::2]
        assert sorted(widths) in ([51, 52], [103])  # 103 of 257 bins; where the two touch, one run
        counts += masked
    assert (counts > 0).all()
    assert counts.max() < 400


@pytest.mark.parametrize("factor", [0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_measured_share_of_silent_frequencies_is_the_factor_within_a_bin(factor: float, seed: int) -> None:
    clean = noise(16_000)
    left = power_left(clean, mask(factor, clean, seed))
    assert abs((left < 0.5).sum() - factor * BINS) <= 1
    expected = masked_bins(factor, rng(seed))
    inside = ~np.convolve(~expected, np.ones(7), "same").astype(bool)  # three bins from any edge
    outside = ~np.convolve(expected, np.ones(7), "same").astype(bool)
    assert (left[inside] < 1e-4).all()
    assert (np.abs(left[outside] - 1) < 0.02).all()


def test_factor_0_gives_the_sound_back_and_factor_1_silence() -> None:
    clean = noise(5000)
    np.testing.assert_allclose(mask(0, clean), clean, atol=1e-6)
    assert not mask(1, clean).any()


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 400, 511, 512, 513, 4000])
def test_every_length_comes_back_with_its_first_and_last_sample(n: int) -> None:
    clean = noise(n)
    kept = filtered(clean, np.ones(BINS, bool))
    assert kept.dtype == np.float32
    assert kept.shape == (n,)
    np.testing.assert_allclose(kept, clean, atol=1e-6)


def test_a_tone_in_a_kept_bin_stays_and_one_in_a_masked_bin_goes() -> None:
    time_s = np.arange(8000) / 16_000
    low, high = (0.3 * np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (1000, 5000))
    kept = np.arange(BINS) < 100  # up to 3.1 kHz
    middle = slice(1000, 7000)
    np.testing.assert_allclose(filtered(low + high, kept)[middle], low[middle], atol=1e-4)


def test_all_of_a_real_clip_but_the_masked_bands_is_left() -> None:
    from bmla.extract import media

    shared = Path(os.environ.get("BMLA_TEST_DATA") or Path(__file__).parents[4] / "shared")
    path = shared / "data" / "grid" / "other_speakers" / "brbk7n.mpg"
    if not path.is_file():
        pytest.skip(f"{path.name}: the GRID clips are not on this machine")
    clean = media.read_audio(path, 0, 2.9)
    np.testing.assert_allclose(mask(0, clean), clean, atol=1e-6)
    parts = masked_bins(0.4, rng(5))
    whole = filtered(clean, parts) + filtered(clean, ~parts)
    np.testing.assert_allclose(whole, clean, atol=1e-6)
