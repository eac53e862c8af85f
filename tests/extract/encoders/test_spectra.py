"""Mel spectra of AVBERT and MAViL against transformers' own."""

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from bmla.extract.encoders.spectra import kaldi_log_mel, stretched_log_mel


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # so has Kaldi's, of 128
@pytest.mark.parametrize("samples", [400, 559, 560, 16_000])
def test_kaldis_filterbank_is_that_of_transformers(samples: int) -> None:
    sound = noise(samples)
    filters = mel_filter_bank(257, 128, 20, 8000, 16_000, None, "kaldi", triangularize_in_mel_space=True)
    filters[-1] = 0  # Kaldi has no last bin; its triangle ends there anyway
    expected = spectrogram(
        sound,
        window_function(400, "hann", periodic=False),
        400,
        160,
        512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    ).T
    found = kaldi_log_mel(sound, 128)
    assert found.shape == (1 + (samples - 400) // 160, 128)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("samples", [94_080, 51_156, 45_160])
def test_the_stretched_spectrum_is_that_of_transformers(samples: int) -> None:
    sound = noise(samples)
    hop = samples // 128 + 1
    filters = mel_filter_bank(hop + 1, 80, 0, 22_050, 44_100, None, "htk")
    expected = spectrogram(
        sound, window_function(2 * hop, "hann"), 2 * hop, hop, power=2.0, mel_filters=filters, mel_floor=0.0
    )
    found = stretched_log_mel(sound, 44_100, 80, 128)
    assert found.shape == (80, 128)
    columns = min(128, expected.shape[1])
    assert columns >= 127
    np.testing.assert_allclose(found[:, :columns], np.log(1e-6 + expected[:, :columns]), rtol=1e-3, atol=1e-3)
    assert not found[:, columns:].any()


def test_silence_is_the_floor() -> None:
    assert np.unique(kaldi_log_mel(np.zeros(800), 8)).tolist() == [np.log(np.finfo(np.float32).eps)]
    assert np.unique(stretched_log_mel(np.zeros(1280), 44_100, 8, 8)).tolist() == [np.float32(np.log(1e-6))]
