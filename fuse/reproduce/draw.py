"""The figure of an experiment."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..figures import COLOURS, canvas, draw_band, draw_interval, mean_curve, outside_legend, padded
from .protocol import Outcome, curve_of_masks

PUBLISHED_COLOUR = "#D55E00"


def draw_outcome(outcome: Outcome, dataset: str, task: str) -> Figure:
    """Curves, bars or masks.

    Args:
        dataset, task: that the runs are of.
    """
    figure: Figure = DRAWN[outcome.plan.experiment.figure](outcome, dataset)
    (axes,) = figure.axes
    axes.set_title(title(outcome, dataset, task))
    return figure


def title(outcome: Outcome, dataset: str, task: str) -> str:
    """What it is; below, what the runs are of, and their task where the paper's is another one."""
    experiment = outcome.plan.experiment
    told = dataset if task in experiment.tasks else f"{dataset} ({task}; the paper's: {' and '.join(experiment.tasks)})"
    return f"{experiment.title}\n{told}" + (f"; {outcome.protocol} protocol" if outcome.protocol else "")


def draw_curves(outcome: Outcome, dataset: str) -> Figure:
    """Dev accuracy against epoch: thin lines are runs, thick ones their mean, vertical ones the mean convergence epoch."""
    figure, axes = canvas(3.6)
    for i, (arm, index) in enumerate(outcome.rows):
        colour = COLOURS[i % len(COLOURS)]
        curves = padded([[e["dev_accuracy"] for e in run.history] for run in outcome.summary.runs[index]])
        epochs = np.arange(1, curves.shape[1] + 1)
        if len(curves) > 1:
            axes.plot(epochs, curves.T, color=colour, linewidth=0.6, alpha=0.4)
        found = outcome.row(index).convergence.get("model")
        mean = found.mean if found is not None else None
        label = f"{arm.label}\n(had not converged)"
        if found is not None and mean is not None:
            label = f"{arm.label}\n(converged at {mean:.0f}: {len(found.known)} of {len(found.epochs)} runs)"
        axes.plot(epochs, mean_curve(curves), color=colour, linewidth=1.8, label=label)
        if mean is not None:
            axes.axvline(mean, color=colour, linewidth=0.9, linestyle="--")
    axes.set_xlabel("epoch")
    axes.set_ylabel("dev accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    outside_legend(axes)
    return figure


def draw_bars(outcome: Outcome, dataset: str) -> Figure:
    """Test accuracy of each arm with interval and seeds; a diamond is the paper's number, where the data set is the paper's."""
    figure, axes = canvas(1.1 + 0.34 * len(outcome.rows))
    printed = False
    for y, (arm, index) in enumerate(outcome.rows):
        draw_interval(axes, outcome.row(index), y, COLOURS[0], horizontal=True)
        for p in arm.published:
            if p.dataset == dataset and p.accuracy is not None:
                look: dict[str, Any] = dict(color=PUBLISHED_COLOUR, markersize=6, linestyle="")
                axes.plot([p.accuracy / 100], [y - 0.2], "D", **look)
                printed = True
    axes.set_yticks(range(len(outcome.rows)), [arm.label for arm, _ in outcome.rows])
    axes.set_ylim(len(outcome.rows) - 0.5, -0.5)
    paper = "; diamond: the paper, on this data set" if printed else ""
    axes.set_xlabel(f"test accuracy: mean, 95 % interval, a dot a seed{paper}", fontsize=8)
    axes.grid(False, axis="y")
    return figure


def draw_masks(outcome: Outcome, dataset: str) -> Figure:
    """Test accuracy against mask factor."""
    figure, axes = canvas(3.6)
    for i, (arm, index) in enumerate(outcome.rows):
        row = outcome.row(index)
        points = curve_of_masks(row)
        shift = 0.006 * (i - (len(outcome.rows) - 1) / 2)  # so that no bar hides another
        cells = [row.conditions[c] for _, c in points]
        draw_band(axes, [factor + shift for factor, _ in points], cells, COLOURS[i % len(COLOURS)], arm.label)
    axes.set_xlabel("mask factor")
    axes.set_ylabel("test accuracy, 95 % interval")
    outside_legend(axes)
    return figure


DRAWN = {"curves": draw_curves, "bars": draw_bars, "masks": draw_masks}
