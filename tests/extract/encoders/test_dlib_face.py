"""Dlib's face descriptor against dlib's own use of it."""

from collections.abc import Callable
from dataclasses import replace

import dlib
import numpy as np
import pytest

from bmla.extract.encoders.base import Sight, encode
from bmla.extract.encoders.dlib_face import DlibFaceEncoder
from bmla.extract.encoders.parameters import DlibFaceOptions
from bmla.extract.encoders.table import build
from bmla.extract.weights import DLIB_DESCRIPTOR, DLIB_LANDMARKS, face_recognition_model
from bmla.store.errors import UsageError


def test_descriptor_is_that_of_dlibs_own_use(portrait: tuple[np.ndarray, np.ndarray]) -> None:
    image, landmarks = portrait
    box = dlib.rectangle(175, 76, 265, 166)
    found = dlib.shape_predictor(str(face_recognition_model(DLIB_LANDMARKS)))(image, box)
    network = dlib.face_recognition_model_v1(str(face_recognition_model(DLIB_DESCRIPTOR)))
    expected = np.array(network.compute_face_descriptor(image, found))
    clip = Sight(image[None], np.zeros((1, 4)), landmarks[None], np.ones(1, bool), np.ones(1))
    values = encode(build("face.dlib"), [clip])[0].values
    np.testing.assert_allclose(values[0], expected, atol=2e-4)


def test_same_face_is_nearer_than_dlibs_threshold(make_sight: Callable[[float, int], Sight]) -> None:
    values = encode(build("face.dlib"), [make_sight(0.8, 0)])[0].values.astype(float)
    assert np.linalg.norm(values[0] - values[-1]) < 0.6  # dlib: below 0.6 it is the same person


@pytest.mark.parametrize(("every", "frames", "steps"), [(1, 4, 4), (5, 1, 1), (5, 5, 1), (5, 6, 2), (3, 7, 3)])
def test_every_nth_frame_is_described(
    every: int, frames: int, steps: int, make_sight: Callable[[float, int], Sight]
) -> None:
    encoder = DlibFaceEncoder(DlibFaceOptions(every=every))
    clip = make_sight(frames / 25, 5)
    features = encode(encoder, [clip])[0]
    assert len(features.values) == steps == encoder.steps(frames / 25)
    np.testing.assert_array_equal(features.valid, clip.valid[::every])
    assert encoder.rate_hz == 25 / every
    assert encoder.describe()["parameters"] == {"every": every}
    alone = DlibFaceEncoder(DlibFaceOptions(every=1))
    last = replace(clip, **{k: v[(steps - 1) * every :][:1] for k, v in vars(clip).items() if v is not None})
    np.testing.assert_allclose(
        features.values[-1].astype(float), encode(alone, [last])[0].values[0].astype(float), atol=1e-3
    )


def test_face_at_the_edge_of_the_picture_is_described(make_sight: Callable[[float, int], Sight]) -> None:
    clip = make_sight(0.04, 0)
    beyond = Sight(clip.frames, clip.boxes, clip.landmarks - 90, clip.valid, clip.scores)
    assert np.isfinite(encode(build("face.dlib"), [beyond])[0].values).all()


def test_no_frame_at_all_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"face\.dlib: every 0 frames, expected 1 or more"):
        build("face.dlib", parameters={"every": 0})
