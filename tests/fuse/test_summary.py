import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from bmla.fuse.condition import noise_series
from bmla.fuse.config import RunConfig
from bmla.fuse.recipes import run_config
from bmla.fuse.run import Run
from bmla.fuse.summary import conditions_of, summarise
from bmla.fuse.tables import records, table_columns
from bmla.store.errors import UsageError

MadeUp = Callable[..., Run]


def half(n: int, right: int, seed: int = 0) -> list[bool]:
    flags = np.arange(n) < right
    return np.random.default_rng(seed).permutation(flags).tolist()


def shares_of(runs: Sequence[Run]) -> dict[str, float]:
    (found,) = summarise(runs).optima
    return dict(zip(found.ratios, found.shares, strict=True))


def ratio(text: str, seed: int = 0) -> RunConfig:
    return run_config("transformer", ratio=text, seed=seed)


def test_seeds_of_a_setting_make_one_row(made_up: MadeUp) -> None:
    runs = [made_up(ratio("1:2", seed), half(100, n), 0.5 + seed / 10) for seed, n in ((1, 70), (0, 60), (2, 80))]
    runs.append(made_up(run_config("transformer-ao"), half(100, 90), 0.1))
    summary = summarise(runs)
    assert [row.label for row in summary.rows] == ["transformer 1:2", "transformer-ao"]
    row, alone = summary.rows
    assert row.seeds == (0, 1, 2)
    assert row.clean.accuracies == (0.6, 0.7, 0.8)
    assert row.mean == pytest.approx(0.7)
    assert row.clean.std == pytest.approx(statistics.stdev([0.6, 0.7, 0.8]))
    assert row.dev == pytest.approx(0.6)
    assert (alone.ratio, alone.clean.std) == (None, None)
    assert row.to_dict()["label"] == "transformer 1:2"


def test_the_best_is_chosen_on_dev_and_never_on_test(made_up: MadeUp) -> None:
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


def test_the_interval_of_one_seed_is_that_of_a_binomial(made_up: MadeUp) -> None:
    low, high = summarise([made_up(ratio("1:1"), half(400, 300), 0.5)]).rows[0].clean.interval
    error = (0.75 * 0.25 / 400) ** 0.5
    assert low == pytest.approx(0.75 - 1.96 * error, abs=0.006)
    assert high == pytest.approx(0.75 + 1.96 * error, abs=0.006)


def test_clips_of_one_recording_do_not_count_as_many(made_up: MadeUp) -> None:
    right = [True] * 300 + [False] * 100
    recordings = [f"g{i // 20}" for i in range(400)]
    alone = summarise([made_up(ratio("1:1"), right, 0.5)]).rows[0].clean.interval
    grouped = summarise([made_up(ratio("1:1"), right, 0.5, groups=recordings)]).rows[0].clean.interval
    assert grouped[1] - grouped[0] > 3 * (alone[1] - alone[0])


def test_seeds_widen_the_interval(made_up: MadeUp) -> None:
    same = [made_up(ratio("1:1", s), half(4000, 3000, s), 0.5) for s in range(3)]
    apart = [made_up(ratio("1:1", s), half(4000, n, s), 0.5) for s, n in enumerate((2000, 3000, 4000))]
    narrow, wide = (summarise(runs).rows[0].clean.interval for runs in (same, apart))
    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])


def test_rivals_are_those_that_the_clips_cannot_tell_from_the_best(made_up: MadeUp) -> None:
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


def test_ratio_shares_are_how_often_each_ratio_is_the_best(made_up: MadeUp) -> None:
    runs = [
        made_up(ratio(text), half(200, n, seed), 0.5)
        for text, n, seed in (("2:1", 100, 0), ("1:1", 170, 1), ("1:2", 165, 2))
    ]
    shares = shares_of(runs)
    assert list(shares) == ["1:2", "1:1", "2:1"]  # by audio over visual
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["1:1"] > shares["1:2"] > 0.05
    assert shares["2:1"] < 0.001
    assert summarise(runs[:1]).optima == []


def test_equal_ratios_share_every_round(made_up: MadeUp) -> None:
    runs = [made_up(ratio(text), half(50, 30), 0.5) for text in ("1:1", "1:2")]
    assert shares_of(runs) == {"1:2": 0.5, "1:1": 0.5}


def test_of_unequal_seeds_those_that_all_ratios_have_are_compared(made_up: MadeUp) -> None:
    """On seed 1 alone 1:1 is behind 1:2; its good seeds 0 and 2 have nothing beside them."""
    runs = [made_up(ratio("1:1", s), half(50, n), 0.5) for s, n in ((0, 50), (1, 20), (2, 50))]
    runs.append(made_up(ratio("1:2", 1), half(50, 30), 0.5))
    (found,) = summarise(runs).optima
    assert (found.best, found.means) == ("1:2", (0.6, 0.4))
    assert summarise([*runs[:1], runs[2], runs[3]]).optima == []  # no seed in common


def test_parts_taken_away_are_settings_of_their_own(made_up: MadeUp) -> None:
    make: Callable[..., RunConfig] = run_config
    configs = [make("balancemla"), make("balancemla", clw=False), make("balancemla", brff=False, adf=False, clw=False)]
    summary = summarise([made_up(c, half(50, 30), 0.5) for c in configs])
    assert [r.label for r in summary.rows] == [
        "balancemla 1:1",
        "balancemla without clw 1:1",
        "balancemla without brff, adf, clw 1:1",
    ]
    assert summary.best_weighted_run is None


def test_a_label_tells_no_seed(made_up: MadeUp) -> None:
    config = ratio("1:1", seed=7)
    assert replace(config, seed=0) == ratio("1:1")
    assert summarise([made_up(config, half(10, 5), 0.5)]).rows[0].label == "transformer 1:1"


def test_folds_are_joined_so_that_every_clip_counts_once(made_up: MadeUp) -> None:
    def fold(number: int, seed: int, right: list[bool]) -> Run:
        config = run_config("transformer-ao", folds=3, fold=number, seed=seed)
        return made_up(config, right, first=10 * number)

    counts = {0: (9, 8, 4), 1: (10, 6, 5)}
    runs = [fold(f, s, half(10, n)) for s, of_folds in counts.items() for f, n in enumerate(of_folds)]
    (row,) = summarise(runs).rows
    assert (row.seeds, row.folds, row.clean.clips) == ((0, 1), (0, 1, 2), 30)
    assert row.clean.accuracies == pytest.approx((21 / 30, 21 / 30))
    assert row.fold_mean == pytest.approx(0.7)
    assert row.fold_std == pytest.approx(statistics.stdev([0.95, 0.7, 0.45]))
    assert dict(table_columns([row]))["mean of folds"] == ["70.0 ± 25.0"]
    assert row.label == "transformer-ao"
    assert row.notes == ()


def test_seeds_that_lack_a_fold_are_left_out_and_named(made_up: MadeUp) -> None:
    configs = [
        run_config("transformer-ao", folds=3, fold=f, seed=s) for s, f in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 1))
    ]
    (row,) = summarise([made_up(c, half(10, 5), first=10 * c.fold) for c in configs]).rows
    assert (row.seeds, row.folds, row.clean.clips) == ((0, 1), (0, 1), 20)
    assert "seeds 2 are left out" in row.notes[0]
    assert "folds 2 of 3 are missing" in row.notes[1]


def test_a_run_that_is_given_twice_is_no_second_seed(made_up: MadeUp) -> None:
    run = made_up(ratio("1:1"), half(20, 10))
    assert summarise([run, run]).rows[0].seeds == (0,)


def test_seeds_of_other_clips_are_not_joined(made_up: MadeUp) -> None:
    with pytest.raises(UsageError, match="transformer 1:1: seeds 0 and 1 were tested on other clips"):
        summarise([made_up(ratio("1:1", 0), half(20, 10)), made_up(ratio("1:1", 1), half(20, 10), first=5)])


def test_a_pair_is_compared_on_the_clips_and_seeds_of_both(made_up: MadeUp) -> None:
    a = [made_up(ratio("1:1", s), [True] * 12 + [False] * 8, 0.9) for s in (0, 1)]
    b = [made_up(run_config("transformer-vo", seed=s), [True] * 4 + [False] * 11, first=5) for s in (1, 2)]
    (pair,) = summarise([*a, *b]).pairs
    assert (pair.clips, pair.groups, pair.seeds) == (15, 15, 1)  # clips 5 to 19, seed 1
    assert pair.difference == pytest.approx((7 - 4) / 15)
    assert pair.mcnemar == pytest.approx(2 / 2**3)  # three for, none against: seeds pooled is one seed
    assert pair.mcnemar_seeds == (pair.mcnemar, pair.mcnemar)
    assert (pair.compared, pair.mcnemar_each) == ((1,), (pair.mcnemar,))
    assert pair.permutation == pytest.approx(pair.mcnemar)  # every clip is its own recording
    assert pair.holm == pair.permutation


def test_pooled_mcnemar_counts_seeds_and_the_permutation_does_not(made_up: MadeUp) -> None:
    better, worse = [True] * 20, [True] * 15 + [False] * 5
    runs = [made_up(ratio("1:1", s), better, 0.9) for s in range(3)] + [
        made_up(ratio("1:2", s), worse) for s in range(3)
    ]
    (pair,) = summarise(runs).pairs
    assert pair.mcnemar == pytest.approx(2 / 2**15)
    assert pair.mcnemar_seeds[0] == pytest.approx(2 / 2**5)
    (line,) = records(summarise(runs))["pairs"]
    assert line["mcnemar_each"] == dict.fromkeys("012", pytest.approx(2 / 2**5))
    assert pair.permutation == pytest.approx(2 / 2**5)


def test_recordings_are_swapped_whole(made_up: MadeUp) -> None:
    groups = [f"g{i // 5}" for i in range(20)]
    runs = [made_up(ratio("1:1"), [True] * 20, 0.9, groups=groups)]
    runs.append(made_up(ratio("1:2"), [False] * 10 + [True] * 10, groups=groups))
    (pair,) = summarise(runs).pairs
    assert pair.permutation == pytest.approx(2 / 2**2)
    assert pair.mcnemar == pytest.approx(2 / 2**10)


def test_the_best_is_compared_with_each_or_all_with_all_and_p_is_corrected_for_all(made_up: MadeUp) -> None:
    under = {"audio.made-up@white=0": half(40, 12)}
    runs = [made_up(ratio(t), half(40, n, n), n / 40, under=under) for t, n in (("1:2", 20), ("1:1", 36), ("2:1", 25))]
    summary = summarise(runs)
    assert [(p.a, p.b) for p in summary.pairs if p.condition == "clean"] == [(1, 0), (1, 2)]
    assert len(summary.pairs) == 4
    everything = summarise(runs, all_pairs=True)
    assert {(p.a, p.b) for p in everything.pairs} == {(1, 0), (1, 2), (0, 2)}
    least = min(everything.pairs, key=lambda p: p.permutation)
    assert least.holm == pytest.approx(6 * least.permutation)
    assert all(p.holm == 1 and p.permutation == 1 for p in summary.pairs if p.condition != "clean")


def test_every_condition_has_a_cell_and_what_does_not_concern_a_model_is_clean(made_up: MadeUp) -> None:
    under = {"audio.made-up@white=0": half(40, 10), "audio.made-up@white=10": half(40, 20), "no-audio": half(40, 5)}
    runs = [made_up(ratio("1:1"), half(40, 30), under=under), made_up(run_config("transformer-vo"), half(40, 24))]
    summary = summarise(runs)
    assert summary.conditions == ("clean", "audio.made-up@white=10", "audio.made-up@white=0", "no-audio")
    both, sight = summary.rows
    assert [both.conditions[c].mean for c in summary.conditions] == [0.75, 0.5, 0.25, 0.125]
    assert [sight.conditions[c].mean for c in summary.conditions] == [0.6] * 4
    assert noise_series(summary.conditions) == {
        "audio.made-up@white": [(10.0, "audio.made-up@white=10"), (0.0, "audio.made-up@white=0")]
    }
    assert conditions_of(runs) == summary.conditions


def test_shapley_and_loss_are_computed_from_the_kept_answers(made_up: MadeUp) -> None:
    under = {"no-audio": half(200, 120, 1), "no-visual": half(200, 160, 2)}
    (found,) = summarise([made_up(ratio("1:1"), half(200, 190), under=under)]).contributions
    assert found.shapley.audio == pytest.approx(((190 - 120) + (160 - 100)) / 400)
    assert found.shapley.visual == pytest.approx(((190 - 160) + (120 - 100)) / 400)
    assert found.shapley.share == pytest.approx(130 / 180)
    assert found.shapley.interval[0] < 130 / 180 < found.shapley.interval[1]
    assert (found.loss.audio, found.loss.visual) == (pytest.approx(70 / 200), pytest.approx(30 / 200))
    assert found.sides == {"Shapley": "sound", "loss without it": "sound"}
    assert found.verdict == "they agree: sound contributes more"


def test_measures_that_contradict_each_other_are_said_to(made_up: MadeUp) -> None:
    under = {"no-audio": half(200, 120, 1), "no-visual": half(200, 170, 2)}
    runs = [made_up(ratio("1:1"), half(200, 190), under=under), made_up(ratio("1:4"), [True] * 200)]
    runs.append(made_up(ratio("4:1"), half(200, 100)))
    (clean, *_) = summarise(runs).contributions
    assert clean.optimum.best == "1:4"
    assert clean.optimum.interval == ("1:4", "1:4")
    assert clean.setting == "transformer 1:1"
    assert clean.verdict.startswith("they disagree: best ratio says sight, Shapley says sound")


def test_under_noise_the_other_modality_is_taken_away_from_noise(made_up: MadeUp) -> None:
    noise = "audio.made-up@white=0"
    under = {"no-audio": half(200, 120, 1), "no-visual": half(200, 160, 2), noise: half(200, 130)}
    under |= {f"{noise} + no-visual": half(200, 100, 3)}
    found = {c.condition: c for c in summarise([made_up(ratio("1:1"), half(200, 190), under=under)]).contributions}
    assert set(found) == {"clean", noise}
    assert found[noise].shapley.audio == pytest.approx(((130 - 120) + (100 - 100)) / 400)
    assert found[noise].shapley.visual == pytest.approx(((130 - 100) + (120 - 100)) / 400)
    assert found[noise].loss.visual == pytest.approx(30 / 200)


def test_convergence_is_read_off_the_curves(made_up: MadeUp) -> None:
    curves = [[0.2, 0.5, *[0.9] * 8], [0.9] * 10, list(np.linspace(0.1, 0.9, 10))]
    runs = [made_up(run_config("transformer-ao", seed=s), half(20, 10), curve=c) for s, c in enumerate(curves)]
    found = summarise(runs).rows[0].convergence["model"]
    assert found.epochs == (4, 1, None)
    assert found.best_epochs == (3, 1, 10)


def test_the_permutation_counts_every_seed_of_a_recording(made_up: MadeUp) -> None:
    """Seed 0 is the same for both; seed 1 has five more clips right and one fewer."""
    right = [True] * 10 + [False] * 10
    better = [True] * 15 + [False] * 5
    better[0] = False
    runs = [made_up(ratio("1:1", 0), right, 0.9), made_up(ratio("1:1", 1), better, 0.9)]
    runs += [made_up(ratio("1:2", s), right) for s in (0, 1)]
    (pair,) = summarise(runs).pairs
    assert pair.permutation == pytest.approx(2 * (1 + 6) / 2**6)
    assert pair.difference == pytest.approx(4 / 40)
