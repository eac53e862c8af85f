"""The log-spectrogram cube against a computation written out from its definition."""

import math

import numpy as np
import pytest

from bmla.extract.encoders.base import Sound, encode
from bmla.extract.encoders.logspec import LogspecEncoder, mel_triangles
from bmla.extract.encoders.parameters import LogspecOptions
from bmla.extract.encoders.table import build
from bmla.store.errors import MediaError, UsageError


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def written_out_log(samples: np.ndarray, filters: np.ndarray | None) -> np.ndarray:
    """(T, bands): every sum of the DFT spelt out as a matrix of cosines and sines."""
    steps = 1 + math.floor((len(samples) - 400) / 160)
    n = np.arange(400)
    window = np.sin(np.pi * n / 400) ** 2  # Hann
    angle = 2 * np.pi * np.outer(n, np.arange(257)) / 512
    rows = []
    for t in range(steps):
        x = samples[160 * t : 160 * t + 400].astype(np.float64) * window
        power = (x @ np.cos(angle)) ** 2 + (x @ np.sin(angle)) ** 2
        rows.append(power if filters is None else [np.sum(power * filters[:, b]) for b in range(filters.shape[1])])
    return np.log(np.maximum(np.array(rows), 1e-10))


def written_out_triangles(bands: int) -> np.ndarray:
    """(257, bands) by the definition of Slaney's scale: steps of 66.67 Hz to 1 kHz, then factors of 6.4^(1/27)."""

    def hz(mel: float) -> float:
        return mel * 66.66666666666667 if mel <= 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    top = 15 + 27 * math.log(8) / math.log(6.4)
    corners = [hz(i * top / (bands + 1)) for i in range(bands + 2)]
    filters = np.zeros((257, bands))
    for b, (low, peak, high) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        for k in range(257):
            f = k * 31.25
            if low < f <= peak:
                filters[k, b] = (f - low) / (peak - low)
            elif peak < f < high:
                filters[k, b] = (high - f) / (high - peak)
        filters[:, b] *= 2 / (high - low)
    return filters


def written_out_delta(rows: np.ndarray) -> np.ndarray:
    last = len(rows) - 1
    return np.array(
        [sum(k * (rows[min(t + k, last)] - rows[max(t - k, 0)]) for k in (1, 2)) / 10 for t in range(len(rows))]
    )


@pytest.mark.parametrize("scale", ["mel", "linear"])
def test_values_are_the_written_out_spectrogram(scale: str) -> None:
    samples = noise(4000)
    values = encode(LogspecEncoder(LogspecOptions(scale=scale)), [Sound(samples)])[0].values
    log = written_out_log(samples, written_out_triangles(80) if scale == "mel" else None)
    expected = np.concatenate([log, written_out_delta(log), written_out_delta(written_out_delta(log))], axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)  # float16
    assert values.shape == expected.shape == (23, 240 if scale == "mel" else 771)


def test_triangles_are_those_of_the_definition_and_none_is_empty() -> None:
    np.testing.assert_allclose(mel_triangles(80), written_out_triangles(80), atol=1e-12)
    assert (mel_triangles(160).sum(axis=0) > 0).all()


def test_a_tone_is_loudest_in_its_band() -> None:
    samples = np.sin(2 * np.pi * 1000 * np.arange(8000) / 16000).astype(np.float32)
    log = encode(LogspecEncoder(LogspecOptions()), [Sound(samples)])[0].values[:, :80]
    centres = (np.arange(257) * 31.25) @ (mel_triangles(80) / mel_triangles(80).sum(axis=0))
    assert (np.abs(centres[log.argmax(axis=1)] - 1000) < 40).all()


def test_silence_gives_the_floor_and_no_derivatives() -> None:
    values = encode(LogspecEncoder(LogspecOptions()), [Sound(np.zeros(1600, np.float32))])[0].values
    np.testing.assert_allclose(values[:, :80], math.log(1e-10), rtol=1e-3)
    assert not values[:, 80:].any()


@pytest.mark.parametrize("samples", [400, 559, 560, 561, 18560])
def test_steps_follow_the_frame_law(samples: int) -> None:
    features = encode(LogspecEncoder(LogspecOptions()), [Sound(noise(samples))])[0]
    expected = (samples - 400) // 160 + 1
    assert (
        len(features.values)
        == len(features.valid)
        == LogspecEncoder(LogspecOptions()).steps(samples / 16000)
        == expected
    )
    assert features.valid.all()


def test_sound_shorter_than_a_window_is_a_media_error() -> None:
    with pytest.raises(MediaError, match=r"^399 samples of sound, expected at least .* 400"):
        encode(LogspecEncoder(LogspecOptions()), [Sound(noise(400)), Sound(noise(399))])
    assert LogspecEncoder(LogspecOptions()).steps(0.01) == 0


def test_samples_that_are_not_numbers_are_a_media_error() -> None:
    samples = noise(1600)
    samples[800] = np.nan
    with pytest.raises(MediaError, match=r"^.* NaN or infinite"):
        encode(LogspecEncoder(LogspecOptions()), [Sound(samples)])


@pytest.mark.parametrize("options", [{"scale": "bark"}, {"bands": 0}, {"bands": 161}, {"floor": 0.0}])
def test_resolution_that_makes_no_sense_is_a_usage_error(options: dict) -> None:
    with pytest.raises(UsageError, match=r"audio\.logspec-cube: "):
        build("audio.logspec-cube", parameters=options)


@pytest.mark.parametrize(("parameters", "bands"), [({}, 80), ({"bands": 40}, 40), ({"scale": "linear"}, 257)])
def test_cube_has_the_same_numbers_as_three_pictures(parameters: dict, bands: int) -> None:
    sound = Sound(noise(4000))
    vectors, cube = (build(s, parameters=parameters) for s in ("audio.logspec", "audio.logspec-cube"))
    assert cube.feature_shape == (3, bands)
    assert cube.describe() == vectors.describe()
    flat, values = (encode(encoder, [sound])[0].values for encoder in (vectors, cube))
    for i in range(3):
        np.testing.assert_array_equal(values[:, i], flat[:, i * bands : (i + 1) * bands])
