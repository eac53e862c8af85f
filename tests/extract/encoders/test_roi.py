"""Crops as streams: those of the policy that the parameters say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bmla.extract.encoders.base import Sight, encode
from bmla.extract.encoders.table import build
from bmla.extract.faces.crops import FaceCrop, MouthCrop, aligned_face_crop, face_crop, mouth_crop
from bmla.store.errors import UsageError


def test_mouths_are_those_of_the_landmarks(make_sight: Callable[[float, int], Sight]) -> None:
    clip = make_sight(0.2, 0)
    features = encode(build("mouth.roi"), [clip])[0]
    assert features.values.shape == (5, 80, 80)
    assert features.values.dtype == np.uint8
    np.testing.assert_array_equal(features.values, mouth_crop(clip.frames, clip.landmarks, MouthCrop(size_px=80)))
    assert features.values.std() > 5  # a mouth, no blank


def test_faces_are_those_of_the_box(make_sight: Callable[[float, int], Sight]) -> None:
    clip = make_sight(0.12, 0)
    values = encode(build("face.roi"), [clip])[0].values
    assert values.shape == (3, 128, 128, 3)
    np.testing.assert_array_equal(values, face_crop(clip.frames, clip.boxes, FaceCrop(size_px=128)))


@pytest.mark.parametrize(
    ("parameters", "shape"),
    [
        ({"crop_px": 96, "colour": "rgb", "width": 2.0, "align": "box", "sigma_frames": 0.0}, (96, 96, 3)),
        ({"crop_px": 64, "colour": "grey", "sigma_frames": 1}, (64, 64)),
    ],
)
def test_policy_of_a_mouth_is_by_parameters(
    make_sight: Callable[[float, int], Sight], parameters: dict[str, Any], shape: tuple[int, ...]
) -> None:
    clip = make_sight(0.12, 1)
    encoder = build("mouth.roi", parameters=parameters)
    policy = MouthCrop(**{"size_px" if k == "crop_px" else k: v for k, v in parameters.items()})
    assert encoder.feature_shape == shape
    assert encoder.describe()["crop"] == policy.describe()
    np.testing.assert_array_equal(encode(encoder, [clip])[0].values, mouth_crop(clip.frames, clip.landmarks, policy))


def test_policy_of_a_face_is_by_parameters(make_sight: Callable[[float, int], Sight]) -> None:
    clip = make_sight(0.12, 1)
    encoder = build("face.roi", parameters={"crop_px": 64, "colour": "grey", "align": "similarity", "margin": 0.3})
    policy = FaceCrop(size_px=64, margin=0.3, align="similarity", colour="grey")
    assert encoder.feature_shape == (64, 64)
    np.testing.assert_array_equal(
        encode(encoder, [clip])[0].values, aligned_face_crop(clip.frames, clip.landmarks, policy)
    )
    assert encoder.describe()["crop"]["policy"] == "face, aligned by eyes and nose"
    assert encoder.describe()["crop"]["colour"] == "grey"


def test_default_description_is_that_of_earlier_stores() -> None:
    assert build("mouth.roi").describe() == {
        "weights": None,
        "parameters": {},
        "crop": {
            "policy": "mouth, aligned by eyes and nose",
            "size_px": 80,
            "width": 1.5,
            "sigma_frames": 2.0,
            "colour": "grey",
            "resampling": "bilinear; block mean where it shrinks",
        },
        "versions": {},
    }


@pytest.mark.parametrize(
    ("stream", "parameters", "message"),
    [
        ("mouth.roi", {"crop_px": 0}, r"mouth\.roi: .*expected size_px of at least 1"),
        ("mouth.roi", {"width": 0.0}, r"mouth\.roi: .*width above 0"),
        ("mouth.roi", {"colour": "red"}, r'mouth\.roi: colour "red" is not one of grey, rgb'),
        ("face.roi", {"align": "eyes"}, r'face\.roi: align "eyes" is not one of similarity, box'),
        ("face.roi", {"margin": -0.5}, r"face\.roi: .*margin above -0\.5"),
    ],
)
def test_policy_that_makes_no_sense_is_a_usage_error(stream: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(stream, parameters=parameters)
