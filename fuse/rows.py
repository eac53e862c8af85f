"""One setting over its seeds and folds, under every condition that it was tested under."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, recall_score

from ..store.errors import UsageError
from .answers import Answers
from .condition import CLEAN
from .convergence import Convergence, convergence
from .models.table import takes
from .run import Run, load_run
from .settings import Label, Setting
from .statistics import Interval, bootstrap_macro_f1, bootstrap_mean, centred, interval


@dataclass(frozen=True)
class Cell:
    """One setting under one condition.

    Attributes:
        accuracies: one a seed, over all folds.
        mean, std: of the accuracies; std None for one seed.
        interval, macro_f1_interval: 95 %, over seeds and recordings; see `statistics.py`.
        clips, groups: that it was tested on, and the recordings that they are of.
        macro_f1, weighted_f1, uar: means over seeds.
        top_k_accuracy: mean accuracy by the top_k most probable classes; None for runs that were tested before there was one.
        audio, visual: mean accuracy of the branches' own heads; audio_alone, visual_alone with BRFF off; None where there is none.
        alpha: mean share of audio.
    """

    accuracies: tuple[float, ...]
    mean: float
    std: float | None
    interval: Interval
    clips: int
    groups: int
    macro_f1: float
    macro_f1_interval: Interval
    weighted_f1: float
    uar: float
    top_k: int | None
    top_k_accuracy: float | None
    audio: float | None
    visual: float | None
    audio_alone: float | None
    visual_alone: float | None
    alpha: float | None


@dataclass(frozen=True)
class Row:
    """One setting over its seeds and folds.

    Attributes:
        label, family: what it is called, with and without its ratio.
        model, ratio, without: the setting; ratio None for models without one.
        seeds, folds: ascending; no folds without cross-validation.
        notes: what was left out.
        conditions: by condition, "clean" first; without those that leave the model nothing to see.
        fold_mean, fold_std: over folds, of the mean accuracy of all seeds; None without folds.
        convergence: of dev accuracy: "model", and "audio" and "visual" where they have heads or were trained before.
        dev: mean accuracy on dev at the chosen epochs; dev_loss: mean loss there.
        best_epoch: mean of the chosen epochs.
    """

    label: str
    family: str
    model: str
    ratio: str | None
    without: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    notes: tuple[str, ...]
    conditions: dict[str, Cell]
    fold_mean: float | None
    fold_std: float | None
    convergence: dict[str, Convergence]
    dev: float
    dev_loss: float
    best_epoch: float

    @property
    def clean(self) -> Cell:
        return self.conditions[str(CLEAN)]

    @property
    def mean(self) -> float:
        return self.clean.mean

    def to_dict(self) -> dict[str, Any]:
        curves = {
            name: {"epochs": c.epochs, "mean": c.mean, "interval": c.interval, "best_epochs": c.best_epochs}
            for name, c in self.convergence.items()
        }
        return {**asdict(self), "convergence": curves}


def make_row(setting: Setting, label: Label, answers: dict[str, Answers]) -> Row:
    """One setting."""
    config, runs = setting.config, setting.runs
    cells: dict[str, Cell] = {}
    for condition, given in answers.items():
        same = next((c for c, other in answers.items() if other is given), condition)
        cells[condition] = cells[same] if same in cells else make_cell(setting, condition, given)
    of_folds = [
        statistics.fmean(run.scores["test"]["accuracy"] for run in runs if run.config.fold == fold)
        for fold in setting.folds
    ]
    return Row(
        label=str(label),
        family=label.family,
        model=config.model,
        ratio=label.ratio,
        without=config.removed,
        seeds=setting.seeds,
        folds=setting.folds,
        notes=setting.notes,
        conditions=cells,
        fold_mean=statistics.fmean(of_folds) if of_folds else None,
        fold_std=statistics.stdev(of_folds) if len(of_folds) > 1 else None,
        convergence=convergences(runs),
        dev=statistics.fmean(run.scores["best"]["dev_accuracy"] for run in runs),
        dev_loss=statistics.fmean(run.scores["best"]["dev_loss"] for run in runs),
        best_epoch=statistics.fmean(run.scores["best"]["epoch"] for run in runs),
    )


def make_cell(setting: Setting, condition: str, answers: Answers) -> Cell:
    labels, right = answers.labels, answers.right
    accuracies = tuple(map(float, right.mean(1)))
    tests = [run.scores_under(condition) for run in setting.runs]
    low, high = interval(bootstrap_mean(right, answers.groups))

    def over_seeds(score: Any, **options: Any) -> float:
        return statistics.fmean(score(labels, p, zero_division=0, **options) for p in answers.predicted)

    macro_f1 = over_seeds(f1_score, average="macro")
    f1_rounds = bootstrap_macro_f1(answers.predicted, labels, answers.groups)
    f1_low, f1_high = interval(centred(f1_rounds, macro_f1))
    return Cell(
        accuracies=accuracies,
        mean=statistics.fmean(accuracies),
        std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        interval=(max(low, 0.0), min(high, 1.0)),
        clips=len(labels),
        groups=len(np.unique(answers.groups)),
        macro_f1=macro_f1,
        macro_f1_interval=(max(f1_low, 0.0), min(f1_high, 1.0)),
        weighted_f1=over_seeds(f1_score, average="weighted"),
        uar=over_seeds(recall_score, average="macro", labels=np.unique(labels)),
        top_k=next((test["top_k"] for test in tests if "top_k" in test), None),
        top_k_accuracy=known_mean(tests, "top_k_accuracy"),
        audio=known_mean(tests, "audio_accuracy"),
        visual=known_mean(tests, "visual_accuracy"),
        audio_alone=known_mean(tests, "audio_alone_accuracy"),
        visual_alone=known_mean(tests, "visual_alone_accuracy"),
        alpha=known_mean(tests, "alpha"),
    )


def convergences(runs: Sequence[Run]) -> dict[str, Convergence]:
    """By curve; see `Row.convergence`."""
    found = {"model": [(run, "dev_accuracy") for run in runs]}
    for modality in ("audio", "visual"):
        if all(modality in run.branches for run in runs):
            before = [branch(run, modality) for run in runs]
            found[modality] = [(run, "dev_accuracy") for run in before if run is not None]
        elif len(takes(runs[0].config.model)) == 2:
            found[modality] = [(run, f"dev_accuracy_{modality}") for run in runs]
    curves = {name: [(curve(*c), dev_clips(c[0])) for c in several] for name, several in found.items()}
    return {
        name: convergence([values for values, _ in several], [clips for _, clips in several])
        for name, several in curves.items()
        if several and all(values for values, _ in several)
    }


def curve(run: Run, key: str) -> list[float]:
    """One number an epoch; empty where the model has no such head."""
    values = [epoch.get(key) for epoch in run.history]
    return [v for v in values if v is not None] if None not in values else []


def dev_clips(run: Run) -> int:
    """How many clips an epoch is judged on; noisy copies count."""
    clips: int = run.scores.get("dev", {}).get("clips", 0)
    return max(clips, 1) * (2 if run.config.augment else 1)


def branch(run: Run, modality: str) -> Run | None:
    """The run that a branch started from; None where its folder is not beside it any more."""
    try:
        return load_run(run.path.parent / run.branches[modality])
    except UsageError:
        return None


def known_mean(tests: Sequence[dict[str, Any]], key: str) -> float | None:
    """The mean over clips of a score of several runs, of those that have it; None where none has."""
    known = [(test[key], test["clips"]) for test in tests if test.get(key) is not None]
    return math.fsum(v * n for v, n in known) / sum(n for _, n in known) if known else None


def mean_alpha(runs: Sequence[Run], condition: str) -> list[float | None] | None:
    """By class, the mean over runs of sound's share under a condition that all were tested under; None without decision weights."""
    tests = [run.scores_under(condition) for run in runs]
    columns = [test["alpha_per_class"] for test in tests if test.get("alpha") is not None]
    if not columns:
        return None
    known = [[a for a in values if a is not None] for values in zip(*columns, strict=True)]
    return [statistics.fmean(values) if values else None for values in known]
