"""What the page's figures are drawn from, as plain JSON values of bounded size.

Settings and conditions are named once and referred to by their index, numbers are rounded to what an eye can tell, and what does not
fit is left out and counted: a page of a hundred runs stays small enough for a mail.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..condition import noise_series
from ..convergence import Convergence
from ..figures import leading, share_of
from ..models.table import takes
from ..rows import Cell, branch, mean_alpha
from ..run import Run
from ..summary import Summary
from .training import Training

FORMAT = 1
TEXT_LENGTH = 120  # of anything that the data name
MOST_CONFUSIONS = 60_000  # cells of all matrices together
MOST_WEIGHTS = 60_000  # alphas of single classes of all settings together
MOST_EPOCHS = 200  # of one curve; of a longer one, evenly spaced epochs
CURVES = ("dev_accuracy", "dev_accuracy_audio", "dev_accuracy_visual", "rho", "alpha")
PREFIXES = ("grad_norm_", "scale_")
MEASURES = ("best ratio", "Shapley", "loss without it")


def page_numbers(summary: Summary | None, unfinished: Sequence[Training] = ()) -> dict[str, Any]:
    """Everything that is drawn.

    Args:
        summary: of the finished runs; None where there is none yet.
        unfinished: runs that are being trained.

    Returns:
        Plain values; `figures` names those that there is something to show in.
    """
    found: dict[str, Any] = {
        "format": FORMAT,
        "settings": [],
        "runs": [],
        "conditions": [],
        "classes": [],
        "best": None,
    }
    found |= {"noises": [], "confusions": [], "contributions": [], "leading": []}
    if summary is not None:
        found |= of_summary(summary)
    found["runs"] += [of_training(training) for training in unfinished]
    return {**found, "figures": figures_of(found)}


def of_summary(summary: Summary) -> dict[str, Any]:
    first = [row.label for row in leading(summary.rows)]
    return {
        "classes": [cut(name) for name in summary.best_run.classes],
        "conditions": list(summary.conditions),
        "best": summary.best,
        "leading": [i for i, row in enumerate(summary.rows) if row.label in first],
        "settings": settings(summary),
        "runs": [of_run(run, i) for i, runs in enumerate(summary.runs) for run in runs],
        "noises": [
            {"kind": kind, "points": [[value, summary.conditions.index(name)] for value, name in points]}
            for kind, points in noise_series(summary.conditions).items()
        ],
        "confusions": confusions(summary),
        "contributions": [
            {
                "family": cut(c.family),
                "condition": summary.conditions.index(c.condition),
                "measures": {
                    name: [short(share), *map(short, limits or (None, None))]
                    for name in MEASURES
                    for share, limits in [share_of(c, name)]
                    if share is not None
                },
            }
            for c in summary.contributions
            if c.sides
        ],
    }


def settings(summary: Summary) -> list[dict[str, Any]]:
    """One entry a row; cells in the order of the conditions, None where it was not tested."""
    found = []
    alphas = weights(summary)
    for row, setting, alpha in zip(summary.rows, summary.settings, alphas, strict=True):
        found.append(
            {
                "label": cut(row.label),
                "family": cut(row.family),
                "model": row.model,
                "takes": list(takes(row.model)),
                "ratio": row.ratio,
                "balance": setting.config.balance,
                "seeds": list(row.seeds),
                "dev": short(row.dev),
                "cells": [of_cell(cell) if (cell := row.conditions.get(c)) else None for c in summary.conditions],
                "convergence": {name: of_convergence(c) for name, c in row.convergence.items()},
                "alpha": alpha,
            }
        )
    return found


def of_cell(cell: Cell) -> list[Any]:
    """Mean, 95 % interval, one accuracy a seed."""
    return [short(cell.mean), *map(short, cell.interval), [short(a) for a in cell.accuracies]]


def of_convergence(found: Convergence) -> list[Any]:
    """Mean epoch, how many runs had converged, of how many."""
    return [short(found.mean), len(found.known), len(found.epochs)]


def weights(summary: Summary) -> list[list[list[float | None] | None]]:
    """By setting and condition, sound's share of each class; None where there is none, and beyond MOST_WEIGHTS: noise is left out first."""
    found: list[list[list[float | None] | None]] = [[] for _ in summary.rows]
    room = MOST_WEIGHTS
    for condition in summary.conditions:
        for of_setting, row, setting in zip(found, summary.rows, summary.settings, strict=True):
            alpha = mean_alpha(setting.runs, condition) if condition in row.conditions else None
            alpha = alpha if alpha and len(alpha) <= room else None
            room -= len(alpha or ())
            of_setting.append(series(alpha) if alpha else None)
    return found


def of_run(run: Run, setting: int) -> dict[str, Any]:
    best, test = run.scores["best"], run.scores["test"]
    curves = curves_of(run.history)
    for modality in run.branches:
        if (before := branch(run, modality)) is not None:
            curves[f"before_{modality}"] = series(epoch.get("dev_accuracy") for epoch in thinned(before.history))
    return {
        "name": run.name,
        "setting": setting,
        "seed": run.config.seed,
        "fold": run.config.fold if run.config.folds else None,
        "first": run.config.pretrain_epochs + 1,
        "step": stride(len(run.history)),
        "curves": curves,
        "best": [best.get("epoch"), short(best["dev_accuracy"]), short(test["accuracy"])],
        "seconds": short(run.document.get("seconds")),
        "epochs": len(run.history),
        "parameters": run.document.get("parameters"),
    }


def of_training(training: Training) -> dict[str, Any]:
    """A run that is not finished: no setting of the summary is its own yet."""
    config = training.config
    return {
        "name": training.name,
        "setting": None,
        "label": cut(training.label),
        "model": config.model,
        "takes": list(takes(config.model)),
        "ratio": config.ratio if len(takes(config.model)) == 2 else None,
        "balance": config.balance,
        "seed": config.seed,
        "fold": config.fold if config.folds else None,
        "first": config.pretrain_epochs + 1,
        "step": stride(len(training.history)),
        "curves": curves_of(training.history),
        "epochs": len(training.history),
    }


def stride(epochs: int) -> int:
    return -(-epochs // MOST_EPOCHS) or 1


def thinned(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(history[:: stride(len(history))])


def curves_of(history: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """By name, one number an epoch, None where there is none; names without any number, and update scales that are one
    throughout, are left out."""
    epochs = thinned(history)
    names = [*CURVES, *sorted({k for epoch in epochs for k in epoch if k.startswith(PREFIXES)})]
    found = {name: series(epoch.get(name) for epoch in epochs) for name in names}
    return {
        name: values
        for name, values in found.items()
        if any(v is not None for v in values) and not (name.startswith("scale_") and all(v == 1 for v in values))
    }


def confusions(summary: Summary) -> list[dict[str, Any]]:
    """Counts over all runs of a setting under a condition, as (truth, answer, count) end to end; the best setting under every condition
    first, then the others on clean clips, while there is room."""
    wanted = [(summary.best, c) for c in summary.conditions]
    others = sorted((i for i in range(len(summary.rows)) if i != summary.best), key=lambda i: -summary.rows[i].dev)
    found = []
    room = MOST_CONFUSIONS
    for i, condition in [*wanted, *((i, summary.conditions[0]) for i in others)]:
        if condition not in summary.rows[i].conditions:
            continue
        total: dict[tuple[int, int], int] = {}
        for run in summary.runs[i]:
            for truth, line in enumerate(run.scores_under(condition)["confusion"]):
                for answer, count in enumerate(line):
                    if count:
                        total[truth, answer] = total.get((truth, answer), 0) + int(count)
        if len(total) > room:
            continue
        room -= len(total)
        cells = [number for (truth, answer), count in sorted(total.items()) for number in (truth, answer, count)]
        found.append({"setting": i, "condition": summary.conditions.index(condition), "cells": cells})
    return found


def figures_of(found: dict[str, Any]) -> list[str]:
    """The names of the figures that these numbers fill."""
    settings, curves = found["settings"], {name for run in found["runs"] for name in run["curves"]}
    there = {
        "accuracy": bool(settings),
        "ratios": len({s["ratio"] for s in settings if s["ratio"] is not None}) > 1,
        "noise": bool(found["noises"]),
        "contributions": bool(found["contributions"]),
        "curves": "dev_accuracy" in curves,
        "alpha": any(s["alpha"][0] for s in settings),
        "alpha_noise": any(s["alpha"][i] for s in settings for noise in found["noises"] for _, i in noise["points"]),
        "discrepancy": bool({"rho", "alpha"} & curves) or any(name.startswith("scale_") for name in curves),
        "gradients": any(name.startswith("grad_norm_") for name in curves),
        "confusion": bool(found["confusions"]),
        "times": any(run.get("seconds") is not None for run in found["runs"]),
    }
    return [name for name, has in there.items() if has]


def series(values: Iterable[Any]) -> list[float | None]:
    return [short(value) for value in values]


def short(value: Any) -> float | None:
    """Four significant digits; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def cut(text: object) -> str:
    """On one line, and not longer than a page bears."""
    line = " ".join(str(text)[: 4 * TEXT_LENGTH].split())
    return line if len(line) <= TEXT_LENGTH else line[: TEXT_LENGTH - 1] + "…"
