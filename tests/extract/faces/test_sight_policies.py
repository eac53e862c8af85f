"""What each face policy makes of a clip: whose frames are valid, where boxes and landmarks come from, which models run."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from bmla.extract.faces.crops import boxes_of, cropped, face_crop, mouth_crop
from bmla.extract.faces.detections import Faces
from bmla.extract.faces.finding import PICTURE, FaceFinding, wanted_frames
from bmla.extract.faces.given import open_given
from bmla.extract.faces.policy import FaceCrop, MouthCrop
from bmla.extract.faces.sight import describe_sight, look, see
from bmla.extract.faces.smoothing import smooth_valid
from bmla.store.errors import MediaError, NoFace, UsageError

T = 8


@pytest.fixture(scope="module")
def clip(portrait):
    """(8, 240, 320, 3): the portrait, four pixels further to the right in each frame."""
    frames = [cv2.warpAffine(portrait, np.float32([[0.8, 0, 4 * t - 40], [0, 0.8, 0]]), (320, 240)) for t in range(T)]
    return np.stack(frames)


@pytest.fixture(scope="module")
def sight(clip, detector, landmarks):
    return see([clip], detector, landmarks)[0]


class Marker:
    """Stands for the landmark model: all points are the box's middle; keeps the boxes that it was asked for."""

    def __init__(self):
        self.boxes = []

    def predict(self, frame, box):
        self.boxes.append(box.tolist())
        return np.tile((box[:2] + box[2:]) / 2, (68, 1)).astype(np.float32)


def found(*boxes):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Faces(boxes, np.full(len(boxes), 0.97, np.float32), np.zeros((len(boxes), 5, 2), np.float32), 0.4)


def at(t):
    """Where the face of a made-up clip is in frame t, linear in time."""
    return [10 + 2 * t, 20 - t, 60 + 3 * t, 90]


def blank(n):
    return np.zeros((n, 100, 120, 3), np.uint8)


def test_points_that_the_detector_gave_are_not_measured_again():
    finding, marker = FaceFinding(every=3), Marker()
    looked = wanted_frames(T, finding)
    faces = [replace(found(at(t)), points=np.full((1, 68, 2), 10.0 * t, np.float32)) for t in looked]
    faces[1] = replace(faces[1], points=None)
    seen = look(blank(T), faces, marker, finding)
    assert len(marker.boxes) == T - len(looked) + 1
    plain = look(blank(T), [replace(f, points=None) for f in faces], Marker(), finding)
    known = np.stack([[10.0 * t] * 2 if t in (0, 6, 7) else plain_point(t) for t in range(T)])
    expected = smooth_valid(np.repeat(known[:, None], 68, 1).astype(np.float32), seen.valid, 1.0)
    np.testing.assert_allclose(seen.landmarks, expected, atol=1e-4)
    assert not np.allclose(plain.landmarks, seen.landmarks)


def plain_point(t):
    """What Marker says of frame t."""
    x0, y0, x1, y1 = at(t)
    return [(x0 + x1) / 2, (y0 + y1) / 2]


def test_a_crop_is_made_once_for_all_streams_that_take_it(sight, clip):
    first = cropped(sight, MouthCrop())
    assert cropped(sight, MouthCrop()) is first
    assert cropped(sight, MouthCrop(size_px=81)).shape == (T, 81, 81)
    other = replace(sight, frames=255 - clip)  # noise makes other pictures of it
    assert not np.array_equal(cropped(other, MouthCrop()), first)


def test_frames_between_two_found_ones_are_valid_and_measured_in_their_own_box():
    finding, marker = FaceFinding(every=3), Marker()
    looked = wanted_frames(T, finding)
    assert looked == [0, 3, 6, 7]
    seen = look(blank(T), [found(at(t)) for t in looked], marker, finding)
    np.testing.assert_allclose(seen.boxes, [at(t) for t in range(T)], atol=1e-4)
    np.testing.assert_allclose(marker.boxes, [at(t) for t in range(T)], atol=1e-4)
    assert seen.valid.all()
    score = np.float32(0.97)
    np.testing.assert_array_equal(seen.scores, [score if t in looked else np.nan for t in range(T)])


def test_frames_beside_one_that_was_not_found_are_not_valid_and_not_measured():
    finding, marker = FaceFinding(every=2), Marker()
    seen = look(blank(9), [found(at(0)), found(at(2)), found(), found(at(6)), found(at(8))], marker, finding)
    assert seen.valid.tolist() == [True, True, True, False, False, False, True, True, True]
    np.testing.assert_allclose(marker.boxes, [at(t) for t in (0, 1, 2, 6, 7, 8)], atol=1e-4)
    np.testing.assert_allclose(seen.boxes, [at(t) for t in range(9)], atol=1e-4)
    assert seen.scores[4] == 0
    assert np.isnan(seen.scores[[1, 3, 5, 7]]).all()


def test_face_that_appears_late_is_not_valid_before():
    seen = look(blank(5), [found(), found(at(2)), found(at(4))], Marker(), FaceFinding(every=2))
    assert seen.valid.tolist() == [False, False, True, True, True]
    np.testing.assert_allclose(seen.boxes[:3], [at(2)] * 3)


def test_short_last_interval_is_interpolated_in_time():
    boxes = {0: [0, 0, 50, 50], 3: [15, 0, 65, 50], 4: [15, 0, 65, 50]}
    seen = look(blank(5), [found(b) for b in boxes.values()], Marker(), FaceFinding(every=3))
    np.testing.assert_allclose(seen.boxes[:, 0], [0, 5, 10, 15, 15], atol=1e-4)


def test_clip_without_a_face_says_how_many_frames_were_looked_at():
    with pytest.raises(NoFace, match=r"no face in any of 3 frames looked at, of 5; the best score was 0\.40"):
        look(blank(5), [found()] * 3, Marker(), FaceFinding(every=2))


def test_every_frame_is_what_the_stages_give_one_by_one(clip, sight, detector, landmarks):
    for finding in (FaceFinding(), FaceFinding(every=1)):
        seen = look(clip, detector.detect(clip), landmarks, finding)
        for part in ("boxes", "landmarks", "valid", "scores"):
            assert np.array_equal(getattr(seen, part), getattr(sight, part))
    assert sight.mouth_boxes is None


def test_every_second_frame_stays_near_every_frame(clip, sight, detector, landmarks):
    (seen,) = see([clip], detector, landmarks, FaceFinding(every=2))
    assert seen.valid.all()
    assert np.array_equal(seen.boxes[::2], sight.boxes[::2])
    assert np.abs(seen.boxes - sight.boxes).max() < 3
    assert np.abs(seen.landmarks - sight.landmarks).mean() < 1


def test_fixed_face_is_measured_in_its_box_in_every_frame(clip, sight, landmarks):
    box = tuple(int(v) for v in np.rint(sight.boxes[0]))
    seen = look(clip[:1], [], landmarks, FaceFinding("fixed", face_box=box))
    assert seen.boxes.tolist() == [list(box)]
    assert np.array_equal(seen.landmarks[0], landmarks.predict(clip[0], np.array(box)))
    assert np.abs(seen.landmarks[0] - landmarks.predict(clip[0], sight.boxes[0])).mean() < 3
    assert seen.valid.all()
    assert np.isnan(seen.scores).all()
    assert seen.mouth_boxes is None


def test_fixed_mouth_alone_is_the_pixels_of_its_box_and_runs_no_model(clip):
    finding = FaceFinding("fixed", mouth_box=(79, 115, 175, 211))
    seen = look(clip, [], None, finding)
    assert seen.valid.all()
    assert np.isnan(seen.boxes).all()
    assert np.isnan(seen.landmarks).all()
    mouths = cropped(seen, MouthCrop(size_px=96, colour="rgb"))
    assert np.array_equal(mouths, clip[:, 115:211, 79:175])
    grey = cropped(seen, MouthCrop(size_px=96))
    assert np.array_equal(grey, [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)[115:211, 79:175] for f in clip])
    assert cropped(seen, MouthCrop()).shape == (T, 80, 80)
    for crop in (FaceCrop(), FaceCrop(align="similarity")):
        with pytest.raises(UsageError, match="a fixed box of its mouth alone"):
            cropped(seen, crop)


def test_whole_picture_is_a_mouth_that_keeps_its_proportions():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    seen = look(pictures, [], None, FaceFinding("fixed", mouth_box=PICTURE))
    assert seen.mouth_boxes.tolist() == [[0, 0, 64, 48]] * 2
    mouths = cropped(seen, MouthCrop(size_px=64, colour="rgb"))
    assert np.array_equal(mouths[:, 8:56], pictures)
    assert np.array_equal(mouths[:, 0], pictures[:, 0])  # its edge, repeated


def test_fixed_mouth_beside_a_fixed_face_leaves_the_face_to_its_box(clip, landmarks):
    finding = FaceFinding("fixed", face_box=(90, 30, 190, 150), mouth_box=(110, 90, 170, 150))
    seen = look(clip[:2], [], landmarks, finding)
    assert np.array_equal(cropped(seen, MouthCrop(size_px=60, colour="rgb")), clip[:2, 90:150, 110:170])
    assert np.array_equal(cropped(seen, FaceCrop()), face_crop(clip[:2], seen.boxes))
    assert cropped(seen, FaceCrop(align="similarity")).shape == (2, 128, 128, 3)


@pytest.mark.parametrize("name", ["face_box", "mouth_box"])
def test_fixed_box_beyond_the_picture_fails_the_clip(name):
    finding = FaceFinding("fixed", **{name: (79, 115, 175, 211)})
    with pytest.raises(MediaError, match=rf'clip "x": {name} \(79, 115, 175, 211\).* inside its pictures of 120 x 100'):
        look(blank(2), [], Marker(), finding, "x")


def test_empty_clip_has_no_face_by_any_policy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 4)))
    given = FaceFinding("given", given=tmp_path)
    for finding in (FaceFinding("fixed", mouth_box=PICTURE), given, FaceFinding(every=2)):
        with pytest.raises(NoFace, match="0 frames"):
            look(blank(0), [], None, finding, "x", open_given(tmp_path))


def given_by(folder, **arrays):
    np.savez(folder / "x.npz", **arrays)
    return FaceFinding("given", given=folder), "x", open_given(folder)


def test_given_boxes_are_measured_where_they_are_given(tmp_path):
    boxes = np.array([at(t) for t in range(6)], np.float32)
    missing = boxes.copy()
    missing[2], missing[3, 1] = np.nan, np.nan
    marker = Marker()
    seen = look(blank(6), [], marker, *given_by(tmp_path, boxes=missing))
    assert seen.valid.tolist() == [True, True, False, False, True, True]
    np.testing.assert_allclose(seen.boxes, boxes, atol=1e-4)
    np.testing.assert_allclose(marker.boxes, boxes[seen.valid])
    assert np.isfinite(seen.landmarks).all()
    assert np.isnan(seen.scores).all()


def test_given_landmarks_are_taken_as_they_are(clip, sight, tmp_path):
    points = sight.landmarks.copy()
    points[3, 5] = np.nan
    seen = look(clip, [], None, *given_by(tmp_path, landmarks=points))
    assert seen.valid.tolist() == [t != 3 for t in range(T)]
    assert np.array_equal(seen.landmarks[seen.valid], sight.landmarks[seen.valid])
    np.testing.assert_allclose(seen.landmarks[3], (points[2] + points[4]) / 2, atol=1e-3)
    assert np.array_equal(seen.boxes, boxes_of(seen.landmarks))
    assert np.array_equal(cropped(seen, MouthCrop()), mouth_crop(clip, seen.landmarks))


def test_boxes_of_landmarks_lie_about_where_the_detectors_do(sight):
    """Of a head that leans: squares against RetinaFace's longer side and middle, within a fifth."""
    made, seen = boxes_of(sight.landmarks), sight.boxes
    sides, longer = made[:, 2:] - made[:, :2], (seen[:, 2:] - seen[:, :2]).max(axis=1)
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=1e-4)
    assert np.abs(sides[:, 0] / longer - 1).max() < 0.2
    assert (np.abs((made[:, :2] + made[:, 2:] - seen[:, :2] - seen[:, 2:]) / 2).max(axis=1) < 0.2 * longer).all()


def test_given_face_is_valid_where_both_its_parts_are(sight, clip, tmp_path):
    boxes, points = sight.boxes.copy(), sight.landmarks.copy()
    boxes[1], points[4] = np.nan, np.nan
    seen = look(clip, [], None, *given_by(tmp_path, boxes=boxes, landmarks=points))
    assert np.flatnonzero(~seen.valid).tolist() == [1, 4]
    assert np.array_equal(seen.boxes[seen.valid], sight.boxes[seen.valid])


def test_given_faces_of_nowhere_fail_the_clip(tmp_path):
    with pytest.raises(NoFace, match="no face given in any of 3 frames"):
        look(blank(3), [], None, *given_by(tmp_path, boxes=np.full((3, 4), np.nan)))
    far = np.array([at(0), [10, 10, 900, 90]])
    with pytest.raises(MediaError, match="given box: 900, 90 lies far outside its pictures of 120 x 100"):
        look(blank(2), [], None, *given_by(tmp_path, boxes=far))
    with pytest.raises(MediaError, match="given landmarks: -200, -200 lies far outside"):
        look(blank(2), [], None, *given_by(tmp_path, landmarks=np.full((2, 68, 2), -200.0)))
    with pytest.raises(MediaError, match="all points of a face are one"):
        look(blank(2), [], None, *given_by(tmp_path, landmarks=np.full((2, 68, 2), 20.0)))


def test_specification_says_what_ran_and_nothing_more(detector, landmarks, tmp_path):
    default = describe_sight(detector, landmarks)
    assert default == describe_sight(detector, landmarks, FaceFinding())
    assert default.keys() == {*detector.describe(), "track", "landmarks"}
    assert describe_sight(detector, landmarks, FaceFinding(every=2)) == {**default, **FaceFinding(every=2).describe()}
    face = FaceFinding("fixed", face_box=(1, 2, 3, 4))
    assert describe_sight(None, landmarks, face) == {**face.describe(), "landmarks": default["landmarks"]}
    mouth = FaceFinding("fixed", mouth_box=PICTURE)
    assert describe_sight(None, None, mouth) == mouth.describe()
    np.save(tmp_path / "x.npy", np.zeros((1, 4)))
    given = FaceFinding("given", given=tmp_path)
    assert describe_sight(None, landmarks, given) == {**given.describe(), "landmarks": default["landmarks"]}
