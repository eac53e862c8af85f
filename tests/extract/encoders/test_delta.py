"""Laws of the time derivative."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bmla.extract.encoders.delta import delta


def test_ramp_has_its_slope_away_from_the_ends() -> None:
    ramp = 3.0 * np.arange(9)[:, None]
    np.testing.assert_allclose(delta(ramp)[2:-2], 3.0)


def test_constant_has_no_derivative() -> None:
    assert not delta(np.full((6, 2), 7.0)).any()


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12))
def test_derivative_is_the_written_out_regression(values: list[float]) -> None:
    last = len(values) - 1
    expected = [
        sum(k * (values[min(t + k, last)] - values[max(t - k, 0)]) for k in (1, 2)) / 10 for t in range(len(values))
    ]
    np.testing.assert_allclose(delta(np.array(values)), expected, atol=1e-9)
