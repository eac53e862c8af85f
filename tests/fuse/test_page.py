import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bmla.fuse.config import RunConfig
from bmla.fuse.facts import facts_of_runs
from bmla.fuse.page import Live, content, page_numbers, render_page, trainings
from bmla.fuse.page.content import curves_of, short
from bmla.fuse.page.render import asset, confused_pairs, digest, inside_script
from bmla.fuse.run import load_run
from bmla.fuse.standing import Standing
from bmla.fuse.summary import Summary, summarise
from bmla.fuse.unfinished import FOLDER, NAME, Unfinished

Tiny = Callable[..., RunConfig]
Fabricate = Callable[..., Path]
NOISES = ("audio.made-up@white=10", "audio.made-up@white=0", "no-visual")
EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def summary(tiny: Tiny, fabricate: Fabricate, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    out = tmp_path_factory.mktemp("runs")
    configs = [tiny(model, ratio=ratio, seed=seed) for model, ratio in (
        ("transformer-ao", "1:1"), ("balancemla", "1:2"), ("balancemla", "2:1")
    ) for seed in (0, 1)]  # fmt: skip
    return summarise([load_run(fabricate(out, c, (EVIL, "b", "c"), conditions=NOISES)) for c in configs])


def numbers_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', html, re.S)
    assert found is not None
    return dict(json.loads(found[1]))


def page_of(summary: Summary) -> str:
    return render_page(summary, facts_of_runs(summary), {"made": "up"})


def test_the_numbers_are_those_of_the_summary(summary: Summary) -> None:
    found = page_numbers(summary)
    assert [s["label"] for s in found["settings"]] == [row.label for row in summary.rows]
    for setting, row in zip(found["settings"], summary.rows, strict=True):
        for cell, name in zip(setting["cells"], found["conditions"], strict=True):
            if name not in row.conditions:
                assert cell is None
                continue
            expected = row.conditions[name]
            assert cell[0] == pytest.approx(expected.mean, rel=1e-3)
            assert cell[1:3] == pytest.approx(expected.interval, rel=1e-3)
            assert cell[3] == pytest.approx(expected.accuracies, rel=1e-3)
    of_noise = {p[0]: found["conditions"][p[1]] for p in found["noises"][0]["points"]}
    assert of_noise == {10.0: NOISES[0], 0.0: NOISES[1]}
    assert found["best"] == summary.best
    run = summary.runs[0][0]
    assert found["runs"][0]["curves"]["dev_accuracy"] == pytest.approx(
        [epoch["dev_accuracy"] for epoch in run.history], rel=1e-3
    )


def test_alpha_is_the_mean_over_the_runs_of_a_setting(summary: Summary) -> None:
    found = page_numbers(summary)
    i = next(i for i, row in enumerate(summary.rows) if row.model == "balancemla")
    for condition, alpha in zip(found["conditions"], found["settings"][i]["alpha"], strict=True):
        if condition == "no-visual":
            assert alpha is None
        else:
            columns = [run.scores_under(condition)["alpha_per_class"] for run in summary.runs[i]]
            assert alpha == pytest.approx([sum(c) / 2 for c in zip(*columns, strict=True)], rel=1e-3)
    assert found["settings"][0]["alpha"] == [None] * len(found["conditions"])
    assert "alpha_noise" in found["figures"]


def test_of_very_many_weights_those_under_noise_are_left_out_first(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, weighted = 3, [s["alpha"] for s in page_numbers(summary)["settings"][1:]]
    monkeypatch.setattr(content, "MOST_WEIGHTS", len(weighted) * classes + classes)
    fewer = [s["alpha"] for s in page_numbers(summary)["settings"][1:]]
    assert [len([a for a in s if a]) for s in fewer] == [2, 1]
    assert [s[0] for s in fewer] == [s[0] for s in weighted]


def test_curves_of_the_branches_come_with_the_runs_that_started_from_them(
    tiny: Tiny, fabricate: Fabricate, tmp_path: Path
) -> None:
    audio = fabricate(tmp_path, tiny("balancemla-ao", seed=5))
    config = tiny("balancemla", pretrain_epochs=12)
    run = load_run(fabricate(tmp_path, config, branches={"audio": audio.name, "visual": "gone"}))
    (found,) = page_numbers(summarise([run]))["runs"]
    assert found["first"] == 13
    assert found["curves"]["before_audio"] == pytest.approx(
        [e["dev_accuracy"] for e in load_run(audio).history], rel=1e-3
    )
    assert "before_visual" not in found["curves"]


def test_confusions_are_counted_over_the_runs_of_a_setting(summary: Summary) -> None:
    for matrix in page_numbers(summary)["confusions"]:
        name = summary.conditions[matrix["condition"]]
        expected: dict[tuple[int, int], int] = {}
        for run in summary.runs[matrix["setting"]]:
            for truth, line in enumerate(run.scores_under(name)["confusion"]):
                for answer, count in enumerate(line):
                    expected[truth, answer] = expected.get((truth, answer), 0) + count
        cells = matrix["cells"]
        found = {(cells[i], cells[i + 1]): cells[i + 2] for i in range(0, len(cells), 3)}
        assert found == {where: count for where, count in expected.items() if count}


def test_the_pairs_confused_most_are_of_all_runs_of_the_best_setting(summary: Summary) -> None:
    runs = summary.runs[summary.best]
    pairs = confused_pairs(runs)
    assert len(runs) == 2
    assert pairs
    for pair in pairs:
        i, j = runs[0].classes.index(pair["truth"]), runs[0].classes.index(pair["answer"])
        assert pair["count"] == sum(run.scores["test"]["confusion"][i][j] for run in runs)
        assert pair["share"] == pair["count"] / sum(sum(run.scores["test"]["confusion"][i]) for run in runs)
    assert f"Test clips of {summary.rows[summary.best].label}, over all seeds and folds" in page_of(summary)


def test_confusions_beyond_the_room_are_left_out_the_best_setting_last(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmla.fuse.page.content.MOST_CONFUSIONS", 9)
    assert [(m["setting"], m["condition"]) for m in page_numbers(summary)["confusions"]] == [(summary.best, 0)]


def test_curves_without_numbers_and_idle_scales_are_left_out() -> None:
    history = [
        {"dev_accuracy": 0.25, "rho": None, "scale_audio": 1.0, "scale_visual": 0.5, "grad_norm_x": float("nan")}
    ]
    assert curves_of(history) == {"dev_accuracy": [0.25], "scale_visual": [0.5]}
    assert short(True) is None
    assert short("7") is None
    assert short(0.123456) == 0.1235


def test_long_histories_are_thinned_evenly(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmla.fuse.page.content.MOST_EPOCHS", 5)
    run = page_numbers(summary)["runs"][0]
    assert (run["step"], run["epochs"], len(run["curves"]["dev_accuracy"])) == (3, 12, 4)


def test_the_page_may_run_its_own_script_and_no_other(summary: Summary) -> None:
    html = page_of(summary)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    styles = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert len(scripts) == len(styles) == 1
    assert f"script-src '{digest(scripts[0])}'" in policy[1]
    assert f"style-src '{digest(styles[0])}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "connect-src" not in policy[1]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|//cdn|@import|url\(|innerHTML|eval\(", html)


def test_text_of_the_data_stays_text(summary: Summary) -> None:
    html = page_of(summary)
    assert EVIL not in html
    assert "alert(1)</script>" not in html
    assert numbers_of(html)["classes"][0] == EVIL
    assert inside_script({"a": "<!--&\u2028"}) == '{"a":"\\u003c!--\\u0026\\u2028"}'


def test_every_figure_with_numbers_has_its_place_and_its_builder(summary: Summary) -> None:
    html = page_of(summary)
    names = re.findall(r'data-figure="([a-z_]+)"', html)
    assert sorted(names) == sorted(page_numbers(summary)["figures"])
    for name in names:
        assert re.search(rf"^  {name}\(view", asset("figures.js"), re.M), name


def test_a_page_without_a_finished_run_says_so() -> None:
    html = render_page(None, None, {}, live=Live("tag", 0.0, 0))
    assert "<h1>No finished run yet</h1>" in html
    assert 'data-live="tag"' in html
    assert "connect-src 'self'" in html


def test_pairs_beyond_what_a_page_bears_are_counted(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmla.fuse.page.render.LISTED_PAIRS", 1)
    assert f"The first 1 of {len(summary.pairs)};" in page_of(summary)


# ---- unfinished runs


def keep_state(folder: Path, settings: RunConfig, epochs: int, **changes: Any) -> Path:
    history = [{"epoch": i + 1, "dev_accuracy": 0.1 * i} for i in range(epochs)]
    document = {"config": settings.to_dict(), **Standing(history=history).document(), **changes}
    Unfinished(folder).write({}, document)
    return folder / NAME


def test_epochs_of_unfinished_runs_are_those_of_their_states(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("balancemla", ratio="1:2", seed=3)
    keep_state(tmp_path / FOLDER / "one", config, 4)
    (found,) = trainings(tmp_path)
    assert (found.name, found.config, len(found.history)) == ("one", config, 4)
    assert found.dev_accuracy == pytest.approx(0.3)
    numbers = page_numbers(None, [found])
    assert numbers["figures"] == ["curves"]
    assert numbers["runs"][0]["curves"] == {"dev_accuracy": [0.0, 0.1, 0.2, 0.3]}
    html = render_page(None, None, {}, [found], Live("tag", 0.0, 0))
    assert f"<td>4 of {config.total_epochs}</td>" in html
    assert "balancemla 1:2 seed 3" in html


@pytest.mark.parametrize(
    "broken", [{"config": {"model": 7}}, {"config": None}, {"history": 3}, {"history": []}, {"history": [1]}]
)
def test_a_state_that_cant_be_believed_counts_as_none(tiny: Tiny, tmp_path: Path, broken: dict[str, Any]) -> None:
    keep_state(tmp_path / FOLDER / "one", tiny("transformer"), 2, **broken)
    assert trainings(tmp_path) == []


def test_a_damaged_state_and_one_of_a_finished_run_count_as_none(tiny: Tiny, tmp_path: Path) -> None:
    keep_state(tmp_path / FOLDER / "half", tiny("transformer"), 2).write_bytes(b"\x00" * 20)
    keep_state(tmp_path / FOLDER / "done", tiny("transformer"), 2)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "config.json").write_text("{}")
    assert trainings(tmp_path) == []


def test_a_training_keeps_its_configuration_with_its_state(tiny: Tiny, features: Any, tmp_path: Path) -> None:
    from bmla.fuse.training import train

    config = replace(tiny("transformer-ao", epochs=2), finetune_epochs=0)
    train(config, features, unfinished=Unfinished(tmp_path / FOLDER / "run", every_s=0))
    (found,) = trainings(tmp_path)
    assert found.config == config
    assert len(found.history) == 2
