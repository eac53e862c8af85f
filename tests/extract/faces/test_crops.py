"""Crops: the right place, upright, steady, and no pixel skipped where they shrink."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from bmla.extract.encoders.base import Sight
from bmla.extract.faces.crops import (
    BOX_DOWN,
    BOX_SIDE,
    RIGID,
    RIGID_MEAN,
    FaceCrop,
    MouthCrop,
    _Last,
    aligned_face_crop,
    alignment,
    cropped,
    face_crop,
    mouth_crop,
)
from bmla.store.errors import UsageError

STILL = MouthCrop(sigma_frames=0)


def gradient(height, width):
    """A picture that tells its coordinates: red is x, green is y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x], axis=2).astype(np.uint8)


def turned(portrait, points, degrees, scale, size=700):
    """The portrait and its landmarks, turned about the face and brought to another size."""
    x, y = points[30]
    matrix = cv2.getRotationMatrix2D((float(x), float(y)), degrees, scale)
    matrix[:, 2] += size / 2 - points[30]
    picture = cv2.warpAffine(portrait, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return picture, (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


@pytest.fixture(scope="module")
def points(landmarks, detector, portrait):
    return landmarks.predict(portrait, detector.detect(portrait[None])[0].boxes[0])


def correlation(a, b):
    return np.corrcoef(a.astype(float).ravel(), b.astype(float).ravel())[0, 1]


@pytest.mark.parametrize(("degrees", "scale"), [(25, 1.0), (-40, 1.5), (0, 2.5), (90, 1.2)])
def test_turned_and_scaled_face_gives_nearly_the_same_mouth(portrait, points, degrees, scale):
    (expected,) = mouth_crop(portrait[None], points[None], STILL)
    picture, moved = turned(portrait, points, degrees, scale)
    (crop,) = mouth_crop(picture[None], moved[None], STILL)
    assert crop.shape == (80, 80)
    assert correlation(expected, crop) > 0.98
    assert np.abs(expected.astype(float) - crop).mean() < 4


def test_mouth_is_in_the_middle_and_level(portrait, points):
    """A bright mark painted on the mouth's middle, between two painted on its corners."""
    picture, moved = turned(portrait, points, 20, 1.6)
    picture = picture // 4
    middle = moved[48:68].mean(axis=0)
    along = np.subtract(*moved[[45, 36]]) * 0.4
    for place in (middle - along, middle, middle + along):
        cv2.circle(picture, tuple(int(v) for v in np.rint(place)), 4, (255, 255, 255), -1)
    (crop,) = mouth_crop(picture[None], moved[None], STILL)
    spots = cv2.connectedComponentsWithStats((crop > 128).astype(np.uint8))[3][1:]  # (3, 2) centres
    left, centre, right = spots[np.argsort(spots[:, 0])]
    assert np.abs(centre - 39.5).max() < 1.5
    assert abs(left[1] - right[1]) < 5
    assert left[0] < 20
    assert right[0] > 59


def test_alignment_recovers_turn_and_size():
    rng = np.random.default_rng(0)
    face = rng.normal(size=(68, 2))
    face[list(RIGID)] = RIGID_MEAN
    for angle, size in ((0.3, 40.0), (-1.2, 75.0), (3.0, 10.0)):
        c, s = size * np.cos(angle), size * np.sin(angle)
        moved = face @ np.array([[c, s], [-s, c]]) + [100, 50]
        np.testing.assert_allclose(alignment(moved[None]), [[c, s]], atol=1e-9)


def test_talking_does_not_change_the_alignment(points):
    talking = np.repeat(points[None], 2, axis=0)
    talking[1, 48:68] += np.random.default_rng(0).normal(0, 5, (20, 2))
    talking[1, :17] += 8
    assert np.array_equal(*alignment(talking.astype(float)))


def test_face_crop_is_a_centred_square():
    frames = gradient(200, 250)[None]
    crop = FaceCrop(size_px=50, margin=0.25, sigma_frames=0)
    (found,) = face_crop(frames, np.array([[100, 60, 130, 100]]), crop)  # centre (115, 80), square of 60
    assert found.shape == (50, 50, 3)
    steps = 85 + (np.arange(50) + 0.5) * 60 / 50 - 0.5  # pixel i covers i to i + 1: its middle is i + 0.5
    assert np.abs(found[..., 0] - steps).max() <= 1
    assert np.abs(found[..., 1] - (steps - 35)[:, None]).max() <= 1


def test_crop_of_exact_size_is_the_picture_itself():
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    (found,) = face_crop(picture[None], np.array([[30, 20, 62, 52]]), FaceCrop(size_px=32, margin=0, sigma_frames=0))
    assert np.array_equal(found, picture[20:52, 30:62])


def test_shrinking_averages_all_pixels():
    """Fine stripes become even grey; plain bilinear sampling would show black and white bands."""
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    (found,) = face_crop(stripes[None], np.array([[40, 40, 340, 340]]), FaceCrop(size_px=40, margin=0, sigma_frames=0))
    assert np.abs(found.astype(int) - 127).max() <= 20


def test_edge_pixels_are_repeated_beyond_the_border():
    frames = np.full((1, 60, 60, 3), 200, np.uint8)
    (found,) = face_crop(frames, np.array([[-40, -40, 30, 30]]), FaceCrop(size_px=64, sigma_frames=0))
    assert (found == 200).all()


def test_shaking_boxes_give_a_steady_crop():
    rng = np.random.default_rng(0)
    frames = np.repeat(gradient(240, 250)[None], 30, axis=0)
    boxes = np.array([60, 60, 160, 180]) + rng.normal(0, 3, (30, 4))
    shaking, steady = (
        face_crop(frames, boxes, FaceCrop(sigma_frames=s))[:, 64, 64, :2].astype(float) for s in (0.0, 2.0)
    )
    assert np.abs(np.diff(steady, axis=0)).mean() < 0.3 * np.abs(np.diff(shaking, axis=0)).mean()


def test_turn_is_smoothed_across_the_half_circle(portrait, points):
    """Angles just below and above 180 degrees average to 180, not to 0."""
    pictures, moved = zip(*(turned(portrait, points, 180 + d, 1.0) for d in (-2, 2, -2, 2)), strict=True)
    crops = mouth_crop(np.stack(pictures), np.stack(moved))
    (expected,) = mouth_crop(portrait[None], points[None])
    assert all(correlation(expected, crop) > 0.95 for crop in crops)


def test_frames_are_cropped_independently_without_smoothing(portrait, points):
    picture, moved = turned(portrait, points, 10, 1.0, size=512)
    both = mouth_crop(np.stack([portrait, picture]), np.stack([points, moved]), STILL)
    assert np.array_equal(both[0], mouth_crop(portrait[None], points[None], STILL)[0])
    assert np.array_equal(both[1], mouth_crop(picture[None], moved[None], STILL)[0])


ALIGNED = FaceCrop(sigma_frames=0, align="similarity")


@pytest.mark.parametrize(("degrees", "scale"), [(25, 1.0), (-40, 1.3), (0, 1.6), (90, 1.2)])
def test_turned_and_scaled_face_gives_nearly_the_same_aligned_face(portrait, points, degrees, scale):
    (expected,) = aligned_face_crop(portrait[None], points[None], ALIGNED)
    picture, moved = turned(portrait, points, degrees, scale)
    (crop,) = aligned_face_crop(picture[None], moved[None], ALIGNED)
    assert crop.shape == (128, 128, 3)
    assert correlation(expected, crop) > 0.97


def test_aligned_face_lies_where_the_mean_box_lies():
    """A face with the mean shape, turned by 30 degrees, of 20 pixels between the eyes."""
    angle, eyes, centre = np.deg2rad(30), 20.0, np.array([120.0, 110.0])
    right = eyes * np.array([np.cos(angle), np.sin(angle)])
    down = eyes * np.array([-np.sin(angle), np.cos(angle)])
    points = np.tile(centre, (68, 1))
    points[list(RIGID)] += RIGID_MEAN @ np.stack([right, down])
    crop = FaceCrop(size_px=66, margin=0, sigma_frames=0, align="similarity")
    (found,) = aligned_face_crop(gradient(240, 250)[None], points[None] - 0.5, crop)
    for row, column in ((0, 0), (10, 50), (65, 65)):
        u, v = ((np.array([column, row]) + 0.5) / 66 - 0.5) * BOX_SIDE
        expected = centre + u * right + (v + BOX_DOWN) * down - 0.5
        assert np.abs(found[row, column, :2] - expected).max() <= 1


def test_mean_box_is_near_the_detectors(portrait, points, detector):
    """Of the portrait, whose head leans: centre within a fifth and side within a fifth of the detector's square."""
    box = detector.detect(portrait[None])[0].boxes[0]
    ((c, s),) = alignment(points[None].astype(float))
    side = (box[2:] - box[:2]).max()
    centre = points[list(RIGID)].mean(axis=0) + 0.5 + BOX_DOWN * np.array([-s, c])
    assert abs(BOX_SIDE * np.hypot(c, s) / side - 1) < 0.2
    assert np.abs(centre - (box[:2] + box[2:]) / 2).max() < 0.2 * side


def test_level_mouth_has_the_same_middle_and_scale_but_is_not_turned(portrait, points):
    picture, moved = turned(portrait, points, 30, 1.5)
    level = MouthCrop(sigma_frames=0, align="box")
    (crop,) = mouth_crop(picture[None], moved[None], level)
    ((c, s),) = alignment(moved[None].astype(float))
    side = 1.5 * np.hypot(c, s)
    x, y = moved[48:68].mean(axis=0) + 0.5 - side / 2
    box = np.array([[x, y, x + side, y + side]])
    expected = face_crop(picture[None], box, FaceCrop(size_px=80, margin=0, sigma_frames=0, colour="grey"))
    assert np.abs(crop.astype(int) - expected[0]).max() <= 1
    assert correlation(crop, mouth_crop(picture[None], moved[None], STILL)[0]) < 0.9


def test_grey_is_the_brightness_of_the_colours(portrait, points, detector):
    boxes = detector.detect(portrait[None])[0].boxes[:1]
    for make, place, policy in (
        (face_crop, boxes, FaceCrop),
        (aligned_face_crop, points[None], FaceCrop),
        (mouth_crop, points[None], MouthCrop),
    ):
        colour, grey = (make(portrait[None], place, policy(colour=c)) for c in ("rgb", "grey"))
        assert grey.shape == colour.shape[:3]
        weighted = colour.astype(float) @ [0.299, 0.587, 0.114]  # ITU-R BT.601
        assert np.abs(weighted - grey).max() <= 1.5


def test_cropped_follows_the_policy(portrait, points, detector):
    box = detector.detect(portrait[None])[0].boxes[:1]
    clip = Sight(portrait[None], box, points[None], np.ones(1, bool), np.ones(1, np.float32))
    assert np.array_equal(cropped(clip, FaceCrop()), face_crop(portrait[None], box))
    assert np.array_equal(cropped(clip, ALIGNED), aligned_face_crop(portrait[None], points[None], ALIGNED))
    assert np.array_equal(cropped(clip, MouthCrop()), mouth_crop(portrait[None], points[None]))
    assert not np.array_equal(cropped(clip, ALIGNED), cropped(clip, FaceCrop()))


def test_wrong_inputs_are_refused(portrait, points):
    with pytest.raises(UsageError, match=r"landmarks have shape \(1, 5, 2\), expected finite \(1, 68, 2\)"):
        mouth_crop(portrait[None], points[None, :5])
    with pytest.raises(UsageError, match="expected finite"):
        mouth_crop(portrait[None], np.full((1, 68, 2), np.nan))
    with pytest.raises(UsageError, match=r"boxes have shape \(2, 4\), expected finite \(1, 4\)"):
        face_crop(portrait[None], np.zeros((2, 4)))
    with pytest.raises(UsageError, match="frames are float64"):
        face_crop(portrait[None] / 1.0, np.ones((1, 4)))
    with pytest.raises(UsageError, match="no area"):
        face_crop(portrait[None], np.zeros((1, 4)))
    with pytest.raises(UsageError, match="size_px"):
        FaceCrop(size_px=0)
    with pytest.raises(UsageError, match="sigma_frames"):
        MouthCrop(sigma_frames=-1.0)


def test_descriptions_are_plain_and_complete():
    assert FaceCrop().describe() == {
        "policy": "square around the face box",
        "size_px": 128,
        "margin": 0.05,
        "sigma_frames": 2.0,
        "resampling": "bilinear; block mean where it shrinks",
    }
    assert MouthCrop(size_px=96).describe()["size_px"] == 96
    assert MouthCrop().describe().keys() >= {"width", "sigma_frames", "colour", "resampling"}


def test_threads_share_no_crops():
    """Each remembers those of its own clip alone."""
    last, one, other = _Last(), Sight(*[None] * 5), Sight(*[None] * 5)  # type: ignore[arg-type]
    mine = last.of(one)
    mine["crop"] = 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: (last.of(other), last.of(one))).result() == ({}, {})
    assert last.of(one) is mine
    assert last.of(other) == {}
