"""Laws of detection: independence of the batch, of the picture's size and of how it is handed over."""

import cv2
import numpy as np
import pytest
import torch

from bmla.extract.faces import detector as module
from bmla.extract.faces.detector import FaceDetector
from bmla.store.errors import UsageError, WeightsNotFound


def iou(a, b):
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner)


def collage(portrait, *, size=(400, 600)):
    """Pictures with none, one and three faces, all (H, W, 3)."""
    face = cv2.resize(portrait[20:260, 130:330], (160, 192), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    pictures = []
    for places in ((), ((30, 40),), ((5, 5), (200, 200), (190, 430)), ((100, 100), (120, 350))):
        picture = rng.integers(90, 130, (*size, 3), dtype=np.uint8)
        for y, x in places:
            picture[y : y + 192, x : x + 160] = face
        pictures.append(picture)
    return np.stack(pictures)


def same(a, b):
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("boxes", "scores", "landmarks", "best"))


def test_portrait_has_one_face_where_it_is(detector, portrait):
    (found,) = detector.detect(portrait[None])
    assert found.boxes.shape == (1, 4)
    assert found.scores.shape == (1,)
    assert found.landmarks.shape == (1, 5, 2)
    assert {found.boxes.dtype, found.scores.dtype, found.landmarks.dtype} == {np.dtype(np.float32)}
    assert iou(found.boxes[0], np.array([178, 60, 273, 180])) > 0.8  # drawn by hand
    assert found.best == pytest.approx(float(found.scores[0]))
    left_eye, right_eye, nose, *mouth = found.landmarks[0]
    assert np.linalg.norm(left_eye - [205, 101]) < 6
    assert np.linalg.norm(right_eye - [247, 103]) < 6
    assert left_eye[1] < nose[1] < min(m[1] for m in mouth)


def test_result_does_not_depend_on_the_rest_of_the_batch(detector, portrait, monkeypatch):
    pictures = collage(portrait)
    alone = [detector.detect(p[None])[0] for p in pictures]
    assert [len(f.scores) for f in alone] == [0, 1, 3, 2]
    for chunk in (1, 3, 4):
        monkeypatch.setitem(module.CHUNK_PIXELS, "cpu", chunk * 400 * 600)
        together = detector.detect(pictures)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)
            np.testing.assert_allclose(a.landmarks, b.landmarks, atol=1e-3)
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)


def test_clips_together_give_what_each_gives_alone(portrait, monkeypatch):
    """Of two sizes, one empty, in chunks of three pictures of the larger size."""
    detector, pictures = FaceDetector(), collage(portrait)
    clips = [pictures[:2], portrait[None, :400, :400], pictures[:0], pictures[2:], pictures[1:2]]
    alone = [detector.detect(clip) for clip in clips]
    detector.batch.size = 3 * 400 * 600
    chunks, real = [], detector._detect
    monkeypatch.setattr(detector, "_detect", lambda images, shrink: chunks.append(len(images)) or real(images, shrink))
    together = detector.detect_many(clips)
    assert chunks == [3, 2, 1]
    assert [len(found) for found in together] == [2, 1, 0, 2, 1]
    for expected, found in zip(alone, together, strict=True):
        for a, b in zip(expected, found, strict=True):
            assert len(a.scores) == len(b.scores)
            np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
            np.testing.assert_allclose(a.landmarks, b.landmarks, atol=1e-4)
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
    assert detector.detect_many([]) == []


def test_chunk_that_does_not_fit_is_halved_for_good(portrait, monkeypatch):
    detector, pictures = FaceDetector(), collage(portrait)
    expected = detector.detect(pictures)
    detector.batch.size, real, tried = 4 * 400 * 600, detector._detect, []

    def small(images, shrink):
        tried.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("made up")
        return real(images, shrink)

    monkeypatch.setattr(detector, "_detect", small)
    found = [faces for clip in detector.detect_many([pictures[:1], pictures[1:]]) for faces in clip]
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))
    assert tried == [4, 2, 2]
    assert detector.batch.size == 2 * 400 * 600


def test_wrong_clip_among_many_is_refused(detector, portrait):
    with pytest.raises(UsageError, match="expected uint8 of shape"):
        detector.detect_many([portrait[None], portrait])


def test_faces_are_sorted_by_score_and_above_the_threshold(portrait):
    loose = FaceDetector(threshold=0.02, nms_iou=0.9)
    for found in loose.detect(collage(portrait)):
        assert (np.diff(found.scores) <= 0).all()
        assert (found.scores > 0.02).all()
    assert len(loose.detect(portrait[None])[0].scores) > 5  # neighbours of the face stay at this overlap


def test_boxes_left_overlap_by_no_more_than_asked(portrait):
    for found in FaceDetector(threshold=0.02, nms_iou=0.3).detect(collage(portrait)):
        for i, a in enumerate(found.boxes):
            assert all(iou(a, b) <= 0.3 + 1e-6 for b in found.boxes[:i])


def test_picture_without_a_face_gives_none_and_its_best_score(detector):
    (found,) = detector.detect(np.full((1, 90, 120, 3), 127, np.uint8))
    assert found.boxes.shape == (0, 4)
    assert found.landmarks.shape == (0, 5, 2)
    assert 0 <= found.best < 0.9


@pytest.mark.parametrize("kind", ["embedded", "checkpoint"])
def test_face_scales_with_the_picture(kind, portrait, request):
    detector = FaceDetector(None if kind == "embedded" else request.getfixturevalue("checkpoint"))
    larger = cv2.resize(portrait, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    (a,), (b,) = detector.detect(portrait[None]), detector.detect(larger[None])
    assert len(a.scores) == len(b.scores) == 1
    assert iou(1.5 * a.boxes[0], b.boxes[0]) > 0.8
    assert np.abs(1.5 * a.landmarks - b.landmarks).max() < 0.1 * (b.boxes[0, 2] - b.boxes[0, 0])


def shrunk(portrait, width_px):
    """The portrait on grey, small enough for its face to be so wide."""
    scale = width_px / 95
    picture = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((520, 500, 3), 110, np.uint8)
    canvas[20 : 20 + len(picture), 8 : 8 + picture.shape[1]] = picture
    return canvas


def test_small_face_is_found_where_it_is_the_only_one(detector, portrait):
    lone, thorough = shrunk(portrait, 26), FaceDetector(small_faces=True)
    assert same(detector.detect(lone[None])[0], thorough.detect(lone[None])[0])
    assert len(detector.detect(lone[None])[0].scores) == 1
    crowd = lone.copy()
    crowd[300:480, 300:450] = cv2.resize(portrait[20:260, 130:330], (150, 180), interpolation=cv2.INTER_AREA)
    one, both = detector.detect(crowd[None])[0], thorough.detect(crowd[None])[0]
    assert (len(one.scores), len(both.scores)) == (1, 2)
    assert np.array_equal(one.boxes[0], max(both.boxes, key=lambda box: box[2] - box[0]))


def test_pictures_with_and_without_larger_faces_share_a_chunk(detector, portrait, monkeypatch):
    pictures = np.stack([shrunk(portrait, width) for width in (60, 26, 50, 24)])
    monkeypatch.setitem(module.CHUNK_PIXELS, "cpu", 4 * 520 * 500)
    together = detector.detect(pictures)
    assert [len(f.scores) for f in together] == [1, 1, 1, 1]
    assert all(same(a, detector.detect(p[None])[0]) for a, p in zip(together, pictures, strict=True))


def test_same_face_in_neighbouring_pictures_is_found_in_each(detector, portrait, monkeypatch):
    monkeypatch.setitem(module.CHUNK_PIXELS, "cpu", 3 * 512 * 512)
    assert [len(f.scores) for f in detector.detect(np.stack([portrait] * 3))] == [1, 1, 1]


def test_thorough_search_changes_nothing_on_larger_faces(detector, portrait):
    for width in (48, 60, 90):
        picture = shrunk(portrait, width)[None]
        assert same(detector.detect(picture)[0], FaceDetector(small_faces=True).detect(picture)[0])


def test_max_side_shrinks_the_picture_but_not_the_result(detector, portrait):
    wide = np.zeros((512, 800, 3), np.uint8)
    wide[:, 100:612] = portrait
    (a,), (b,) = detector.detect(wide[None]), FaceDetector(max_side_px=400).detect(wide[None])
    assert iou(a.boxes[0], b.boxes[0]) > 0.8
    assert same(FaceDetector(max_side_px=800).detect(wide[None])[0], a)


def test_order_of_colours_is_rgb(detector, portrait):
    right, wrong = detector.detect(portrait[None])[0], detector.detect(portrait[None, ..., ::-1])[0]
    assert right.best > wrong.best


def test_tensors_views_and_read_only_arrays_give_the_same(detector, portrait):
    (expected,) = detector.detect(portrait[None])
    frozen = portrait[None].copy()
    frozen.flags.writeable = False
    padded = np.zeros((1, 520, 530, 3), np.uint8)
    padded[:, 3:515, 7:519] = portrait
    for pictures in (torch.from_numpy(portrait[None].copy()), frozen, padded[:, 3:515, 7:519]):
        assert same(detector.detect(pictures)[0], expected)


def test_no_pictures_give_no_results(detector):
    assert detector.detect(np.zeros((0, 40, 40, 3), np.uint8)) == []


def test_tiny_pictures_are_looked_at(detector):
    assert len(detector.detect(np.zeros((2, 1, 5, 3), np.uint8))) == 2


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), r"float32 of shape \(1, 8, 8, 3\), expected uint8"),
        (torch.zeros(1, 8, 8, 3), "float32 of shape"),
        (np.zeros((8, 8, 3), np.uint8), r"shape \(8, 8, 3\), expected uint8 of shape \(B, H, W, 3\)"),
        (np.zeros((1, 3, 8, 8), np.uint8), "expected uint8 of shape"),
        (np.zeros((1, 0, 8, 3), np.uint8), "have no pixels"),
    ],
)
def test_wrong_pictures_are_refused(detector, pictures, message):
    with pytest.raises(UsageError, match=message):
        detector.detect(pictures)


@pytest.mark.parametrize("options", [{"threshold": 1.0}, {"threshold": 0.0}, {"nms_iou": 1.5}, {"max_side_px": 8}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=r"detector: "):
        FaceDetector(**options)


def test_missing_checkpoint_is_reported(tmp_path):
    with pytest.raises(WeightsNotFound, match=r"gone\.pth"):
        FaceDetector(tmp_path / "gone.pth")


def test_description_names_everything_that_shapes_a_detection(detector):
    described = detector.describe()
    assert described["weights"].keys() == {"source", "sha256"}
    assert {k: v for k, v in described.items() if k != "weights"} == {
        "name": "retinaface",
        "backbone": "mobilenet0.25",
        "threshold": 0.9,
        "nms_iou": 0.4,
        "max_side_px": None,
        "small_faces": False,
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_finds_what_the_cpu_finds(detector, portrait):
    pictures = collage(portrait)
    for a, b in zip(detector.detect(pictures), FaceDetector(device="cuda").detect(pictures), strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1.0)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-2)
