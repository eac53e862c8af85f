"""The pictures of a sweep's report, as matplotlib figures: each answers one question.

Text is drawn as shapes and never read as formulas, so a class may be called anything.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .condition import CLEAN, noise_series
from .optimum import Contribution, audio_share
from .rows import Cell, Row, branch, mean_alpha
from .run import Run
from .summary import Summary

# Okabe and Ito (2008): told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
INK, FAINT = "#222222", "#d9d9d9"
WIDTH_IN = 8.0
DPI = 110
NUMBERED_CLASSES = 20  # up to here, every cell of the confusion matrix shows its count
NAMED_CLASSES = 60  # up to here, every class is named at the axes
LETTER = 0.7  # the width of a letter over its size, roughly
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": "#eeeeee",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "bmla",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Our own look, whatever the user's matplotlib settings; a letter that the font lacks is drawn as a box, silently."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def render(figure: Figure, *kinds: str) -> tuple[bytes, ...]:
    """The bytes of an "svg", of a "png", or of both: the same figure gives the same bytes, whatever else is asked for.

    It is laid out once, as measuring the text takes longer than drawing it; what is added afterwards has no place.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    return tuple(saved(figure, kind) for kind in kinds)


def saved(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def draw_accuracies(summary: Summary) -> Figure:
    """Which setting is right how often: one line each, a dot a seed, the mean and its interval."""
    rows = summary.rows
    figure, axes = canvas(0.9 + 0.34 * len(rows))
    for y, row in enumerate(rows):
        colour = COLOURS[0] if y == summary.best else INK
        draw_interval(axes, row, y, colour, horizontal=True)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.get_yticklabels()[summary.best].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("test accuracy: mean, 95 % interval, and a dot for every seed")
    axes.grid(False, axis="y")
    return figure


def draw_ratios(summary: Summary) -> Figure | None:
    """How accuracy depends on the ratio; None where no model was trained with two ratios."""
    rows = [row for row in summary.rows if row.ratio is not None]
    ratios = sorted({str(row.ratio) for row in rows}, key=audio_share)
    if len(ratios) < 2:
        return None
    names = list(dict.fromkeys(row.family for row in rows))
    figure, axes = canvas(3.4)
    for i, name in enumerate(names):
        shift = 0.5 * ((i + 0.5) / len(names) - 0.5)
        mine = sorted((r for r in rows if r.family == name), key=lambda r: audio_share(str(r.ratio)))
        places = [ratios.index(str(row.ratio)) + shift for row in mine]
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(places, [row.mean for row in mine], color=colour, linewidth=1, label=name)
        for x, row in zip(places, mine, strict=True):
            draw_interval(axes, row, x, colour, horizontal=False)
    alone = [row for row in summary.rows if row.ratio is None]
    for i, row in enumerate(alone):
        colour = COLOURS[(len(names) + i) % len(COLOURS)]
        axes.axhline(row.mean, color=colour, linewidth=1, linestyle="--", label=row.label)
    axes.set_xticks(range(len(ratios)), ratios)
    axes.set_xlim(-0.5, len(ratios) - 0.5)
    axes.set_xlabel("feature lengths, audio : visual")
    axes.set_ylabel("test accuracy")
    axes.grid(False, axis="x")
    outside_legend(axes)
    return figure


def draw_curves(summary: Summary) -> Figure:
    """How accuracy on dev grows, one panel a model: thin lines are seeds, thick ones their mean.

    Epochs of a model that starts from trained branches are counted on from theirs, whose mean is dashed (audio) and dotted.
    """
    panels: dict[str, list[tuple[Row, tuple[Run, ...]]]] = {}
    for row, runs in zip(summary.rows, summary.runs, strict=True):
        panels.setdefault(row.model, []).append((row, runs))
    columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH_IN, 0.5 + 2.5 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, (model, settings) in zip(grid.flat, panels.items(), strict=False):
        for i, (row, runs) in enumerate(settings):
            colour = COLOURS[i % len(COLOURS)]
            curves = padded([[epoch["dev_accuracy"] for epoch in run.history] for run in runs])
            first = runs[0].config.pretrain_epochs + 1
            epochs = np.arange(first, first + curves.shape[1])
            marker = "o" if len(epochs) == 1 else None
            if len(curves) > 1:
                axes.plot(epochs, curves.T, color=colour, linewidth=0.6, alpha=0.45, marker=marker, markersize=2)
            label = row.label.removeprefix(model).strip() or None
            axes.plot(epochs, mean_curve(curves), color=colour, linewidth=1.8, label=label, marker=marker, markersize=4)
            for modality, line in (("audio", "--"), ("visual", ":")):
                started = [branch(run, modality) for run in runs] if modality in runs[0].branches else []
                if before_all := [[e["dev_accuracy"] for e in run.history] for run in started if run is not None]:
                    before = mean_curve(padded(before_all))
                    axes.plot(np.arange(1, len(before) + 1), before, color=colour, linewidth=0.9, linestyle=line)
        axes.set_title(model)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if any(row.label != model for row, _ in settings):
            axes.legend(fontsize=7, loc="lower right")
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("dev accuracy")
    figure.supxlabel("epoch", fontsize=9)
    return figure


def draw_conditions(summary: Summary) -> Figure | None:
    """How accuracy falls with each kind of noise, one panel a kind; None where nothing was tested under noise.

    Of many settings, the best of each family on dev are drawn.
    """
    series = noise_series(summary.conditions)
    if not series:
        return None
    rows = leading(summary.rows)
    figure, panels = panel_grid(len(series))
    for axes, (kind, points) in zip(panels, series.items(), strict=True):
        for i, row in enumerate(rows):
            there = [(value, row.conditions[c]) for value, c in points if c in row.conditions]
            places = range(len(points) + 1 - len(there), len(points) + 1)
            cells = [row.clean, *(cell for _, cell in there)]
            draw_band(axes, [0, *places], cells, COLOURS[i % len(COLOURS)], row.label)
        axes.set_xticks(range(len(points) + 1), ["clean", *(f"{value:g}" for value, _ in points)])
        axes.set_title(kind)
    panels[0].set_ylabel("test accuracy")
    figure_legend(figure, panels[0])
    return figure


def draw_contributions(summary: Summary) -> Figure | None:
    """The share of sound by each measure under every condition, a panel a family; None where there is one condition."""
    families: dict[str, list[Contribution]] = {}
    for c in summary.contributions:
        if c.sides:
            families.setdefault(c.family, []).append(c)
    families = {family: found for family, found in families.items() if len(found) > 1}
    if not families:
        return None
    most = max(map(len, families.values()))
    figure = Figure(figsize=(WIDTH_IN, 0.6 + len(families) * (0.9 + 0.24 * most)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(families), 1, squeeze=False)
    for axes, (family, found) in zip(grid.flat, families.items(), strict=True):
        for i, name in enumerate(("best ratio", "Shapley", "loss without it")):
            for y, c in enumerate(found):
                share, limits = share_of(c, name)
                if share is not None:
                    place, colour = y + 0.22 * (i - 1), COLOURS[i]
                    axes.plot([share], [place], "o", color=colour, markersize=4, label=None if y else name)
                    axes.plot(limits or (share, share), [place, place], color=colour, linewidth=1.6)
        axes.axvline(0.5, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(found)), [c.condition for c in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlabel("share of sound: right of the line sound contributes more, left of it sight")
        axes.set_title(family)
        axes.grid(False, axis="y")
        outside_legend(axes)
    return figure


def share_of(c: Contribution, name: str) -> tuple[float | None, tuple[float, float] | None]:
    """One measure's share of sound and its interval."""
    if name == "best ratio":
        return (c.optimum.share, c.optimum.share_interval) if c.optimum else (None, None)
    worth = c.shapley if name == "Shapley" else c.loss
    return (worth.share, worth.interval) if worth else (None, None)


def draw_confusion(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """What is taken for what: (c, c) counts, rows are the truth; colour is the share of the row."""
    c = len(classes)
    side = float(np.clip(0.42 * c + 1.6, 4.0, WIDTH_IN))
    few = c <= NAMED_CLASSES
    names = [clip_text(name) for name in classes] if few else []
    size = float(np.clip(300 / c, 5, 9))
    longest_in = max(map(len, names), default=0) * LETTER * size / 72
    upright = c * longest_in > side / 2  # side by side they would meet
    room_in = max(0.0, longest_in - 0.6)  # for up to so much there is some
    figure, axes = canvas(side + upright * room_in, width_in=side + 0.6 + room_in)
    total = confusion.sum(1, keepdims=True)
    share = np.divide(confusion, total, out=np.zeros(confusion.shape), where=total > 0)
    norm = PowerNorm(
        1.0 if few else 0.5, vmin=0, vmax=1
    )  # of hundreds of classes, the few confusions would be too pale
    image = axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest" if few else "antialiased")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
    axes.set_xlabel("taken for" if few else "class taken for it, by its number")
    axes.set_ylabel("class" if few else "class, by its number")
    if few:
        axes.set_xticks(range(c), names, rotation=90 if upright else 0, fontsize=size)
        axes.set_yticks(range(c), names, fontsize=size)
    if c <= NUMBERED_CLASSES:
        for i, j in zip(*np.nonzero(confusion), strict=True):
            axes.text(
                j,
                i,
                str(confusion[i, j]),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share[i, j] > 0.5 else INK,
            )
    bar = figure.colorbar(image, ax=axes, shrink=0.6, label="share of the class's clips")
    bar.outline.set_visible(False)
    return figure


def draw_alpha(alpha: Sequence[float | None], classes: Sequence[str]) -> Figure | None:
    """How much sound decides, for each class; None where no class has a weight."""
    known = sorted((value, name) for value, name in zip(alpha, classes, strict=True) if value is not None)
    if not known:
        return None
    values, names = np.array([v for v, _ in known]), [clip_text(n) for _, n in known]
    if len(known) <= NAMED_CLASSES:
        size = float(np.clip(500 / len(known), 6, 9))
        figure, axes = canvas(0.8 + max(0.13, 0.02 * size) * len(known))
        axes.barh(
            range(len(known)),
            values - 0.5,
            left=0.5,
            color=[COLOURS[1] if v < 0.5 else COLOURS[0] for v in values],
            height=0.7,
        )
        axes.set_yticks(range(len(known)), names, fontsize=size)
        axes.set_ylim(-0.6, len(known) - 0.4)
        axes.grid(False, axis="y")
        reach = max(0.05, float(np.abs(values - 0.5).max()) * 1.1)
        axes.set_xlim(0.5 - reach, 0.5 + reach)
        axes.axvline(0.5, color=INK, linewidth=0.8)
        axes.set_xlabel("mean alpha: share of sound (right of the line) against sight (left)")
    else:
        figure, axes = canvas(3.0)
        axes.fill_between(range(len(known)), 0.5, values, color=COLOURS[0], alpha=0.6, linewidth=0)
        axes.axhline(0.5, color=INK, linewidth=0.8)
        axes.set_xlabel(f"classes, from {names[0]} to {names[-1]}")
        axes.set_ylabel("mean alpha: share of sound")
    return figure


def draw_alpha_noise(summary: Summary) -> Figure | None:
    """How sound's share moves with each kind of noise, a thin line a class; of the setting with the best run that has decision weights."""
    best = summary.best_weighted_run
    series = noise_series(summary.conditions)
    if best is None or not series:
        return None
    row, runs = next((r, runs) for r, runs in zip(summary.rows, summary.runs, strict=True) if best in runs)
    figure, panels = panel_grid(len(series))
    for axes, (kind, points) in zip(panels, series.items(), strict=True):
        there = [("clean", str(CLEAN)), *((f"{value:g}", c) for value, c in points if c in row.conditions)]
        shares = [mean_alpha(runs, condition) for _, condition in there]
        by_class = np.array([[np.nan if a is None else a for a in s] for s in shares if s is not None])
        axes.plot(by_class, color=COLOURS[0], linewidth=0.6, alpha=0.45)
        axes.plot(np.nanmean(by_class, 1), color=COLOURS[1], linewidth=1.8, marker="o", markersize=4)
        axes.set_xticks(range(len(there)), [name for name, _ in there])
        axes.set_title(kind)
    panels[0].set_ylabel("alpha: share of sound")
    figure.supxlabel(f"{row.label}: single classes (thin) and their mean (thick)", fontsize=9)
    return figure


def draw_interval(axes: Axes, row: Row, place: float, colour: str, horizontal: bool) -> None:
    """Mean, interval and seeds of one setting: the seeds stand beside the line, so that none is hidden."""
    low, high = row.clean.interval
    beside = [place + (0.22 if horizontal else 0.07)] * len(row.clean.accuracies)
    lines: list[tuple[Any, Any, dict[str, Any]]] = [
        ([low, high], [place, place], dict(linewidth=2, solid_capstyle="butt")),
        (row.clean.accuracies, beside, dict(marker="o", linestyle="", markersize=4, alpha=0.7, markeredgewidth=0)),
        ([row.mean], [place], dict(marker="|" if horizontal else "_", markersize=12, markeredgewidth=2)),
    ]
    for values, places, look in lines:
        axes.plot(*((values, places) if horizontal else (places, values)), color=colour, **look)


def draw_band(axes: Axes, places: Sequence[float], cells: Sequence[Cell], colour: str, label: str) -> None:
    """Means joined by a line, and a bar for each interval."""
    means = np.array([cell.mean for cell in cells])
    limits = np.array([cell.interval for cell in cells]).T
    axes.plot(places, means, color=colour, linewidth=1.4, marker="o", markersize=3, label=label)
    axes.vlines(places, *limits, color=colour, linewidth=1, alpha=0.6)


def leading(rows: Sequence[Row]) -> list[Row]:
    """All rows where there are colours for them, else the best of each family on dev, the best families of these."""
    if len(rows) <= len(COLOURS):
        return list(rows)
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -row.dev):
        best.setdefault(row.family, row)
    return list(best.values())[: len(COLOURS)]


def padded(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """(s, epochs) with NaN where a run had ended."""
    table = np.full((len(curves), max(map(len, curves))), np.nan)
    for i, curve in enumerate(curves):
        table[i, : len(curve)] = curve
    return table


def mean_curve(curves: np.ndarray) -> np.ndarray:
    """(epochs,) over the runs that were still going; (s, epochs) as `padded` gives them."""
    going = ~np.isnan(curves)
    return np.where(going, curves, 0).sum(0) / going.sum(0)


def panel_grid(count: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side, in lines of up to three, of one height."""
    columns = min(count, 3)
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH_IN, 0.9 + 2.5 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def figure_legend(figure: Figure, axes: Axes) -> None:
    """Below all panels."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)


def canvas(height_in: float, width_in: float = WIDTH_IN) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def outside_legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)


def clip_text(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
