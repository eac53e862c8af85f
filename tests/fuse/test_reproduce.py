import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from bmla.cli import main
from bmla.commands.reproduce import NAMES
from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.data import Features
from bmla.fuse.figures import drawing, render
from bmla.fuse.models.table import MODELS
from bmla.fuse.reproduce.draw import draw_outcome
from bmla.fuse.reproduce.experiments import EXPERIMENTS
from bmla.fuse.reproduce.paper import TEXT
from bmla.fuse.reproduce.protocol import conditions_of, masks, outcome, plan
from bmla.fuse.reproduce.proxy import BANDS, masked_features, with_proxies
from bmla.fuse.reproduce.show import tables_of
from bmla.fuse.run import Run
from bmla.store.errors import UsageError

STREAMS = {"audio": "audio.made-up", "visual": "visual.made-up"}
SMALL = ["--layers", "1", "--width", "16", "--heads", "2", "--epochs", "2", "--finetune-epochs", "1", "--seed", "0",
         "--gru-units", "4", "--threads", "1", "--workers", "1", "--quiet"]  # fmt: skip


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["--debug", "reproduce", *map(str, words)])


@pytest.fixture
def planned() -> Callable[..., list]:
    def make(name: str) -> list:
        made = plan(EXPERIMENTS[name], STREAMS, list(STREAMS.values()), seeds=(0,))
        return [(arm, configs) for arm, configs in made.arms]

    return make


def test_every_experiment_has_its_command_and_the_papers_words() -> None:
    assert set(NAMES) == set(EXPERIMENTS) == set(TEXT)


def test_the_papers_numbers_are_those_of_its_tables() -> None:
    """A second reading of the paper: the accuracies of each table, added up."""
    sums = {
        "table1": {"lrw": 968.41, "lrw1000": 719.23},
        "table2": {"iemocap": 661.82},
        "table3": {"lrw1000": 337.7 + 83.5 + 82.7, "iemocap": 269.3 + 65.8 + 64.9},
    }
    for name, expected in sums.items():
        for dataset, total in expected.items():
            printed = [p.accuracy for arm in EXPERIMENTS[name].arms for p in arm.published if p.dataset == dataset]
            assert sum(printed) == pytest.approx(total), (name, dataset)


def test_the_papers_f1_scores_are_those_of_table_1() -> None:
    for dataset, total in (("lrw", 673.11), ("lrw1000", 548.44)):
        printed = [p.macro_f1 for arm in EXPERIMENTS["table1"].arms for p in arm.published if p.dataset == dataset]
        assert sum(f for f in printed if f is not None) == pytest.approx(total)


def test_the_ladder_is_added_part_by_part_and_left_out_part_by_part(planned: Callable[..., list]) -> None:
    removed = [configs[0].removed for _, configs in planned("table3")]
    assert removed == [("brff", "adf", "clw"), ("adf", "clw"), ("clw",), (), ("brff",), ("adf",), ("clw",)]


def test_what_is_not_there_is_passed_over_and_named() -> None:
    made = plan(EXPERIMENTS["table2"], STREAMS, list(STREAMS.values()), seeds=(0, 1))
    assert [arm.label for arm, _ in made.arms] == [
        "BalanceMLA (audio-only)", "BalanceMLA (visual-only)", "BalanceMLA (fusion)",
    ]  # fmt: skip
    reasons = dict(made.missing)
    assert set(reasons) == {
        f"{e}{m}" for e in ("AV-HuBERT", "AVBERT", "MAViL") for m in (" (audio-only)", " (visual-only)", "")
    }
    assert all("no stream" in r for r in reasons.values())
    with pytest.raises(UsageError, match="no arm of this experiment can be run"):
        plan(EXPERIMENTS["fig1a"], STREAMS, [], seeds=(0,))


def test_every_arm_is_of_a_model_that_there_is() -> None:
    assert {arm.model for e in EXPERIMENTS.values() for arm in e.arms} <= set(MODELS)


def test_every_stream_that_an_arm_asks_for_can_be_extracted() -> None:
    from bmla.extract.encoders.table import TABLE

    arms = [arm for e in EXPERIMENTS.values() for arm in e.arms]
    assert {name for arm in arms for asked in (arm.streams, arm.preferred) for name in asked.values()} <= set(TABLE)


def test_the_bgru_hears_the_cube_where_there_is_one() -> None:
    for there, stream in ((["audio.logspec-cube"], "audio.logspec-cube"), ([], "audio.made-up")):
        made = plan(EXPERIMENTS["table1"], STREAMS, [*STREAMS.values(), *there], seeds=(0,))
        arms = {arm.label: configs for arm, configs in made.arms}
        assert arms["2-layer BGRU"][0].audio == stream
        assert ("spatio-temporal convolution" in arms) == bool(there)


def test_of_several_ratios_the_best_on_dev_stands_for_the_arm(planned: Callable[..., list], made_up: Callable) -> None:
    (arm, configs) = next((a, c) for a, c in planned("table1") if len(a.ratios) > 1)
    made = plan(EXPERIMENTS["table1"], STREAMS, list(STREAMS.values()), seeds=(0,))
    devs = {"1:1": 0.5, "1:2": 0.9, "2:1": 0.7}
    runs = [made_up(c, [c.ratio == "2:1"] * 10, devs[c.ratio]) for c in configs]
    found = outcome(made, runs)
    assert [(a.label, found.row(i).ratio) for a, i in found.rows] == [(arm.label, "1:2")]


def test_the_papers_numbers_are_marked_where_the_data_are_others(made_up: Callable) -> None:
    made = plan(EXPERIMENTS["table1"], STREAMS, list(STREAMS.values()), seeds=(0,))
    found = outcome(made, [made_up(c, [True] * 9 + [False]) for c in made.configs])
    on_lrw, elsewhere = (tables_of("table1", found, d)[0].lines for d in ("lrw", "grid"))
    fused = next(line for line in on_lrw if line[0] == "BalanceMLA (fusion)")
    assert fused[3:4] + fused[7:] == ("90.0", "98.5", "98.2", "Table 1")
    fused = next(line for line in elsewhere if line[0] == "BalanceMLA (fusion)")
    assert fused[7:] == ("98.5, 86.42", "98.2, 85.09", "Table 1 (lrw, lrw1000: other data set)")


def test_other_experiments_conditions_are_not_looked_at(made_up: Callable) -> None:
    made = plan(EXPERIMENTS["fig1a"], STREAMS, list(STREAMS.values()), seeds=(0,))
    under = {"audio.made-up@white=0": [False] * 10}
    assert outcome(made, [made_up(c, [True] * 10, under=under) for c in made.configs]).summary.conditions == ("clean",)


def test_exact_masks_are_used_where_the_store_has_them() -> None:
    there = [
        "audio.logspec@mask=0.8",
        "audio.logspec@mask=0.2",
        "audio.logspec@white=0",
        "audio.x@mask=0.1",
        "mouth.dct",
    ]
    assert masks("audio.logspec", there) == ["audio.logspec@mask=0.2", "audio.logspec@mask=0.8"]
    assert masks("audio.hubert", there) == []
    assert [str(c) for c in conditions_of(EXPERIMENTS["fig1c"], [])] == ["no-audio", "no-visual"]


def test_a_proxy_masks_the_share_of_features_that_it_says(features: Features) -> None:
    changed, names = with_proxies(features)
    assert names == [f"audio.arrays@proxy-mask={f}" for f in (0.2, 0.4, 0.6, 0.8)]
    clips = torch.arange(5)
    mean, _ = features.stream("audio").statistics(np.flatnonzero(features.split == "train"))
    for name in names:
        before, after = features.stream("audio").batch(clips), changed.variant(name).batch(clips)
        assert torch.equal(before.mask, after.mask)
        moved = (before.values != after.values).any(1)
        factor = float(name.partition("=")[2])
        assert (moved.sum(1) == round(factor * 12)).all()
        assert torch.allclose(after.values[3, :, moved[3]], mean[moved[3]].expand(after.values.shape[1], -1))
    assert len({changed.variant_digests[n] for n in names}) == 4
    picked = changed.variant(names[1]).select(torch.tensor([4, 2]))
    assert torch.equal(
        picked.batch(torch.tensor([1])).values, changed.variant(names[1]).batch(torch.tensor([2])).values
    )


def test_of_a_cube_a_proxy_masks_the_same_bands_of_every_derivative() -> None:
    rng = np.random.default_rng(0)
    cubes = [rng.normal(size=(4, 3, 10)).astype(np.float32) for _ in range(12)]
    split = ["train"] * 6 + ["dev"] * 3 + ["test"] * 3
    given = features_from_arrays(np.arange(12) % 2, split, audio=cubes)
    changed, names = with_proxies(given)
    clips = torch.arange(12)
    for name in names:
        moved = (given.stream("audio").batch(clips).values != changed.variant(name).batch(clips).values).any(
            1
        )  # (n, 3, 10)
        assert (moved.sum(-1) == round(float(name.partition("=")[2]) * 10)).all()
        assert torch.equal(moved[:, 0], moved[:, 1])
        assert torch.equal(moved[:, 0], moved[:, 2])


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.55, 1.0])
def test_masked_features_lie_in_bands_that_the_clip_alone_places(factor: float) -> None:
    found = [masked_features(factor, 40, f"clip{i}") for i in range(20)]
    assert all(m.sum() == round(factor * 40) for m in found)
    assert all((np.diff(m.astype(int)) == 1).sum() + int(m[0]) <= BANDS for m in found)
    assert np.array_equal(found[3], masked_features(factor, 40, "clip3"))
    assert len({m.tobytes() for m in found}) > 10 or factor in (0.0, 1.0)


@pytest.mark.parametrize("name", ["fig1a", "table3", "fig3"])
def test_every_kind_of_figure_is_drawn(name: str, made_up: Callable[..., Run]) -> None:
    made = plan(EXPERIMENTS[name], STREAMS, list(STREAMS.values()), seeds=(0, 1))
    under = {f"audio.made-up@mask={f}": [True] * 6 + [False] * 4 for f in (0.2, 0.8)} if name == "fig3" else {}
    curves = [[0.2, 0.4, *[0.8] * 6], [0.5] * 3]
    runs = [made_up(c, [True] * 8 + [False] * 2, curve=curves[c.seed], under=under) for c in made.configs]
    found = outcome(made, runs, conditions_of(made.experiment, list(under)), "exact" if under else "")
    with drawing():
        figure = draw_outcome(found, "lrw1000", "lip reading")
        assert len(*render(figure, "png")) > 5000
    (axes,) = figure.axes
    of_what = {
        "fig1a": "lrw1000 (lip reading; the paper's: emotion)",
        "table3": "lrw1000",
        "fig3": "lrw1000; exact protocol",
    }
    assert axes.get_title() == f"{made.experiment.title}\n{of_what[name]}"
    assert all(len(line) == len(table.heads) for table in tables_of(name, found, "lrw1000") for line in table.lines)


def test_one_command_runs_an_experiment_and_again_reuses_it(tiny_store: Path, tmp_path: Path) -> None:
    words = ["fig1c", "--store", tiny_store, "--out", tmp_path, *SMALL]
    first = call(*words)
    assert first.exit_code == 0, first.output
    for text in ("Transformer 2:1", "Convergence epochs", "share of sound", "figure: "):
        assert text in first.stdout
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("transformer*/config.json")}
    assert len(stamps) == 3
    assert call(*words).stdout == first.stdout
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert (tmp_path / "figures" / "fig1c.svg").read_bytes().startswith(b"<?xml")


def test_without_masked_sound_figure_3_says_that_it_is_a_proxy(tiny_store: Path, tmp_path: Path) -> None:
    words = ["fig3", "--store", tiny_store, "--out", tmp_path, *SMALL]
    shown = call(*words).stdout
    assert "Accuracy against mask factor (proxy)" in shown
    assert "PROXY, not the paper's protocol" in shown
    document = json.loads(call(*words, "--json").stdout)
    assert document["protocol"] == "proxy"
    cells = document["arms"]["Transformer (fusion)"]["conditions"]
    assert list(cells) == ["clean", *(f"audio.logspec@proxy-mask={f}" for f in (0.2, 0.4, 0.6, 0.8))]
    svg = (tmp_path / "figures" / "fig3.svg").read_text()
    assert re.search(r"<svg", svg)


def test_another_task_is_said_and_an_unknown_name_refused(tiny_store: Path, tmp_path: Path) -> None:
    shown = call("fig1b", "--store", tiny_store, "--out", tmp_path, *SMALL).stdout
    assert "this store is lip reading: another task" in shown
    assert call("fig9").exit_code != 0
