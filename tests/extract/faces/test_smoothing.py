"""Gaps are filled and jitter goes, without moving what is steady or letting bad frames in."""

import numpy as np

from bmla.extract.faces.smoothing import fill_gaps, smooth, smooth_valid


def test_gaps_are_linear_inside_and_nearest_at_the_ends():
    values = np.array([[9, 9], [1, 10], [9, 9], [9, 9], [4, 16], [9, 9]], np.float32)
    valid = np.array([False, True, False, False, True, False])
    filled = fill_gaps(values, valid)
    assert filled.dtype == np.float32
    assert filled.tolist() == [[1, 10], [1, 10], [2, 12], [3, 14], [4, 16], [4, 16]]


def test_shape_is_kept_for_points():
    points = np.random.default_rng(0).normal(size=(5, 68, 2)).astype(np.float32)
    whole = fill_gaps(points, np.ones(5, bool))
    assert whole.tobytes() == points.tobytes()
    assert not np.shares_memory(whole, points)


def test_smoothing_is_the_written_out_gaussian_mean():
    values = np.random.default_rng(1).normal(size=(12, 3))
    for t in (0, 1, 5, 11):
        offsets = [k for k in range(-3, 4) if 0 <= t + k < 12]
        weights = np.exp(-0.5 * np.array(offsets) ** 2)
        expected = sum(w * values[t + k] for w, k in zip(weights, offsets, strict=True)) / weights.sum()
        np.testing.assert_allclose(smooth(values, 1.0)[t], expected)


def test_what_stands_still_stays_where_it_is():
    values = np.full((20, 2), 3.25)
    np.testing.assert_allclose(smooth(values, 2.0), values)


def test_straight_motion_has_no_lag():
    values = np.arange(30.0)[:, None]
    np.testing.assert_allclose(smooth(values, 1.0)[3:-3], values[3:-3])


def test_zero_sigma_leaves_values_alone():
    values = np.random.default_rng(2).normal(size=(6, 4))
    assert np.array_equal(smooth(values, 0.0), values)


def test_single_frame_is_kept():
    assert smooth(np.array([[7.0]]), 2.0).tolist() == [[7.0]]


def test_frames_that_are_not_valid_have_no_influence():
    rng = np.random.default_rng(3)
    values, valid = rng.normal(size=(15, 2)), rng.random(15) < 0.6
    changed = np.where(valid[:, None], values, np.nan)
    assert np.array_equal(smooth_valid(values, valid, 1.0), smooth_valid(changed, valid, 1.0))


def test_long_gap_is_bridged_between_its_smoothed_ends():
    values, valid = np.zeros((40, 1)), np.ones(40, bool)
    values[30:] = 11.0
    valid[10:30] = False
    out = smooth_valid(values, valid, 1.0)
    assert np.allclose(out[:10], 0)
    assert np.allclose(out[30:], 11)
    assert np.allclose(np.diff(out[9:31, 0]), 11 / 21)
