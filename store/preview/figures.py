"""The page's charts, as matplotlib figures on a transparent ground: the page turns dark ink light where its reader wants that.

Text is drawn as shapes and never read as formulas, so a class may be called anything.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .facts import NO_SPLIT

# Okabe and Ito (2008): told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#999999")
INK = "#222222"
WIDTH_IN = 8.0
PANELS_A_ROW = 3
BINS = 30
MOST_COLUMNS = 512  # features drawn side by side; of more, neighbours are averaged
HEAT_MAP_PIXELS = (240, 320)  # height and width, about
DPI = 100
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "bmla",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


class Panel(NamedTuple):
    """One histogram. whole: of whole numbers, so a bin holds as many of them as any other; share: from 0 to 1 throughout."""

    title: str
    values: np.ndarray
    whole: bool = False
    share: bool = False


@contextmanager
def drawing() -> Iterator[None]:
    """Our own look, whatever the user's matplotlib settings; a letter that the font lacks is drawn as a box, silently."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def render(figure: Figure) -> bytes:
    """The bytes of an SVG: the same figure gives the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None})
    return buffer.getvalue()


def draw_histograms(panels: Sequence[Panel]) -> Figure:
    """How numbers lie, a panel each."""
    lines = -(-len(panels) // PANELS_A_ROW)
    figure = new_figure(0.3 + 1.6 * lines)
    grid = figure.subplots(lines, PANELS_A_ROW, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        known = panel.values[np.isfinite(panel.values)].astype(float)
        axes.hist(
            known, bins=np.linspace(0, 1, BINS + 1) if panel.share else bins_of(known, panel.whole), color=COLOURS[0]
        )
        axes.set_title(panel.title, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(2 if has_long_labels(known) else 5, integer=panel.whole))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(False, axis="x")
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    return figure


def has_long_labels(values: np.ndarray) -> bool:
    """The numbers differ in their third digit or later, as in 0.9991 and 0.9992: few of their labels fit side by side."""
    return len(values) > 0 and 0 < float(np.ptp(values)) < 0.01 * float(np.abs(values).max())


def bins_of(values: np.ndarray, whole: bool) -> np.ndarray:
    """Edges of the bins; one around the value where all are equal, whole numbers lie in the middle of theirs."""
    least, most = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if whole:
        width = int(-(-(most - least + 1) // BINS))
        return np.arange(least, most + 1 + width, width) - 0.5
    room = max(abs(least), 1.0) * 0.01 if most - least <= abs(least) * 1e-9 else 0.0
    return np.linspace(least - room, most + room, BINS + 1)


def draw_classes(counts: Mapping[str, np.ndarray]) -> Figure:
    """Clips a class, the splits on top of each other, classes in the order of how many clips they have altogether."""
    total = np.sum(list(counts.values()), 0)
    order, below = np.argsort(-total, kind="stable"), np.zeros(len(total), np.int64)
    figure = new_figure(2.4)
    axes = figure.subplots()
    edges = np.arange(len(order) + 1) + 0.5
    for (split, column), colour in zip(counts.items(), COLOURS, strict=False):
        if column.any():
            name = "no split" if split == NO_SPLIT else split
            axes.stairs((below + column)[order], edges, baseline=below[order], fill=True, color=colour, label=name)
            below = below + column
    axes.set_ylim(bottom=0)
    axes.set_xlabel("classes, those with most clips first")
    axes.set_ylabel("clips")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", ncols=len(counts))
    return figure


def draw_features(mean: np.ndarray, std: np.ndarray) -> Figure:
    """Mean of each feature and, as a band, one standard deviation to either side."""
    width = -(-len(mean) // MOST_COLUMNS)
    starts = np.arange(0, len(mean), width)
    sizes = np.diff(np.append(starts, len(mean)))
    mean, std = (np.add.reduceat(column, starts) / sizes for column in (mean, std))
    figure = new_figure(2.0)
    axes = figure.subplots()
    axes.fill_between(starts, mean - std, mean + std, color=COLOURS[0], alpha=0.3, linewidth=0, step="mid")
    axes.step(starts, mean, color=COLOURS[0], linewidth=1, where="mid")
    axes.set_xlabel("feature" if width == 1 else f"feature, {width} neighbours averaged")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def heat_map(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A clip's features as a picture, time to the right and the first feature at the bottom: (L', n', 3) uint8, a whole factor
    larger where that would be small; of one that would be too large, evenly spaced steps and features.

    Args:
        values: (n, L).
        low, high: numbers at the ends of the colour scale.
    """
    rows, columns = (
        np.linspace(0, size - 1, min(size, most)).round().astype(int)
        for size, most in zip(values.shape, HEAT_MAP_PIXELS[::-1], strict=True)
    )
    share = np.clip((values[np.ix_(rows, columns)].astype(float) - low) / ((high - low) or 1.0), 0, 1)
    colours = matplotlib.colormaps["viridis"](np.nan_to_num(share))
    picture = (colours[..., :3] * 255).round().astype(np.uint8).transpose(1, 0, 2)[::-1]
    for axis in (0, 1):
        picture = picture.repeat(max(HEAT_MAP_PIXELS[axis] // picture.shape[axis], 1), axis)
    return picture


def new_figure(height_in: float) -> Figure:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
