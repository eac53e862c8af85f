import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bmla.fuse.config import RunConfig
from bmla.fuse.evaluate import Predictions
from bmla.fuse.metrics import scores
from bmla.fuse.recipes import run_config
from bmla.fuse.run import Run
from bmla.fuse.summary import ROUNDS, bootstrap_means, summarise


def made_up(
    config: RunConfig, right: Sequence[bool], dev: float, loss: float = 1.0, groups: Sequence[str] | None = None
) -> Run:
    """A run of two classes that is right about just these clips."""
    n = len(right)
    labels = np.arange(n) % 2
    answers = np.where(right, labels, 1 - labels)
    predictions = Predictions(
        ids=np.arange(n).astype(str),
        groups=np.arange(n).astype(str) if groups is None else np.array(groups, object),
        labels=labels,
        result=np.log(np.eye(2)[answers] * 0.8 + 0.1).astype(np.float32),
        audio=None,
        visual=None,
        alpha=None,
        audio_present=np.ones(n, bool),
        visual_present=np.ones(n, bool),
    )
    best = {"dev_accuracy": dev, "dev_loss": loss, "epoch": 3}
    run = Run(Path("nowhere"), {}, config, [], {"best": best, "test": scores(predictions)})
    run.__dict__["predictions"] = predictions  # where cached_property keeps it
    return run


def half(n: int, right: int, seed: int = 0) -> list[bool]:
    flags = np.arange(n) < right
    return np.random.default_rng(seed).permutation(flags).tolist()


def ratio(text: str, seed: int = 0) -> RunConfig:
    return run_config("transformer", ratio=text, seed=seed)


def test_seeds_of_a_setting_make_one_row() -> None:
    runs = [made_up(ratio("1:2", seed), half(100, n), 0.5 + seed / 10) for seed, n in ((1, 70), (0, 60), (2, 80))]
    runs.append(made_up(run_config("transformer-ao"), half(100, 90), 0.1))
    summary = summarise(runs)
    assert [row.label for row in summary.rows] == ["transformer 1:2", "transformer-ao"]
    row, alone = summary.rows
    assert row.seeds == (0, 1, 2)
    assert row.accuracies == (0.6, 0.7, 0.8)
    assert row.mean == pytest.approx(0.7)
    assert row.std == pytest.approx(statistics.stdev([0.6, 0.7, 0.8]))
    assert row.dev == pytest.approx(0.6)
    assert (alone.ratio, alone.std) == (None, None)
    assert row.to_dict()["label"] == "transformer 1:2"


def test_the_best_is_chosen_on_dev_and_never_on_test() -> None:
    good_on_test = made_up(ratio("1:2"), half(100, 99), dev=0.5)
    good_on_dev = made_up(ratio("1:1"), half(100, 50), dev=0.6)
    summary = summarise([good_on_test, good_on_dev])
    assert summary.rows[summary.best].ratio == "1:1"
    assert summary.best_run is good_on_dev
    equal = [
        made_up(ratio("1:2"), half(100, 99), dev=0.5, loss=2.0),
        made_up(ratio("1:1"), half(100, 50), dev=0.5, loss=1.0),
    ]
    assert summarise(equal).best == 1


def test_the_interval_of_one_seed_is_that_of_a_binomial() -> None:
    low, high = summarise([made_up(ratio("1:1"), half(400, 300), 0.5)]).rows[0].interval
    error = (0.75 * 0.25 / 400) ** 0.5
    assert low == pytest.approx(0.75 - 1.96 * error, abs=0.006)
    assert high == pytest.approx(0.75 + 1.96 * error, abs=0.006)


def test_clips_of_one_recording_do_not_count_as_many() -> None:
    right = [True] * 300 + [False] * 100
    recordings = [f"g{i // 20}" for i in range(400)]
    alone = summarise([made_up(ratio("1:1"), right, 0.5)]).rows[0].interval
    grouped = summarise([made_up(ratio("1:1"), right, 0.5, groups=recordings)]).rows[0].interval
    assert grouped[1] - grouped[0] > 3 * (alone[1] - alone[0])


def test_seeds_widen_the_interval() -> None:
    same = [made_up(ratio("1:1", s), half(4000, 3000, s), 0.5) for s in range(3)]
    apart = [made_up(ratio("1:1", s), half(4000, n, s), 0.5) for s, n in enumerate((2000, 3000, 4000))]
    narrow, wide = (summarise(runs).rows[0].interval for runs in (same, apart))
    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])


def test_settings_draw_the_same_clips_in_the_same_round() -> None:
    right = half(100, 60)
    better = list(right)
    better[right.index(False)] = True
    a, b = (bootstrap_means([made_up(ratio("1:1"), flags, 0.5)]) for flags in (right, better))
    assert a.shape == (ROUNDS,)
    assert (b >= a).all()
    assert (b > a).mean() == pytest.approx(1 - (1 - 1 / 100) ** 100, abs=0.05)  # rounds that drew the clip at all
    assert np.array_equal(a, bootstrap_means([made_up(ratio("1:1"), right, 0.5)]))


def test_rivals_are_those_that_the_clips_cannot_tell_from_the_best() -> None:
    right = half(200, 150)
    nearly = list(right)
    nearly[right.index(True)] = False
    nearly[right.index(False)] = True
    runs = [
        made_up(ratio("1:1"), right, 0.9),
        made_up(ratio("1:2"), nearly, 0.8),
        made_up(ratio("2:1"), half(200, 100), 0.7),
    ]
    summary = summarise(runs)
    assert [summary.rows[i].ratio for i in summary.rivals] == ["1:2"]


def test_ratio_shares_are_how_often_each_ratio_is_the_best() -> None:
    runs = [
        made_up(ratio(text), half(200, n, seed), 0.5)
        for text, n, seed in (("2:1", 100, 0), ("1:1", 170, 1), ("1:2", 165, 2))
    ]
    shares = summarise(runs).ratio_shares["transformer"]
    assert list(shares) == ["1:2", "1:1", "2:1"]  # by audio over visual
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["1:1"] > shares["1:2"] > 0.05
    assert shares["2:1"] < 0.001
    assert summarise(runs[:1]).ratio_shares == {}


def test_equal_ratios_share_every_round() -> None:
    runs = [made_up(ratio(text), half(50, 30), 0.5) for text in ("1:1", "1:2")]
    assert summarise(runs).ratio_shares == {"transformer": {"1:2": 0.5, "1:1": 0.5}}


def test_ratios_with_unequal_seeds_are_not_compared() -> None:
    runs = [made_up(ratio("1:1", s), half(50, 30), 0.5) for s in (0, 1)] + [made_up(ratio("1:2"), half(50, 30), 0.5)]
    assert summarise(runs).ratio_shares == {}


def test_parts_taken_away_are_settings_of_their_own() -> None:
    make: Callable[..., RunConfig] = run_config
    configs = [make("balancemla"), make("balancemla", clw=False), make("balancemla", brff=False, adf=False, clw=False)]
    summary = summarise([made_up(c, half(50, 30), 0.5) for c in configs])
    assert [r.label for r in summary.rows] == [
        "balancemla 1:1",
        "balancemla without clw 1:1",
        "balancemla without brff, adf, clw 1:1",
    ]
    assert summary.best_weighted_run is None


def test_a_label_tells_no_seed() -> None:
    config = ratio("1:1", seed=7)
    assert replace(config, seed=0) == ratio("1:1")
    assert summarise([made_up(config, half(10, 5), 0.5)]).rows[0].label == "transformer 1:1"
