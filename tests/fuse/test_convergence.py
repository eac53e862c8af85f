import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmla.fuse.convergence import SMOOTHED_EPOCHS, STAYS_EPOCHS, convergence, convergence_epoch, smoothed

FINE = 10_000  # dev clips: the tolerance is half a point


def test_smoothing_is_a_mean_of_neighbours() -> None:
    assert smoothed([0.0, 0.3, 0.6, 0.0]) == pytest.approx([0.15, 0.3, 0.3, 0.3])
    assert len(smoothed([])) == 0


def test_converged_is_where_the_curve_reaches_its_plateau() -> None:
    curve = [0.1, 0.3, 0.5, 0.7, 0.8] + [0.9] * 8
    assert convergence_epoch(curve, FINE) == 7  # smoothed over 6, 7, 8 it is .9; at 6 it still has .8 in it


def test_a_dip_inside_the_five_epochs_puts_it_off() -> None:
    flat = [0.9] * 12
    assert convergence_epoch(flat, FINE) == 1
    assert convergence_epoch([*flat[:4], 0.8, *flat], FINE) == 7  # epochs 4 to 6 have the dip in them
    assert convergence_epoch([*flat[:4], 0.9 - 0.012, *flat], FINE) == 1  # .4 points when smoothed


def test_a_curve_that_still_climbs_or_is_short_has_not_converged() -> None:
    assert convergence_epoch(np.linspace(0.1, 0.9, 30), FINE) is None
    assert convergence_epoch([0.9] * (STAYS_EPOCHS - 1), FINE) is None
    assert convergence_epoch([], FINE) is None


def test_no_tolerance_is_finer_than_a_clip() -> None:
    curve = [0.80, 0.84, 0.84, 0.84, 0.84, 0.84, 0.86, 0.86, 0.86, 0.86]
    assert convergence_epoch(curve, FINE) is None
    assert convergence_epoch(curve, 50) == 3


@given(st.lists(st.integers(0, 20), min_size=1, max_size=25))
def test_the_epoch_is_what_the_definition_says(counts: list[int]) -> None:
    curve = [n / 20 for n in counts]
    smooth = smoothed(curve)
    good = [e for e in range(1, len(curve) - STAYS_EPOCHS + 2)
            if all(smooth[e - 1 + k] >= max(smooth) - 1 / 20 - 1e-9 for k in range(STAYS_EPOCHS))]  # fmt: skip
    assert convergence_epoch(curve, 20) == (good[0] if good else None)
    assert SMOOTHED_EPOCHS == 3


def test_several_runs_have_a_mean_and_an_interval() -> None:
    plateau = [0.9] * 8
    found = convergence([plateau, [0.1, 0.5, *plateau], list(np.linspace(0, 1, 30))], [FINE] * 3)
    assert found.epochs == (1, 4, None)
    assert found.best_epochs == (1, 3, 30)
    assert found.mean == 2.5
    low, high = found.interval
    assert low < 2.5 < high
    assert convergence([plateau], [FINE]).interval is None
    assert convergence([[0.5]], [FINE]).mean is None
