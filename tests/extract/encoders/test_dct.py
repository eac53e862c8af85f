"""The DCT of mouth crops against the definition."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bmla.extract.encoders.base import Sight, encode
from bmla.extract.encoders.dct import zigzag
from bmla.extract.encoders.table import build
from bmla.extract.faces.crops import MouthCrop, mouth_crop
from bmla.store.errors import UsageError


def written_out_coefficient(image: np.ndarray, u: int, v: int) -> float:
    """One coefficient of the orthonormal DCT-II, by its sum."""
    size = len(image)
    norm = math.sqrt((1 if u == 0 else 2) / size) * math.sqrt((1 if v == 0 else 2) / size)
    x = np.arange(size)
    down = np.cos(math.pi * (2 * x + 1) * u / (2 * size))
    across = np.cos(math.pi * (2 * x + 1) * v / (2 * size))
    return norm * float(down @ image @ across)


def test_zigzag_is_jpegs() -> None:
    expected = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0), (4, 0)]
    assert [tuple(p) for p in zigzag(80)[:, :11].T] == expected
    rows, columns = zigzag(80)
    assert sorted(rows * 80 + columns) == list(range(6400))


def test_coefficients_are_the_written_out_dct(make_sight: Callable[[float, int], Sight]) -> None:
    clip = make_sight(0.24, 1)
    values = encode(build("mouth.dct"), [clip])[0].values
    assert values.shape == (6, 128)
    images = mouth_crop(clip.frames, clip.landmarks, MouthCrop(size_px=80)) / 255
    places = [(0, 1), (1, 0), (2, 0), (1, 1), (0, 2)]
    expected = np.array([[written_out_coefficient(image, u, v) for u, v in places] for image in images])
    np.testing.assert_allclose(values[:, :5], expected, rtol=1e-3, atol=1e-3)
    last = 5
    slopes = [sum(k * (expected[min(t + k, last)] - expected[max(t - k, 0)]) for k in (1, 2)) / 10 for t in range(6)]
    np.testing.assert_allclose(values[:, 64:69], slopes, rtol=1e-3, atol=1e-3)


def test_brightness_alone_leaves_no_trace(make_sight: Callable[[float, int], Sight]) -> None:
    clip = make_sight(0.12, 2)
    plain = [
        Sight(np.full_like(clip.frames, grey), clip.boxes, clip.landmarks, clip.valid, clip.scores)
        for grey in (90, 160)
    ]
    for features in encode(build("mouth.dct"), plain):
        np.testing.assert_allclose(features.values.astype(float), 0, atol=1e-6)


def test_still_mouth_has_no_derivative(make_sight: Callable[[float, int], Sight]) -> None:
    clip = make_sight(0.04, 3)
    still = replace(clip, **{k: np.repeat(v, 6, axis=0) for k, v in vars(clip).items() if v is not None})
    values = encode(build("mouth.dct"), [still])[0].values
    assert values[:, :64].any()
    assert not values[:, 64:].any()


def test_size_and_policy_are_parameters(make_sight: Callable[[float, int], Sight]) -> None:
    clip = make_sight(0.08, 4)
    parameters = {"crop_px": 32, "coefficients": 20, "align": "box", "width": 1.2, "sigma_frames": 0.0}
    small = build("mouth.dct", parameters=parameters)
    values = encode(small, [clip])[0].values
    assert values.shape == (2, *small.feature_shape) == (2, 40)
    policy = MouthCrop(size_px=32, width=1.2, sigma_frames=0, align="box")
    assert small.describe()["crop"] == policy.describe()
    images = mouth_crop(clip.frames, clip.landmarks, policy) / 255
    np.testing.assert_allclose(values[:, 1], [written_out_coefficient(i, 1, 0) for i in images], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{"coefficients": 0}, {"coefficients": 6400}, {"crop_px": 1}])
def test_options_that_make_no_sense_are_usage_errors(options: dict) -> None:
    with pytest.raises(UsageError, match=r"mouth\.dct: .* coefficients of a .* px crop"):
        build("mouth.dct", parameters=options)
