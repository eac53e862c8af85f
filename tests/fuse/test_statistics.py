import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from bmla.fuse.statistics import (
    F1_ROUNDS,
    ROUNDS,
    bootstrap_macro_f1,
    bootstrap_mean,
    centred,
    cluster_permutation,
    group_draws,
    holm,
    interval,
    mcnemar,
    over_seeds,
    seed_draws,
)


def written_out_binomial(few: int, total: int) -> float:
    return min(1.0, 2 * sum(math.comb(total, k) for k in range(few + 1)) / 2**total)


@pytest.mark.parametrize(("b", "c"), [(1, 5), (0, 8), (7, 7), (3, 20), (12, 12), (24, 0)])
def test_mcnemar_counts_few_discordant_clips_out(b: int, c: int) -> None:
    assert mcnemar(b, c) == pytest.approx(written_out_binomial(min(b, c), b + c), rel=1e-12)
    assert mcnemar(b, c) == mcnemar(c, b)


@pytest.mark.parametrize(("b", "c"), [(121, 59), (30, 20), (13, 12), (400, 300)])
def test_mcnemar_of_many_is_chi_square_with_continuity(b: int, c: int) -> None:
    square = max(abs(b - c) - 1, 0) ** 2 / (b + c)
    expected = math.erfc(math.sqrt(square / 2))  # chi-square of one degree is a squared normal
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, c) == pytest.approx(written_out_binomial(min(b, c), b + c), rel=0.25)


def test_mcnemar_of_known_tables() -> None:
    assert mcnemar(121, 59) == pytest.approx(5.450e-6, rel=1e-3)  # Agresti's approval ratings as statsmodels gives them
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 0) == 1.0


def enumerated(differences: list[int]) -> float:
    """All swaps one by one."""
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    return sum(v >= abs(sum(differences)) for v in sums) / len(sums)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_cluster_permutation_is_all_swaps_counted(differences: list[int]) -> None:
    assert cluster_permutation(np.array(differences, np.int64)) == pytest.approx(enumerated(differences), abs=1e-12)


@given(st.integers(0, 30), st.integers(0, 30))
def test_groups_of_one_clip_are_mcnemars_exact_test(b: int, c: int) -> None:
    differences = np.array([1] * b + [-1] * c + [0] * 5)
    assert cluster_permutation(differences) == pytest.approx(written_out_binomial(min(b, c), b + c), abs=1e-12)


def test_clips_of_one_recording_are_no_evidence_of_their_own() -> None:
    """Twenty clips for, none against, but of two recordings: McNemar is sure, the swaps of recordings are not."""
    assert mcnemar(20, 0) < 1e-5
    assert cluster_permutation(np.array([10, 10])) == pytest.approx(0.5)


def test_the_permutation_test_keeps_its_level_where_mcnemar_does_not() -> None:
    """Two settings that are equally good, whose answers go together in recordings of ten clips."""
    rng = np.random.default_rng(0)
    wrong = np.zeros(2)
    for _ in range(400):
        lean = rng.beta(0.5, 0.5, size=(30, 1))  # how likely the first setting wins a clip of each recording
        values = np.where(rng.random((30, 10)) < lean, 1, -1)
        b, c = int((values > 0).sum()), int((values < 0).sum())
        wrong += [mcnemar(b, c) < 0.05, cluster_permutation(values.sum(1)) < 0.05]
    assert wrong[0] / 400 > 0.2
    assert wrong[1] / 400 < 0.08


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_nothing_and_bonferroni(p: list[float]) -> None:
    corrected = holm(p)
    assert all(a <= c <= min(1.0, len(p) * a) + 1e-12 for a, c in zip(p, corrected, strict=True))
    assert [corrected[i] for i in sorted(range(len(p)), key=p.__getitem__)] == sorted(corrected)


def test_rounds_draw_as_many_groups_as_there_are_and_the_same_every_time() -> None:
    draws = group_draws(37)
    assert draws.shape == (ROUNDS, 37)
    assert (draws.sum(1) == 37).all()
    assert draws.mean(0) == pytest.approx(1, abs=0.15)
    group_draws.cache_clear()
    assert np.array_equal(group_draws(37), draws)


def test_the_mean_of_a_round_is_that_of_its_clips() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(6, size=40).astype(str)
    values = rng.integers(2, size=(1, 40))
    weights = group_draws(6)
    clip_weights = weights[:, np.unique(groups, return_inverse=True)[1]].astype(float)
    expected = (clip_weights * values).sum(1) / clip_weights.sum(1)
    assert bootstrap_mean(values, groups) == pytest.approx(expected)


def test_macro_f1_of_a_round_is_that_of_its_clips() -> None:
    rng = np.random.default_rng(2)
    groups, labels = rng.integers(8, size=50).astype(str), rng.integers(5, size=50)
    predicted = np.where(rng.random(50) < 0.6, labels, rng.integers(5, size=50))[None]
    rounds = bootstrap_macro_f1(predicted, labels, groups)
    assert rounds.shape == (F1_ROUNDS,)
    number = np.unique(groups, return_inverse=True)[1]
    for i in (0, 1, 17, 499):
        clips = np.repeat(np.arange(50), group_draws(8)[i][number])
        assert rounds[i] == pytest.approx(f1_score(labels[clips], predicted[0, clips], average="macro"))


def test_the_spread_of_a_few_seeds_is_not_underestimated() -> None:
    """The variance of the mean of s seeds is that of the seeds, estimated with s - 1, over s."""
    values = np.array([0.2, 0.5, 0.9])
    rounds = over_seeds(np.broadcast_to(values, (ROUNDS, 3)))
    assert rounds.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.06)
    assert rounds.mean() == pytest.approx(values.mean(), abs=0.02)
    assert np.array_equal(over_seeds(rounds[:, None]), rounds)
    assert seed_draws(3).max() == 2


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Recordings and seeds with effects of their own, 200 times: 95 % of the intervals hold the true accuracy."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 5).astype(str)
    inside = 0
    for _ in range(200):
        logit = 1 + rng.normal(size=(1, 40, 1)) + rng.normal(0, 0.3, size=(5, 1, 1))
        right = rng.random((5, 40, 5)) < 1 / (1 + np.exp(-logit))
        low, high = interval(bootstrap_mean(right.reshape(5, 200), groups))
        inside += low <= TRUE_ACCURACY <= high
    assert inside >= 0.91 * 200


def true_accuracy() -> float:
    normal = np.random.default_rng(4).normal(1, math.hypot(1, 0.3), size=200_000)
    return float((1 / (1 + np.exp(-normal))).mean())


TRUE_ACCURACY = true_accuracy()


def test_macro_f1_of_rare_classes_lies_in_the_middle_of_its_interval() -> None:
    """Forty classes of three clips each, a third of them never answered: rounds that lack a class are not the better for it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 3)
    answered = np.where(labels % 3 == 0, 1, labels)
    predicted = np.where(rng.random((2, 120)) < 0.7, answered, rng.integers(40, size=(2, 120)))
    value = float(np.mean([f1_score(labels, p, average="macro", zero_division=0) for p in predicted]))
    rounds = bootstrap_macro_f1(predicted, labels, np.arange(120).astype(str))
    (plain_low, plain_high), (low, high) = interval(rounds), interval(centred(rounds, value))
    assert abs((plain_low + plain_high) / 2 - value) > 0.15 * (high - low)  # what it is there for
    assert abs((low + high) / 2 - value) < 0.1 * (high - low)
    assert high - low == pytest.approx(plain_high - plain_low)
