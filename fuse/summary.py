"""What a sweep found: runs of the same setting joined over seeds, with the spread and a confidence interval.

The interval is a bootstrap over seeds *and* test clips (whole recordings): with three seeds, the spread between seeds alone says
little. The best setting is chosen by its mean accuracy on dev, never on test.

Shape legend: s seeds, g groups of test clips, r bootstrap rounds.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .models.table import takes
from .ratio import parse_ratio
from .run import Run

ROUNDS = 2000
CHUNK_ROUNDS = 100
BOOTSTRAP_SEED = 0
INTERVAL = (2.5, 97.5)  # per cent


@dataclass(frozen=True)
class Row:
    """One setting over its seeds.

    Attributes:
        model, ratio, without, balance: the setting; ratio None for models of one modality.
        seeds: ascending.
        accuracies: on test, one a seed.
        mean, std: of the accuracies; std None for one seed.
        interval: 95 % of the bootstrap's means.
        clips: test clips.
        macro_f1, weighted_f1, uar: means over seeds.
        audio, visual: mean accuracy of the branches' own heads; audio_alone, visual_alone with BRFF off; None where there is none.
        alpha: mean share of audio.
        dev: mean accuracy on dev at the chosen epochs; dev_loss: mean loss there.
        best_epoch: mean of the chosen epochs.
    """

    model: str
    ratio: str | None
    without: tuple[str, ...]
    balance: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    mean: float
    std: float | None
    interval: tuple[float, float]
    clips: int
    macro_f1: float
    weighted_f1: float
    uar: float
    audio: float | None
    visual: float | None
    audio_alone: float | None
    visual_alone: float | None
    alpha: float | None
    dev: float
    dev_loss: float
    best_epoch: float

    @property
    def label(self) -> str:
        without = f" without {', '.join(self.without)}" if self.without else ""
        balance = f" + {self.balance}" if self.balance != "none" else ""
        return f"{self.model}{without}{balance}{f' {self.ratio}' if self.ratio else ''}"

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.label, **asdict(self)}


@dataclass(frozen=True)
class Summary:
    """See the module.

    Attributes:
        rows: in the order of the sweep; runs[i]: those of rows[i], by seed.
        best: index of the best row, by dev.
        rivals: indices of the rows that are at least as good as the best one in more than 2.5 % of the bootstrap's rounds; where
            settings were tested on the same clips, a round draws the same clips for both.
        ratio_shares: for each model with several ratios: in which share of the bootstrap rounds each ratio was the best.
    """

    rows: tuple[Row, ...]
    runs: tuple[tuple[Run, ...], ...]
    best: int
    rivals: tuple[int, ...]
    ratio_shares: dict[str, dict[str, float]]

    @property
    def best_run(self) -> Run:
        """Of the best row, the run with the best epoch on dev."""
        return max(self.runs[self.best], key=dev_rank)

    @property
    def best_weighted_run(self) -> Run | None:
        """Of all runs with decision weights, that with the best epoch on dev; None where no model has any."""
        weighted = [run for runs in self.runs for run in runs if run.scores["test"]["alpha"] is not None]
        return max(weighted, key=dev_rank, default=None)


def summarise(runs: Sequence[Run]) -> Summary:
    """Joins the runs of a sweep; at least one."""
    settings: dict[Any, list[Run]] = {}
    for run in runs:
        settings.setdefault(replace(run.config, seed=0), []).append(run)
    grouped = tuple(tuple(sorted(group, key=lambda r: r.config.seed)) for group in settings.values())
    means = [bootstrap_means(group) for group in grouped]
    rows = tuple(make_row(group, m) for group, m in zip(grouped, means, strict=True))
    best = max(range(len(rows)), key=lambda i: (rows[i].dev, -rows[i].dev_loss))
    rivals = tuple(i for i in range(len(rows)) if i != best and (means[i] >= means[best]).mean() > INTERVAL[0] / 100)
    return Summary(rows, grouped, best, rivals, ratio_shares(rows, means))


def dev_rank(run: Run) -> tuple[float, float]:
    """The better run on dev has the greater rank."""
    return run.scores["best"]["dev_accuracy"], -run.scores["best"]["dev_loss"]


def make_row(runs: Sequence[Run], means: np.ndarray) -> Row:
    """One setting: its runs, one a seed."""
    config = runs[0].config
    tests = [run.scores["test"] for run in runs]
    accuracies = tuple(test["accuracy"] for test in tests)
    low, high = np.percentile(means, INTERVAL)
    return Row(
        model=config.model,
        ratio=config.ratio if len(takes(config.model)) == 2 else None,
        without=config.removed,
        balance=config.balance,
        seeds=tuple(run.config.seed for run in runs),
        accuracies=accuracies,
        mean=statistics.fmean(accuracies),
        std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        interval=(float(low), float(high)),
        clips=tests[0]["clips"],
        **{name: statistics.fmean(test[name] for test in tests) for name in ("macro_f1", "weighted_f1", "uar")},
        audio=known_mean(test["audio_accuracy"] for test in tests),
        visual=known_mean(test["visual_accuracy"] for test in tests),
        audio_alone=known_mean(test["audio_alone_accuracy"] for test in tests),
        visual_alone=known_mean(test["visual_alone_accuracy"] for test in tests),
        alpha=known_mean(test["alpha"] for test in tests),
        dev=statistics.fmean(run.scores["best"]["dev_accuracy"] for run in runs),
        dev_loss=statistics.fmean(run.scores["best"]["dev_loss"] for run in runs),
        best_epoch=statistics.fmean(run.scores["best"]["epoch"] for run in runs),
    )


def bootstrap_means(runs: Sequence[Run]) -> np.ndarray:
    """(r,) mean accuracy over resampled seeds and groups of test clips.

    All settings of a sweep draw the same groups in the same round, so that rounds can be compared between settings.
    """
    _, group = np.unique(runs[0].predictions.groups.astype(str), return_inverse=True)
    sizes = np.bincount(group).astype(np.float64)
    right = np.stack(
        [np.bincount(group, run.predictions.predicted == run.predictions.labels) for run in runs]
    )  # (s, g)
    g = len(sizes)
    rows = np.arange(CHUNK_ROUNDS)[:, None] * g
    draw_groups, draw_seeds = (np.random.default_rng([BOOTSTRAP_SEED, stage]) for stage in (0, 1))
    means = []
    for _ in range(ROUNDS // CHUNK_ROUNDS):
        drawn = draw_groups.integers(g, size=(CHUNK_ROUNDS, g)) + rows
        counts = np.bincount(drawn.ravel(), minlength=CHUNK_ROUNDS * g).reshape(CHUNK_ROUNDS, g).astype(np.float64)
        accuracy = (counts @ right.T) / (counts @ sizes)[:, None]  # (r, s)
        seeds = draw_seeds.integers(len(runs), size=accuracy.shape)
        means.append(np.take_along_axis(accuracy, seeds, 1).mean(1))
    return np.concatenate(means)


def ratio_shares(rows: Sequence[Row], means: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """How often each ratio of a model is the best of its ratios; a round that several win is shared among them.

    Only models with several ratios that were tested on the same number of clips and with as many seeds.
    """
    models: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.ratio is not None:
            models.setdefault(row.label.removesuffix(f" {row.ratio}"), []).append(i)
    result = {}
    for model, indices in models.items():
        if len(indices) < 2 or len({(rows[i].clips, len(rows[i].seeds)) for i in indices}) > 1:
            continue
        if len({rows[i].ratio for i in indices}) < len(indices):
            continue  # settings that differ in more than the ratio
        indices = sorted(indices, key=lambda i: as_number(rows[i].ratio))
        table = np.stack([means[i] for i in indices])
        wins = table == table.max(0)
        shares = (wins / wins.sum(0)).mean(1)
        result[model] = {str(rows[i].ratio): float(share) for i, share in zip(indices, shares, strict=True)}
    return result


def as_number(ratio: str | None) -> float:
    """Audio over visual."""
    parts = parse_ratio(ratio or "1:1")
    return parts.audio / parts.visual


def known_mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None where none is."""
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None
