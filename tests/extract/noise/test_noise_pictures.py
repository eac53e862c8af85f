"""Bad pictures: how much is blurred, covered, darkened or lost, and that the track of the face stays."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bmla.extract.encoders.base import Sight
from bmla.extract.noise.pictures import Blur, Dark, Drop, Occlude, from_light, to_light
from bmla.store.clips import Clip

CLIP = Clip(id="a", start_s=0, end_s=1)
H, W = 120, 140
BOX = (30.0, 20.0, 90.0, 100.0)  # 60 x 80


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sight(frames: np.ndarray, mouth: tuple[float, float] = (60, 80)) -> Sight:
    T = len(frames)
    landmarks = np.tile(np.array(mouth, np.float32) - 0.5, (T, 68, 1))
    boxes = np.tile(np.array(BOX, np.float32), (T, 1))
    return Sight(frames, boxes, landmarks, np.ones(T, bool), np.full(T, 0.9, np.float32))


def still(level: int, steps: int = 4) -> np.ndarray:
    return np.full((steps, H, W, 3), level, np.uint8)


@pytest.mark.parametrize("noise", [Blur(4), Occlude(0.4), Dark(0.7)])
def test_the_track_of_the_face_stays(noise: Blur | Occlude | Dark) -> None:
    clean = sight(rng().integers(0, 256, (3, H, W, 3), np.uint8))
    noisy = noise.add(clean, CLIP, rng())
    assert (noisy.frames != clean.frames).any()
    for name in ("boxes", "landmarks", "valid", "scores"):
        np.testing.assert_array_equal(getattr(noisy, name), getattr(clean, name))


@pytest.mark.parametrize("noise", [Blur(0), Occlude(0), Dark(0), Drop(0)])
def test_nothing_changes_at_strength_0(noise: Blur | Occlude | Dark | Drop) -> None:
    clean = sight(np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3).repeat(9, 1).repeat(9, 2)[:, :H, :W])
    noisy = noise.add(clean, CLIP, rng())
    np.testing.assert_array_equal(noisy.frames, clean.frames)
    np.testing.assert_array_equal(noisy.valid, clean.valid)


@pytest.mark.parametrize(("percent", "scale"), [(5, 1), (5, 2), (10, 1)])
def test_an_edge_is_blurred_over_a_share_of_the_face(percent: float, scale: int) -> None:
    """A step becomes the error function of the stated sigma: 4 px for 5 % of a face of 80 px."""
    frames = still(0).repeat(scale, 1).repeat(scale, 2)
    frames[:, :, W * scale // 2 :] = 200
    clean = sight(frames)
    clean = replace(clean, boxes=clean.boxes * scale, valid=np.array([True, True, True, False]))
    clean.boxes[3] *= 3  # a guess that must not count
    row = Blur(percent).add(clean, CLIP, rng()).frames[1, H * scale // 2, :, 0].astype(float)
    sigma = percent / 100 * 80 * scale
    x = np.arange(W * scale) + 0.5 - W * scale / 2
    expected = [100 * (1 + math.erf(v / (sigma * math.sqrt(2)))) for v in x]
    np.testing.assert_allclose(row[20:-20], expected[20:-20], atol=2.5)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("mouth", [(60, 80), (31, 99)])
def test_the_patch_covers_its_share_of_the_box_and_nothing_beyond(share: float, mouth: tuple[float, float]) -> None:
    for seed in range(5):
        covered = (Occlude(share).add(sight(still(7), mouth), CLIP, rng(seed)).frames == 128).all(axis=3)
        assert (covered == covered[0]).all()  # the box is still, so is the patch
        inside = covered[0, 20:100, 30:90]
        assert inside.sum() == covered[0].sum()
        rows, columns = inside.any(axis=1).sum(), inside.any(axis=0).sum()
        assert inside.sum() == rows * columns
        assert abs(rows - 80 * math.sqrt(share)) <= 1
        assert abs(columns - 60 * math.sqrt(share)) <= 1


def test_the_patch_lies_about_the_mouth_at_a_place_of_the_clip() -> None:
    middles = []
    for seed in range(40):
        covered = (Occlude(0.05).add(sight(still(7)), CLIP, rng(seed)).frames[0] == 128).all(axis=2)
        middles.append(np.argwhere(covered).mean(axis=0)[::-1] + 0.5)
    offsets = np.array(middles) - (60, 80)
    assert (np.abs(offsets) <= (6.5, 8.5)).all()  # a tenth of 60 x 80, and rounding
    assert (np.ptp(offsets, axis=0) > (8, 10)).all()


def test_the_patch_goes_with_the_head() -> None:
    clean = sight(still(7, steps=12))
    shift = np.stack([3.0 * np.arange(12), 1.0 * np.arange(12)], axis=1).astype(np.float32)
    moving = replace(clean, boxes=clean.boxes + np.tile(shift, 2), landmarks=clean.landmarks + shift[:, None])
    covered = (Occlude(0.2).add(moving, CLIP, rng()).frames == 128).all(axis=3)
    middles = np.array([np.argwhere(c).mean(axis=0)[::-1] for c in covered[:8]])[
        5:
    ]  # away from the ends, which smoothing pulls in
    np.testing.assert_allclose(np.diff(middles, axis=0), [[3, 1]] * 2, atol=1.01)


def test_a_patch_beyond_the_picture_is_cut_at_its_border() -> None:
    clean = sight(still(7))
    outside = replace(clean, boxes=clean.boxes + 80, landmarks=clean.landmarks + 80)
    covered = (Occlude(1).add(outside, CLIP, rng()).frames[0] == 128).all(axis=2)
    expected = np.zeros((H, W), bool)
    expected[100:, 110:] = True
    np.testing.assert_array_equal(covered, expected)


@pytest.mark.parametrize(("level", "share"), [(200, 0.5), (200, 0.9), (120, 0.8)])
def test_low_light_has_the_mean_and_the_variance_of_its_electrons(level: int, share: float) -> None:
    noisy = Dark(share).add(sight(still(level)), CLIP, rng()).frames
    light = ((level / 255 + 0.055) / 1.055) ** 2.4
    g, electrons = 1 - share, 5000 * light
    table = np.array([x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in np.arange(256) / 255])
    counted = 5000 * table[noisy]
    slope = (
        5000 * np.gradient(table)[round(float(noisy.mean()))]
    )  # electrons a grey level: their rounding adds 1/12 level^2
    assert counted.mean() == pytest.approx(g * electrons, rel=0.02)
    expected = g * (1 - g) * electrons + (1 - g * g) * 9 + slope**2 / 12
    assert counted.var() == pytest.approx(expected, rel=0.1)


def test_without_light_there_is_read_noise_alone() -> None:
    bright, black = (Dark(1).add(sight(still(level)), CLIP, rng()).frames for level in (255, 0))
    np.testing.assert_array_equal(bright, black)
    assert 0 < bright.mean() < 3


def test_light_and_its_levels_are_inverse() -> None:
    levels = np.arange(256) / 255
    np.testing.assert_allclose(from_light(to_light(levels)), levels, atol=1e-6)
    assert to_light(np.array(0.5)) == pytest.approx(0.21404, abs=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_lost_frames_are_not_valid_and_show_the_one_before(share: float) -> None:
    T = 40
    frames = np.zeros((T, 8, 8, 3), np.uint8)
    frames[:] = np.arange(1, T + 1, dtype=np.uint8)[:, None, None, None]
    clean = sight(frames)
    clean.valid[5] = False
    for seed in range(10):
        noisy = Drop(share).add(clean, CLIP, rng(seed))
        lost = noisy.scores == 0
        assert lost.sum() == round(share * T)
        np.testing.assert_array_equal(noisy.valid, clean.valid & ~lost)
        shown = int(np.argmin(lost))
        for t in range(T):
            shown = shown if lost[t] else t
            assert (noisy.frames[t] == shown + 1).all()
        np.testing.assert_array_equal(noisy.boxes, clean.boxes)


def test_where_every_frame_is_lost_all_is_black_and_nothing_valid() -> None:
    noisy = Drop(1).add(sight(still(90)), CLIP, rng())
    assert not noisy.frames.any()
    assert not noisy.valid.any()
