import pytest
import torch

from bmla.fuse.models.align import concatenate, pool_to_rate
from bmla.fuse.models.base import Steps


def steps(values: list[float], mask: list[bool]) -> Steps:
    return Steps(torch.tensor(values)[None, :, None], torch.tensor(mask)[None])


def test_two_fast_steps_become_one_slow_step_and_an_odd_one_stays() -> None:
    pooled = pool_to_rate(steps([1, 3, 5, 7, 9], [True] * 5), 50.0, 25.0)
    assert pooled.values.flatten().tolist() == [2.0, 6.0, 9.0]
    assert pooled.mask.tolist() == [[True, True, True]]


def test_invalid_steps_count_for_nothing() -> None:
    pooled = pool_to_rate(steps([1, 3, 5, 7], [True, False, False, False]), 50.0, 25.0)
    assert pooled.values.flatten().tolist() == [1.0, 0.0]
    assert pooled.mask.tolist() == [[True, False]]


def test_steps_are_matched_by_time_at_uneven_rates() -> None:
    pooled = pool_to_rate(steps([float(i) for i in range(10)], [True] * 10), 100.0, 30.0)
    # slow step j covers [j / 30 s, (j + 1) / 30 s): fast steps 0-3, 4-6, 7-9
    assert pooled.values.flatten().tolist() == [1.5, 5.0, 8.0]


@pytest.mark.parametrize("rate_hz", [24.0, 25.0, 29.97, 62.5])
def test_a_fast_step_at_the_very_edge_belongs_to_the_slow_one_that_begins_there(rate_hz: float) -> None:
    t = 3 * 200
    pooled = pool_to_rate(steps([float(i // 3) for i in range(t)], [True] * t), 3 * rate_hz, rate_hz)
    assert pooled.values.flatten().tolist() == [float(j) for j in range(200)]


def test_the_same_rate_changes_nothing() -> None:
    original = steps([1, 2, 3], [True, False, True])
    assert pool_to_rate(original, 25.0, 25.0) is original


def test_concatenation_fills_a_missing_side_with_zeros_and_is_valid_where_either_is() -> None:
    values, mask = concatenate(steps([1, 2, 3], [True, False, False]), steps([4, 5], [False, True]))
    assert values.tolist() == [[[1.0, 0.0], [0.0, 5.0], [0.0, 0.0]]]
    assert mask.tolist() == [[True, True, False]]
