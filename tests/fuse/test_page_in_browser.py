"""The page in headless Chromium: what a reader sees, does and saves. Without Chromium or Playwright these are skipped."""

import csv
import io
import re
import shutil
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bmla.fuse.config import RunConfig
from bmla.fuse.facts import facts_of_runs
from bmla.fuse.live import Watched
from bmla.fuse.page import render_page
from bmla.fuse.run import load_run
from bmla.fuse.server import PageServer
from bmla.fuse.summary import summarise

Tiny = Callable[..., RunConfig]
Fabricate = Callable[..., Path]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
EVIL = "<script>alert(1)</script>"
FORMULA = "=1+2"
CLASSES = (EVIL, FORMULA, "c", "d")
NOISES = ("audio.made-up@white=10", "audio.made-up@white=0", "visual.made-up@blur=4", "no-audio", "no-visual")
PHONE = {"width": 320, "height": 700}
POLL_MS = 3000
FIVE_MB = 5_000_000
FOCUSED = """(() => {
  const node = document.activeElement;
  return `${node.localName} ${node.id} ${node.closest("figure")?.id ?? ""} ${node.className}`;
})()"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium of this machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'bmla[test]'")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium, such as Debian's package chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tiny: Tiny, fabricate: Fabricate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every figure."""
    out = tmp_path_factory.mktemp("page")
    settings = [("transformer-ao", "1:1"), *product(("transformer", "balancemla"), ("1:2", "2:1"))]
    for (model, ratio), seed in product(settings, (0, 1)):
        fabricate(out, tiny(model, ratio=ratio, seed=seed), CLASSES, conditions=NOISES)
    return write_page(out)


def write_page(folder: Path) -> Path:
    runs = [load_run(path.parent) for path in sorted(folder.glob("*/config.json"))]
    summary = summarise(runs)
    path = folder / "report.html"
    path.write_text(render_page(summary, facts_of_runs(summary), {"made of": "fabricated runs"}), "utf-8")
    return path


@contextmanager
def opened(chromium: Any, place: str | Path, width: int = 1200, clock: bool = False, **options: Any) -> Iterator[Any]:
    """A page that must not complain, ask for anything, or open a dialog."""
    context = chromium.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    if isinstance(place, Path):
        page.on("request", lambda r: complaints.append(f"request: {r.url}") if r.url.startswith("http") else None)
    if clock:
        page.clock.install()
    page.goto(place.as_uri() if isinstance(place, Path) else place)
    try:
        yield page
        assert complaints == []
    finally:
        context.close()


def figures(page: Any) -> list[str]:
    return [name for name in page.eval_on_selector_all("figure", "all => all.map((f) => f.id)") if name]


def visible_rows(page: Any, region: str) -> list[str]:
    cells = page.get_by_role("region", name=region, exact=True).locator("tbody tr:not([hidden]) th")
    return [text.strip() for text in cells.all_inner_texts()]


def test_every_figure_is_drawn_without_a_complaint(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:
        expected = {"accuracy", "ratios", "noise", "contributions", "curves", "discrepancy", "gradients", "alpha",
                    "alpha_noise", "confusion", "times"}  # fmt: skip
        assert {name.removeprefix("figure-") for name in figures(page)} == expected
        for name in figures(page):
            area = page.locator(f"#{name} .area")
            assert area.locator("svg").count() == 1
            assert area.locator("svg :is(path, circle, rect, polygon)").count() > 3, name
            assert page.evaluate("(s) => !/NaN|undefined|Infinity/.test(s)", area.inner_html()), name


def test_what_is_drawn_are_the_numbers(chromium: Any, report: Path) -> None:
    """The mean of each setting stands where its axis says."""
    with opened(chromium, report) as page:
        ticks = page.eval_on_selector_all(
            "#figure-accuracy .area svg text.tick",
            "all => all.map((t) => [Number(t.textContent), Number(t.getAttribute('x'))])",
        )
        (v0, x0), (v1, x1) = ticks[0], ticks[-1]
        means = page.evaluate(
            "JSON.parse(document.getElementById('numbers').textContent).settings.map((s) => s.cells[0][0])"
        )
        drawn = page.eval_on_selector_all(
            "#figure-accuracy .area svg circle[r='4']", "all => all.map((c) => Number(c.getAttribute('cx')))"
        )
        assert len(means) == len(drawn) == 5
        for mean, x in zip(means, drawn, strict=True):
            assert x == pytest.approx(x0 + (100 * mean - v0) / (v1 - v0) * (x1 - x0), abs=0.3)


def test_a_ring_stands_where_a_curve_converged(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:
        found = page.evaluate("JSON.parse(document.getElementById('numbers').textContent).settings")
        sight = [s["convergence"]["visual"][0] + first - 1 for s in found if "visual" in s["convergence"]
                 for first in [1 if s["model"] == "transformer" else 7]]  # fmt: skip
        assert len(sight) == 4
        panel = page.locator("#figure-curves .area svg > g").nth(2)
        ticks = panel.locator("text.tick.middle").evaluate_all(
            "all => all.map((t) => [Number(t.textContent), Number(t.getAttribute('x'))])"
        )
        (v0, x0), (v1, x1) = ticks[0], ticks[-1]
        rings = panel.locator(".ring").evaluate_all("all => all.map((r) => Number(r.getAttribute('cx')))")
        assert rings == pytest.approx([x0 + (epoch - v0) / (v1 - v0) * (x1 - x0) for epoch in sight], abs=0.3)


def test_filters_hold_for_tables_and_figures(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:
        assert len(visible_rows(page, "All settings")) == 5
        page.get_by_role("checkbox", name="balancemla").uncheck()
        assert visible_rows(page, "All settings") == ["transformer-ao", "transformer 1:2", "transformer 2:1"]
        assert page.locator("#count").inner_text() == "3 of 5 settings shown"
        assert page.locator("#figure-accuracy .area svg circle[r='4']").count() == 3
        page.get_by_role("checkbox", name="1:2").uncheck()
        assert visible_rows(page, "All settings") == ["transformer-ao", "transformer 2:1"]
        assert all("1:2" not in row and "balancemla" not in row for row in visible_rows(page, "Runs"))
        page.get_by_role("checkbox", name="transformer", exact=True).uncheck()
        assert "Nothing to show" in page.locator("#figure-alpha .area").inner_text()
        page.get_by_role("button", name="Show everything").click()
        assert len(visible_rows(page, "All settings")) == 5
        assert page.get_by_role("checkbox", name="balancemla").is_checked()


def test_of_some_seeds_there_is_a_mean_and_no_interval(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:
        page.get_by_role("group", name="Seed").get_by_role("checkbox", name="1").uncheck()
        page.locator("#figure-accuracy summary").click()
        lines = [row.split("\t") for row in page.locator("#figure-accuracy tbody tr").all_inner_texts()]
        first = page.evaluate("JSON.parse(document.getElementById('numbers').textContent).settings[0].cells[0][3][0]")
        assert float(lines[0][2]) == pytest.approx(first)
        assert all(line[3:5] == ["–", "–"] for line in lines)
        assert all("seed1" not in row for row in visible_rows(page, "Runs"))


def test_the_condition_holds_for_accuracy_and_differences(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:
        before = page.locator("#figure-accuracy .area svg").inner_html()
        assert len(visible_rows(page, "Is the difference real?")) == 4
        page.get_by_label("Condition of the test clips").select_option(label="audio.made-up@white=0")
        assert page.locator("#figure-accuracy .area svg").inner_html() != before
        assert "audio.made-up@white=0" in page.locator("#figure-accuracy .area svg").text_content()
        shown = page.locator("tr[data-condition]:not([hidden]) td:nth-child(2)").all_inner_texts()
        assert set(shown) == {"audio.made-up@white=0"}


def test_labels_of_the_data_stay_text(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:  # a dialog would be a complaint
        assert EVIL[:8] in page.locator("#figure-confusion .area svg").text_content()
        page.locator("#figure-alpha summary").click()
        assert EVIL in page.locator("#figure-alpha tbody").inner_text()
        assert page.locator("script").count() == 2


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_is_the_systems_until_one_is_chosen(chromium: Any, report: Path, system: str) -> None:
    def dark(page: Any) -> tuple[bool, bool]:
        """The ground, and the ink of a figure, by how light their colours are."""
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.querySelector('svg text.name')).fill")
        light = [sum(map(float, re.findall(r"[\d.]+", colour)[:3])) for colour in (ground, ink)]
        return light[0] < 150, light[1] > 600

    with opened(chromium, report, color_scheme=system) as page:
        is_dark = system == "dark"
        assert dark(page) == (is_dark, is_dark)
        page.get_by_label("Theme").select_option("light" if is_dark else "dark")
        assert dark(page) == (not is_dark, not is_dark)
        page.reload()
        assert dark(page) == (not is_dark, not is_dark)
        page.get_by_label("Theme").select_option("auto")
        assert dark(page) == (is_dark, is_dark)


def test_a_browser_without_light_dark_shows_the_light_page(chromium: Any, report: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.html"
    old.write_text(report.read_text("utf-8").replace("light-dark(", "unknown("), "utf-8")
    with opened(chromium, old, color_scheme="dark", bypass_csp=True) as page:
        look = page.evaluate(
            "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        assert look == ["rgb(31, 35, 40)", "rgb(255, 255, 255)"]
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
        assert page.evaluate("getComputedStyle(document.querySelector('svg .right')).fill") == "rgb(0, 114, 178)"
        assert not page.get_by_label("Theme").is_visible()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_page_does_not_scroll_sideways(chromium: Any, report: Path, width: int) -> None:
    with opened(chromium, report, width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#figure-curves .area svg").bounding_box()["width"] <= width


def test_figures_follow_the_width(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:
        page.set_viewport_size({"width": 500, "height": 900})
        page.wait_for_function("document.querySelector('#figure-curves .area svg').viewBox.baseVal.width < 500")
        assert page.evaluate("document.documentElement.scrollWidth") <= 500


def test_the_keyboard_reaches_every_control_and_every_value(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:
        count = page.locator("a, button, select, input, summary, [tabindex='0']").count()
        reached = []
        for _ in range(count + 5):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(FOCUSED))
        assert any("select theme" in name for name in reached)
        assert any("filter-model-0" in name for name in reached)
        assert set(figures(page)) == {name.split()[1] for name in reached if name.endswith("area")}
        area = page.locator("#figure-accuracy .area")
        area.focus()
        page.keyboard.press("ArrowRight")
        tip = page.locator("#figure-accuracy .tip")
        said = page.locator("#figure-accuracy .plot .said")
        first = said.inner_text()
        assert tip.is_visible()
        assert "95 % interval" in first
        page.keyboard.press("ArrowDown")
        assert said.inner_text() != first
        page.keyboard.press("Home")
        assert said.inner_text() == first
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        legend = page.locator("#figure-ratios .legend button").first
        drawn = page.locator("#figure-ratios .area svg path").count()
        legend.focus()
        page.keyboard.press("Enter")
        assert page.locator("#figure-ratios .legend button").first.get_attribute("aria-pressed") == "false"
        assert page.locator("#figure-ratios .area svg path").count() < drawn
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"


def test_the_pointer_shows_what_is_under_it(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as page:
        dot = page.locator("#figure-accuracy .area svg circle[r='4']").nth(2)
        dot.scroll_into_view_if_needed()
        box = dot.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        label = page.evaluate("JSON.parse(document.getElementById('numbers').textContent).settings[2].label")
        assert page.locator("#figure-accuracy .tip").inner_text().startswith(label)
        page.mouse.move(2, 2)
        assert not page.locator("#figure-accuracy .tip").is_visible()


def test_figures_are_saved_as_png_svg_and_csv(chromium: Any, report: Path) -> None:
    def saved(page: Any, figure: str, kind: str) -> bytes:
        with page.expect_download() as download:
            page.locator(f"#{figure} .tools button", has_text=kind).click()
        assert download.value.suggested_filename == f"{figure}.{kind.lower()}"
        return Path(download.value.path()).read_bytes()

    with opened(chromium, report) as page:
        names = figures(page)
    for name in names:  # a page each: a browser without a person saves ten files of a page, and no more
        with opened(chromium, report, color_scheme="dark") as page:
            svg = ElementTree.fromstring(saved(page, name, "SVG"))  # noqa: S314 - our own bytes
            looks = [node.attrib for node in svg.iter()]
            assert not any("class" in look for look in looks)
            paper = next(look for look in looks if look.get("width") == svg.get("width") and look is not svg.attrib)
            assert paper["fill"] == "rgb(255, 255, 255)"  # light, whatever the page's theme
    with opened(chromium, report, color_scheme="dark") as page:
        assert saved(page, "figure-curves", "PNG").startswith(b"\x89PNG\r\n\x1a\n")
        lines = list(csv.reader(io.StringIO(saved(page, "figure-accuracy", "CSV").decode())))
        assert lines[0][:3] == ["setting", "condition", "mean accuracy"]
        means = page.evaluate(
            "JSON.parse(document.getElementById('numbers').textContent).settings.map((s) => s.cells[0][0])"
        )
        assert [float(line[2]) for line in lines[1:]] == means
        classes = {line[0] for line in csv.reader(io.StringIO(saved(page, "figure-alpha", "CSV").decode()))}
        assert {EVIL, f"'{FORMULA}"} <= classes  # no spreadsheet takes it for a formula


def test_paper_has_no_controls_and_is_light(chromium: Any, report: Path) -> None:
    with opened(chromium, report, color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        page.get_by_label("Theme").select_option("dark", force=True)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        for selector in ("#filters", "nav", ".tools", ".theme"):
            assert not page.locator(selector).first.is_visible()
        assert page.locator("#figure-accuracy .area svg").is_visible()


def test_on_paper_many_settings_fit_without_their_intervals(
    chromium: Any, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "On paper the intervals are left out"
    monkeypatch.setattr("bmla.fuse.page.render.PAPER_SETTINGS", 4)
    (tmp_path / "runs").symlink_to(report.parent)
    crowded = tmp_path / "report.html"
    crowded.write_bytes(write_page(tmp_path / "runs").read_bytes())
    monkeypatch.undo()
    for path, many in ((crowded, True), (write_page(report.parent), False)):
        with opened(chromium, path) as page:
            cell = page.locator("#noise ~ .wide td .interval").first
            assert cell.is_visible()
            assert not page.get_by_text(said).is_visible()
            page.emulate_media(media="print")
            assert cell.is_visible() != many
            assert page.get_by_text(said).is_visible() == many


def test_without_scripts_answer_and_tables_are_there(chromium: Any, report: Path) -> None:
    with opened(chromium, report, java_script_enabled=False) as page:
        assert re.search(r"gets [\d.]+ ± [\d.]+ % of the test clips", page.locator("h1").inner_text())
        assert page.locator("noscript").inner_text().startswith("The figures are drawn")
        assert len(visible_rows(page, "All settings")) == 5


@pytest.mark.parametrize("look", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": PHONE}])
def test_axe_finds_nothing_serious(chromium: Any, report: Path, look: dict[str, Any]) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe: pip install 'bmla[test]'"
    ).Axe()
    width = look.pop("viewport", {"width": 1200})["width"]
    with opened(chromium, report, width=width, **look) as page:
        page.locator("#figure-accuracy summary").click()
        page.locator("#figure-accuracy .numbers table").wait_for()
        found = axe.run(page).response["violations"]
        serious = [
            (v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found if v["impact"] in ("serious", "critical")
        ]
        assert serious == []


# ---- live


@contextmanager
def served(folder: Path) -> Iterator[PageServer]:
    with PageServer(Watched([folder]).page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_served_page_takes_over_what_is_new_and_keeps_what_was_chosen(
    chromium: Any, tiny: Tiny, fabricate: Fabricate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmla.fuse.live.REST", 0.0)
    with served(tmp_path) as server, opened(chromium, server.url, clock=True) as page:
        assert page.locator("h1").inner_text() == "No finished run yet"
        for model in ("transformer", "transformer-ao"):
            fabricate(tmp_path, tiny(model), conditions=NOISES)
        page.clock.run_for(POLL_MS + 100)
        page.wait_for_selector("h1:has-text('gets')")
        assert page.locator("#figure-accuracy .area svg").count() == 1
        page.locator("#filters summary").click()
        page.get_by_role("checkbox", name="transformer-ao").uncheck()
        page.locator("#figure-accuracy summary").click()
        page.locator("#figure-accuracy .area").focus()
        fabricate(tmp_path, tiny("transformer", seed=7), conditions=NOISES)
        page.clock.run_for(POLL_MS + 100)
        page.wait_for_selector("#live:has-text('3 finished runs')")
        assert visible_rows(page, "All settings") == ["transformer 1:1"]
        assert page.locator("#figure-accuracy details").get_attribute("open") is not None
        assert page.locator("#figure-accuracy tbody tr").count() == 1
        assert page.evaluate("document.activeElement.closest('figure')?.id") == "figure-accuracy"


def test_a_page_whose_server_has_ended_says_so(chromium: Any, tmp_path: Path) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.clock.install()
    with served(tmp_path) as server:
        page.goto(server.url)
        assert not page.locator("#live-lost").is_visible()
    page.clock.run_for(POLL_MS + 100)
    page.wait_for_selector("#live-lost:not([hidden])")
    context.close()


# ---- size


@pytest.mark.slow
def test_a_page_of_a_hundred_runs_is_below_five_megabytes_and_draws(
    chromium: Any, tiny: Tiny, fabricate: Fabricate, tmp_path: Path
) -> None:
    names = [f"WORD-{i:03d}" for i in range(100)]
    ratios = ["1:4", "1:2", "1:1", "2:1", "4:1"]
    for model, ratio, seed in product(["transformer", "balancemla"], ratios, range(10)):
        config = tiny(model, ratio=ratio, seed=seed)
        fabricate(tmp_path, config, names, clips=200, epochs=250, conditions=NOISES[:2])
    path = write_page(tmp_path)
    assert path.stat().st_size < FIVE_MB
    with opened(chromium, path) as page:
        assert page.locator("figure .area svg").count() == len(figures(page))
        assert len(visible_rows(page, "Runs")) == 100
