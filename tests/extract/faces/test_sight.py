"""A clip's frames become a Sight: validity told frame by frame, a clip without a face told apart from the others."""

import av
import cv2
import numpy as np
import pytest

from bmla.extract.encoders.base import Sight
from bmla.extract.faces.crops import face_crop, mouth_crop
from bmla.extract.faces.detector import FaceDetector
from bmla.extract.faces.sight import describe_sight, see
from bmla.store.errors import NoFace

BLANK = 3  # the frame of the swaying clip that shows nothing


@pytest.fixture(scope="module")
def clip(portrait):
    """(6, 240, 320, 3): the portrait swaying, one frame blank."""
    frames = []
    for t in range(6):
        matrix = cv2.getRotationMatrix2D((225, 120), 2 * t - 5, 0.8)
        matrix[:, 2] += [160 - 225 + 2 * t, 0]
        frames.append(cv2.warpAffine(portrait, matrix, (320, 240), borderMode=cv2.BORDER_REPLICATE))
    frames[BLANK] = np.full((240, 320, 3), 90, np.uint8)
    return np.stack(frames)


@pytest.fixture(scope="module")
def sight(clip, detector, landmarks):
    (found,) = see([clip], detector, landmarks)
    return found


def test_sight_has_a_value_in_every_frame(sight, clip):
    assert isinstance(sight, Sight)
    assert sight.frames is clip
    assert (sight.boxes.shape, sight.landmarks.shape) == ((6, 4), (6, 68, 2))
    assert {sight.boxes.dtype, sight.landmarks.dtype, sight.scores.dtype} == {np.dtype(np.float32)}
    assert np.isfinite(sight.landmarks).all()


def test_frame_without_a_face_is_not_valid_and_lies_between_its_neighbours(sight):
    assert sight.valid.tolist() == [t != BLANK for t in range(6)]
    assert sight.scores[BLANK] == 0
    for values in (sight.boxes, sight.landmarks):
        np.testing.assert_allclose(values[BLANK], (values[BLANK - 1] + values[BLANK + 1]) / 2, atol=1e-3)


def test_landmarks_are_those_of_each_frame_smoothed_over_valid_ones(sight, clip, landmarks):
    raw = np.full((6, 68, 2), np.nan)
    for t in np.flatnonzero(sight.valid):
        raw[t] = landmarks.predict(clip[t], sight.boxes[t])
    near = np.array([0, 1, 2, 4])  # within three frames of frame 1, without the blank one
    weights = np.exp(-0.5 * (near - 1.0) ** 2)
    expected = np.average(raw[near], axis=0, weights=weights)
    np.testing.assert_allclose(sight.landmarks[1], expected, atol=1e-3)


def test_single_frame_clip_is_seen(clip, detector, landmarks):
    (found,) = see([clip[:1]], detector, landmarks)
    assert np.array_equal(found.landmarks[0], landmarks.predict(clip[0], found.boxes[0]))


def test_clip_without_a_face_is_reported_in_its_place(clip, detector, landmarks, sight):
    empty, black = np.zeros((0, 50, 60, 3), np.uint8), np.zeros((3, 50, 60, 3), np.uint8)
    results = see([black, clip, empty], detector, landmarks)
    assert [type(r) for r in results] == [NoFace, Sight, NoFace]
    assert "no face in any of 3 frames; the best score was" in str(results[0])
    assert np.array_equal(results[1].landmarks, sight.landmarks)


def test_second_smaller_face_changes_nothing(clip, detector, landmarks, sight):
    crowd = clip.copy()
    crowd[:, 120:, 215:] = cv2.resize(clip[0, 40:190, 90:220], (105, 120), interpolation=cv2.INTER_AREA)
    assert len(detector.detect(crowd[:1])[0].scores) == 2
    (found,) = see([crowd], detector, landmarks)
    np.testing.assert_allclose(found.boxes, sight.boxes, atol=1)


def test_description_covers_detector_track_and_landmarks(detector, landmarks):
    described = describe_sight(detector, landmarks)
    assert described["name"] == "retinaface"
    assert described["landmarks"]["smoothing"] == {"window": "gaussian", "sigma_frames": 1.0}
    assert described["landmarks"]["weights"]["sha256"]
    assert described["track"]["link_iou"] == 0.3


def read(path):
    with av.open(path) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.mark.parametrize("kind", ["embedded", "checkpoint"])
def test_grid_frames_have_exactly_one_face(kind, grid, request):
    detector = FaceDetector(None if kind == "embedded" else request.getfixturevalue("checkpoint"))
    counts = [len(f.scores) for path in grid[:: len(grid) // 8] for f in detector.detect(read(path)[::3])]
    assert np.mean(np.array(counts) == 1) >= 0.99


def test_grid_faces_are_seen_and_cropped(grid, detector, landmarks):
    (found,) = see([read(grid[0])], detector, landmarks)
    assert found.valid.all()
    mouths, faces = mouth_crop(found.frames, found.landmarks), face_crop(found.frames, found.boxes)
    assert mouths.shape == (75, 80, 80)
    assert faces.shape == (75, 128, 128, 3)
    lips = found.landmarks[:, [62, 66], 1]
    assert np.ptp(lips[:, 1] - lips[:, 0]) > 2  # the mouth opens and closes
