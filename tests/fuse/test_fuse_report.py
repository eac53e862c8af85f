import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.data import Features
from bmla.fuse.facts import facts_of_features
from bmla.fuse.figures import draw_alpha, draw_confusion, drawing, render
from bmla.fuse.report import results, write_report
from bmla.fuse.summary import Summary, summarise
from bmla.fuse.sweep import grid, run_sweep
from bmla.fuse.tables import percent, table_columns

SMALL = dict(layers=1, width=16, heads=2, epochs=2, finetune_epochs=1, lr=5e-3)
WORST = ('<script>alert("1")</script>', "$\\nosuch$ & {{ 7 * 7 }}", "美国", "x" * 200)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def odd(make_features: Callable[..., Features]) -> Features:
    """Classes with the worst names that there are, which nothing tells apart: all of them are confused."""
    return replace(make_features(audio=0.0, visual=0.0, clips=120), classes=WORST, dataset="<b>data</b>")


@pytest.fixture(scope="module")
def summary(odd: Features, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    out = tmp_path_factory.mktemp("runs")
    configs = grid(["transformer-ao", "transformer", "balancemla"], ["1:1", "1:2"], [0, 1], **SMALL)
    return summarise(run_sweep(configs, odd, out))


@pytest.fixture(scope="module")
def page(summary: Summary, odd: Features, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(
        tmp_path_factory.mktemp("out"), summary, facts_of_features(odd), {"command": "bmla fuse --store '<i>x</i>'"}
    )


def test_the_answer_stands_first(page: Path, summary: Summary) -> None:
    html = page.read_text("utf-8")
    best = summary.rows[summary.best]
    head = re.search(r"<h1>(.*?)</h1>", html, re.S)
    assert head is not None
    assert head[1].startswith(f"{best.label} gets {percent(best.mean)}")
    assert f"± {100 * best.clean.std:.1f} %" in head[1]
    assert html.index("<h1>") < html.index("<table>") < html.index('<h2 id="learning">')
    assert html.count("<h1>") == 1


def test_names_stay_text(page: Path) -> None:
    html = page.read_text("utf-8")
    assert html.count("<script") == 2  # the numbers, and the page's own
    assert "&lt;b&gt;data&lt;/b&gt;" in html
    assert "<i>x" not in html
    assert (
        '<th scope="row">&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;</th>' in html
    )  # among the pairs confused most
    assert "{{ 7 * 7 }}" in html


def test_the_page_needs_nothing_else(page: Path) -> None:
    html = page.read_text("utf-8")
    assert not re.search(r"//cdn|@import|url\(|src=", html)
    assert set(re.findall(r"https?://[^\s\"']+", html)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert len(html) < 1_000_000


def test_pictures_are_sound_svg_without_scripts_and_lie_beside_as_png(page: Path) -> None:
    files = sorted((page.parent / "figures").iterdir())
    names = ["accuracy", "alpha", "confusion", "curves", "ratios"]
    assert [p.name for p in files] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    for file in files:
        if file.suffix == ".png":
            assert file.read_bytes().startswith(PNG)
        else:
            assert b"<script" not in file.read_bytes()
            ElementTree.fromstring(file.read_bytes())  # noqa: S314 - our own bytes


def test_the_table_has_every_setting_and_the_provenance_every_digest(
    page: Path, summary: Summary, odd: Features
) -> None:
    html = page.read_text("utf-8")
    for row in summary.rows:
        assert f'<th scope="row">{row.label}</th>' in html
    for text in (odd.digest, odd.stream("audio").digest, "scikit-learn", summary.best_run.name):
        assert text in html


def test_the_same_sweep_gives_the_same_bytes(page: Path, summary: Summary, odd: Features, tmp_path: Path) -> None:
    again = write_report(tmp_path, summary, facts_of_features(odd), {"command": "bmla fuse --store '<i>x</i>'"})
    assert again.read_bytes() == page.read_bytes()
    for file in (page.parent / "figures").iterdir():
        assert (tmp_path / "figures" / file.name).read_bytes() == file.read_bytes()


def test_results_are_plain_json_and_say_how_the_best_was_chosen(page: Path, summary: Summary, odd: Features) -> None:
    stored = json.loads((page.parent / "results.json").read_text("utf-8"))
    assert stored == json.loads(json.dumps(results(summary, facts_of_features(odd)), allow_nan=False))
    assert stored["best"]["label"] == summary.rows[summary.best].label
    assert stored["best"]["chosen_by"] == "mean accuracy on dev"
    assert len(stored["rows"]) == 5
    assert len(stored["runs"]) == 10
    assert set(stored["ratio_shares"]) == {"transformer", "balancemla"}


def test_a_sweep_of_one_run_has_a_report_too(tmp_path: Path, odd: Features) -> None:
    found = summarise(run_sweep(grid(["transformer-ao"], ["1:1"], [0], **SMALL), odd, tmp_path))
    html = write_report(tmp_path, found, facts_of_features(odd), {}).read_text("utf-8")
    assert "over 1 seed and" in html
    assert 'data-figure="ratios"' not in html
    assert 'data-figure="alpha"' not in html
    assert "±" not in re.search(r"<h1>.*?</h1>", html, re.S)[0]
    assert [head for head, _ in table_columns(found.rows)][-2:] == ["dev acc %", "epoch"]
    assert "alpha" not in [head for head, _ in table_columns(found.rows)]


def test_notes_about_the_data_are_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    audio = [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(40)]
    features = features_from_arrays([i % 2 for i in range(40)], ["train"] * 30 + ["test"] * 10, audio=audio)
    found = summarise(run_sweep(grid(["transformer-ao"], ["1:1"], [0], **SMALL), features, tmp_path))
    assert "no dev split: 3 of the training clips" in write_report(
        tmp_path, found, facts_of_features(features), {}
    ).read_text("utf-8")


@pytest.mark.parametrize("classes", [2, 10, 51, 500])
def test_confusions_and_weights_can_be_drawn_for_any_number_of_classes(classes: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"WORD{c}" for c in range(classes)]
    confusion = rng.integers(0, 3, size=(classes, classes))
    confusion[0] = 0  # a class without a test clip
    with drawing():
        (svg,) = render(draw_confusion(confusion, names), "svg")
        (png,) = render(draw_confusion(confusion, names), "png")
        assert render(draw_confusion(confusion, names), "svg", "png") == (svg, png)
        alpha = draw_alpha([None, *rng.random(classes - 1).tolist()], names)
        assert alpha is not None
        assert len(*render(alpha, "png")) > 1000
    assert len(svg) < 1_500_000
    assert draw_alpha([None] * classes, names) is None


@pytest.mark.parametrize(
    "names",
    [
        ("neutral", "happiness", "sadness", "anger", "excitement", "frustration"),
        ("W" * 200, "美" * 200, "short"),
        tuple("W" * 30 + str(c) for c in range(60)),
    ],
)
def test_a_confusion_matrix_has_room_for_the_names_of_its_classes(names: tuple[str, ...]) -> None:
    with drawing():
        figure = draw_confusion(np.eye(len(names)), names)
        render(figure, "svg")
        drawn = figure.get_tightbbox()
        named = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(named))
    width, height = figure.get_size_inches()
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height
