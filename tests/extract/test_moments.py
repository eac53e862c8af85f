"""Moments gathered clip by clip are those of all steps at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmla.extract.moments import Moments, deviations, principal


def gathered(parts: list[np.ndarray], cross: bool) -> Moments:
    moments = Moments(cross)
    for part in parts:
        moments.add(part)
    return moments


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e6]))
def test_clip_by_clip_is_all_at_once(lengths: list[int], seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    parts = [offset + rng.normal(size=(n, 3)) * (1, 10, 0.1) for n in lengths]
    whole = np.concatenate(parts)
    alone, crossed = gathered(parts, False), gathered(parts, True)
    assert alone.count == crossed.count == len(whole)
    if not len(whole):
        assert alone.mean is None
        return
    np.testing.assert_allclose(alone.mean, whole.mean(0), rtol=1e-9)
    np.testing.assert_allclose(alone.scatter, whole.var(0) * len(whole), atol=1e-6, rtol=1e-6)
    expected = np.cov(whole.T, bias=True) * len(whole)
    np.testing.assert_allclose(crossed.scatter, expected, atol=1e-6, rtol=1e-6)


def test_half_precision_does_not_add_up_in_half_precision() -> None:
    values = np.full((60_000, 2), 60_000, np.float16)
    moments = gathered([values, values], False)
    np.testing.assert_array_equal(moments.mean, values[0].astype(float))
    np.testing.assert_array_equal(deviations(moments), [1, 1])  # constant: nothing to divide by


def test_directions_are_those_of_the_singular_values_largest_first() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
    directions, share = principal(gathered([values[:50], values[50:]], True), 3)
    _, sizes, rows = np.linalg.svd(values - values.mean(0), full_matrices=False)
    assert share == pytest.approx((sizes[:3] ** 2).sum() / (sizes**2).sum())
    for mine, theirs in zip(directions.T, rows, strict=False):
        sign = 1 if theirs[np.abs(theirs).argmax()] > 0 else -1
        np.testing.assert_allclose(mine, sign * theirs, atol=1e-8)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)
