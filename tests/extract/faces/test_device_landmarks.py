"""Landmarks of many faces at once are dlib's own, to the pixel; what is no shape predictor is refused in one line."""

import dlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmla.extract.faces import detector as module
from bmla.extract.faces import shape_model
from bmla.extract.faces.detector import FaceDetector, have_area
from bmla.extract.faces.device_landmarks import DeviceLandmarks
from bmla.extract.faces.landmarks import dlib_square
from bmla.extract.faces.shape_model import numbers_in, read_shape_model
from bmla.store.errors import BmlaError

POINTS, STAGES, TREES, DEPTH, PIXELS = 6, 4, 9, 3, 30
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures():
    """(5, 90, 120, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 9, 12, 3), np.uint8)
    return coarse.repeat(10, 1).repeat(10, 2) // 2 + rng.integers(0, 128, (5, 90, 120, 3), np.uint8)


@pytest.fixture(scope="module")
def file(pictures, tmp_path_factory):
    """A small shape predictor, trained by dlib on random points."""
    rng = np.random.default_rng(1)
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.num_trees_per_cascade_level, options.tree_depth = STAGES, TREES, DEPTH
    options.feature_pool_size, options.oversampling_amount, options.random_seed = PIXELS, 3, "0"
    shown = []
    for _ in pictures:
        x, y, side = rng.integers(0, 40), rng.integers(0, 30), int(rng.integers(40, 60))
        face = dlib.rectangle(int(x), int(y), int(x) + side, int(y) + side)
        points = [dlib.point(int(x + a * side), int(y + b * side)) for a, b in rng.random((POINTS, 2))]
        shown.append([dlib.full_object_detection(face, points)])
    path = tmp_path_factory.mktemp("model") / "small.dat"
    dlib.train_shape_predictor(list(pictures), shown, options).save(str(path))
    return path


def dlib_s(model, picture, box):
    left, top, side = dlib_square(box)
    shape = model(picture, dlib.rectangle(left, top, left + side - 1, top + side - 1))
    return [(p.x, p.y) for p in shape.parts()]


def random_boxes(count, seed=2):
    """(K, 4) float32 in and around pictures of 120 x 90, some of them small."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(-30, 90, (count, 2)), rng.uniform(3, 80, (count, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def test_points_are_those_of_dlib_also_beyond_the_border(pictures, file):
    boxes = random_boxes(200)
    owner = np.arange(200) % len(pictures)
    found = DeviceLandmarks(file, CPU).predict(torch.from_numpy(pictures), torch.from_numpy(owner), boxes)
    model = dlib.shape_predictor(str(file))
    expected = [dlib_s(model, pictures[i], box) for i, box in zip(owner, boxes, strict=True)]
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)
    assert len(np.unique(expected, axis=0)) > 150  # they depend on pictures and boxes


def test_no_face_has_no_points(pictures, file):
    none = DeviceLandmarks(file, CPU).predict(torch.from_numpy(pictures), torch.zeros(0).long(), np.zeros((0, 4)))
    assert none.shape == (0, POINTS, 2)


def test_the_file_s_parts_have_the_sizes_that_it_was_trained_with(file):
    model, splits = read_shape_model(file, CPU), 2**DEPTH - 1
    assert model.mean.shape == (POINTS, 2)
    assert (model.anchors.shape, model.offsets.shape) == ((STAGES, PIXELS), (STAGES, PIXELS, 2))
    assert model.first.shape == model.second.shape == model.thresholds.shape == (STAGES, TREES, splits)
    assert model.leaves.shape == (STAGES, TREES, splits + 1, POINTS, 2)


def written(numbers):
    """As dlib writes whole numbers: independent of what reads them."""
    data = bytearray()
    for number in numbers:
        size = max(1, (abs(number).bit_length() + 7) // 8)
        data += bytes([size | (0x80 if number < 0 else 0)]) + abs(number).to_bytes(size, "little")
    return data


@settings(deadline=None, max_examples=60)
@given(
    numbers=st.lists(st.integers(-(2**62), 2**62) | st.integers(-300, 300), max_size=400),
    lane=st.sampled_from([16, 64, 1 << 11]),
)
def test_numbers_are_read_from_many_places_at_once(numbers, lane):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape_model, "LANE_BYTES", lane)
        data = torch.frombuffer(written(numbers), dtype=torch.uint8) if numbers else torch.zeros(0, dtype=torch.uint8)
        assert numbers_in(data).tolist() == numbers


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1], "it ends within a number"),
        (lambda data: data[: len(data) // 2] + b"\1\0" * 3, "it ends"),
        (lambda data: data + b"\1\0", "it goes on after its end"),
        (lambda data: b"\1\2" + data[2:], "version: 2, expected 1"),
        (lambda data: b"\1\1\x81\7\x81\1", "7 numbers of the mean shape"),
        (lambda data: data[:50] + b"\xff" * 60 + data[110:], ""),
        (lambda data: b"", "it ends too early"),
    ],
)
def test_what_is_no_shape_predictor_is_refused(file, tmp_path, change, reason):
    path = tmp_path / "bad.dat"
    path.write_bytes(change(file.read_bytes()))
    with pytest.raises(
        BmlaError, match=rf"bad\.dat: can't be read as a shape predictor of dlib \(.*{reason}"
    ) as caught:
        read_shape_model(path, CPU)
    assert "\n" not in str(caught.value)


def test_stages_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match="its stages are not all of a size"):
        shape_model._stacked([torch.zeros(2, 3), torch.zeros(3, 3)])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BmlaError, match=r"none\.dat"):
        read_shape_model(tmp_path / "none.dat", CPU)


def test_a_detector_that_measures_gives_each_face_its_own_points(file, portrait):
    small = np.ascontiguousarray(portrait[:300, 100:400])
    two = np.concatenate([small, small], axis=1)
    pictures = np.stack([two, np.zeros_like(two), np.ascontiguousarray(two[:, ::-1])])
    detector = FaceDetector()
    detector.landmarks = DeviceLandmarks(file, CPU)
    model = dlib.shape_predictor(str(file))
    (faces,) = detector.detect_many([pictures])
    assert [len(f.boxes) for f in faces] == [2, 0, 2]
    for picture, found in zip(pictures, faces, strict=True):
        assert found.points.shape == (len(found.boxes), POINTS, 2)
        for box, points in zip(found.boxes, found.points, strict=True):
            assert points.tolist() == [list(p) for p in dlib_s(model, picture, box)]
    assert FaceDetector().detect(pictures)[0].points is None


def test_a_face_without_area_is_left_to_whoever_follows_it():
    assert have_area(random_boxes(5))
    assert have_area(np.zeros((0, 4), np.float32))
    for bad in ([0, 0, 0, 5], [0, 0, np.nan, 5], [0, 0, np.inf, 5], [3, 0, 2, 5]):
        assert not have_area(np.float32([[0, 0, 5, 5], bad]))


def test_where_one_face_has_no_area_none_is_measured_here(file, portrait, monkeypatch):
    detector = FaceDetector()
    detector.landmarks = DeviceLandmarks(file, CPU)
    assert detector.detect(portrait[None])[0].points is not None
    monkeypatch.setattr(module, "have_area", lambda boxes: False)
    (found,) = detector.detect(portrait[None])
    assert len(found.boxes) == 1
    assert found.points is None


@pytest.mark.gpu
def test_a_gpu_measures_the_points_of_dlib(portrait, landmarks):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cuda = torch.device("cuda")
    pictures = np.stack([np.roll(portrait, shift, axis=(0, 1)) for shift in range(40)])
    detector = FaceDetector(device="cuda")
    detector.landmarks = DeviceLandmarks(landmarks.file, cuda)
    (faces,) = detector.detect_many([pictures])
    expected = [[landmarks.predict(p, box) for box in f.boxes] for p, f in zip(pictures, faces, strict=True)]
    found = np.concatenate([f.points for f in faces])
    assert len(found) >= len(pictures)
    np.testing.assert_array_equal(found, np.concatenate(expected))
