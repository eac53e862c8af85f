"""What runs found: runs of the same setting joined over seeds and folds, under every condition, with intervals and paired tests.

Everything is computed from the kept test predictions, so any table can be made again. The best setting is chosen by its mean
accuracy on dev, never on test. Seeds are joined as repetitions; folds are joined end to end, so that every clip is a test clip once.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, recall_score

from ..store.errors import UsageError
from .answers import Answers, difference, join, mcnemar_p, permutation_p, shared
from .condition import CLEAN, parse_condition
from .convergence import Convergence, convergence
from .models.table import takes
from .optimum import Contribution, Optimum, Worth, alone_under, audio_share, loss_worth, optimum, shapley_worth
from .run import Run, load_run
from .settings import Label, Setting, labels, settings_of
from .statistics import Interval, bootstrap_macro_f1, bootstrap_mean, centred, holm, interval

FALSE_ALARM = 0.05
BALANCED = "1:1"
DECIBELS = ("white", "babble", "file")  # noise whose number is a signal-to-noise ratio: less is worse


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


@dataclass(frozen=True)
class Pair:
    """Two settings on the same clips under one condition. p-values are two-sided; what each can be trusted with: `statistics.py`.

    Attributes:
        a, b: indices of rows.
        clips, groups: that both were tested on.
        seeds: compared with each other.
        difference: in mean accuracy, a - b; interval: 95 %.
        mcnemar: all seeds pooled; mcnemar_each: of each of `compared`.
        compared: the seeds, ascending; those of `a` where the two have none in common.
        permutation: whole recordings swapped.
        holm: `permutation`, corrected for all pairs and conditions of the table.
    """

    a: int
    b: int
    condition: str
    clips: int
    groups: int
    seeds: int
    difference: float
    interval: Interval
    mcnemar: float
    mcnemar_each: tuple[float, ...]
    compared: tuple[int, ...]
    permutation: float
    holm: float = math.nan

    @property
    def mcnemar_seeds(self) -> Interval:
        """The least and the greatest of single seeds."""
        return min(self.mcnemar_each), max(self.mcnemar_each)

    @property
    def told_apart(self) -> bool:
        return self.holm < FALSE_ALARM


@dataclass(frozen=True)
class Summary:
    """See the module.

    Attributes:
        rows: in the order of the runs; settings[i]: that of rows[i].
        conditions: all that any row was tested under, "clean" first.
        best: index of the best row, by dev.
        rivals: indices of the rows that the test clips do not tell from the best: the interval of the difference has zero in it.
        pairs: see `summarise`.
        contributions: one for each family of settings of two modalities and each condition.
    """

    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    conditions: tuple[str, ...]
    best: int
    rivals: tuple[int, ...]
    pairs: tuple[Pair, ...]
    contributions: tuple[Contribution, ...]

    @property
    def runs(self) -> tuple[tuple[Run, ...], ...]:
        """Those of each row."""
        return tuple(setting.runs for setting in self.settings)

    @cached_property
    def best_run(self) -> Run:
        """Of the best row, the run with the best epoch on dev."""
        return max(self.runs[self.best], key=dev_rank)

    @property
    def best_weighted_run(self) -> Run | None:
        """Of all runs with decision weights, that with the best epoch on dev; None where no model has any."""
        weighted = [run for runs in self.runs for run in runs if run.scores["test"]["alpha"] is not None]
        return max(weighted, key=dev_rank, default=None)

    @property
    def optima(self) -> list[Optimum]:
        """The best ratios under clean conditions."""
        found = [c.optimum for c in self.contributions if c.condition == str(CLEAN)]
        return [o for o in found if o is not None]


def summarise(runs: Sequence[Run], all_pairs: bool = False, under: Collection[str] | None = None) -> Summary:
    """Joins runs; at least one.

    Args:
        under: the conditions besides clean that are asked about; None: all that any run was tested under.
        all_pairs: compare every setting with every other; else the best one with each.

    Raises:
        UsageError: runs of one setting were tested on other clips.
        RunDamaged: predictions can't be read.
    """
    settings = settings_of(runs)
    names = labels(settings)
    conditions = conditions_of(runs)
    if under is not None:
        conditions = tuple(c for c in conditions if c == str(CLEAN) or c in under)
    answers = [answers_of(s, str(n), conditions) for s, n in zip(settings, names, strict=True)]
    rows = tuple(make_row(s, n, a) for s, n, a in zip(settings, names, answers, strict=True))
    best = max(range(len(rows)), key=lambda i: (rows[i].dev, -rows[i].dev_loss))
    against = [(best, i) for i in range(len(rows)) if i != best]
    if all_pairs:
        against += [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows)) if best not in (i, j)]
    pairs = make_pairs(against, answers, conditions)
    rivals = tuple(p.b for p in pairs if p.a == best and p.condition == str(CLEAN) and p.interval[0] <= 0)
    contributions = contributions_of(rows, settings, answers, conditions)
    return Summary(rows, tuple(settings), conditions, best, rivals, pairs, contributions)


def dev_rank(run: Run) -> tuple[float, float]:
    """The better run on dev has the greater rank."""
    return run.scores["best"]["dev_accuracy"], -run.scores["best"]["dev_loss"]


def conditions_of(runs: Iterable[Run]) -> tuple[str, ...]:
    """All conditions that any run was tested under: clean, noise by name and strength, hidden modalities last."""
    found = {name for run in runs for name in run.conditions}

    def order(name: str) -> tuple[Any, ...]:
        condition = parse_condition(name)
        kinds = [(v.partition("=")[0], strength(v)) for v in condition.variants]
        return bool(condition.hidden), len(condition.variants), kinds, name

    return tuple(sorted(found, key=order))


def strength(variant: str) -> float:
    """How bad a noise variant is, to sort by: the last number in its name, of a ratio in dB its negative."""
    kind, _, value = variant.rpartition("@")[2].rpartition(",")[2].partition("=")
    try:
        return -float(value) if kind in DECIBELS else float(value)
    except ValueError:
        return 0.0


def noise_series(conditions: Sequence[str]) -> dict[str, list[tuple[float, str]]]:
    """By stream and kind of noise: number and condition, the mildest first; of conditions with one noise and all modalities."""
    series: dict[str, list[tuple[float, str]]] = {}
    for name in conditions:
        condition = parse_condition(name)
        stream, _, value = name.partition("=")
        if len(condition.variants) == 1 and not condition.hidden and "," not in value:
            with suppress(ValueError):
                series.setdefault(stream, []).append((float(value), name))
    return {stream: sorted(points, key=lambda p: strength(p[1])) for stream, points in series.items()}


def answers_of(setting: Setting, name: str, conditions: Sequence[str]) -> dict[str, Answers]:
    """By condition, without those that some of the setting's runs were not tested under."""
    found: dict[str, Answers] = {}
    own: dict[tuple[str, ...], Answers] = {}
    tested = [set(run.conditions) for run in setting.runs]
    for condition in conditions:
        names = tuple(run.own_name(condition) for run in setting.runs)
        if any(mine not in there for mine, there in zip(names, tested, strict=True)):
            continue
        if names not in own:
            predictions = {
                seed: [run.predictions_under(condition) for run in runs] for seed, runs in setting.by_seed.items()
            }
            own[names] = join(predictions, name)
        found[condition] = own[names]
    return found


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


def make_pairs(
    against: Sequence[tuple[int, int]], answers: Sequence[dict[str, Answers]], conditions: Sequence[str]
) -> tuple[Pair, ...]:
    """Every pair under every condition that both were tested under; condition by condition."""
    pairs = [
        pair
        for condition in conditions
        for a, b in against
        if condition in answers[a] and condition in answers[b]
        if (pair := make_pair(a, b, condition, answers[a][condition], answers[b][condition])) is not None
    ]
    corrected = holm([pair.permutation for pair in pairs])
    return tuple(replace(pair, holm=p) for pair, p in zip(pairs, corrected, strict=True))


def make_pair(a: int, b: int, condition: str, of_a: Answers, of_b: Answers) -> Pair | None:
    """None where they share no clip."""
    both = shared(of_a, of_b)
    if both is None:
        return None
    values, groups = difference(*both), both[0].groups
    return Pair(
        a,
        b,
        condition,
        clips=values.shape[1],
        groups=len(np.unique(groups)),
        seeds=len(values),
        difference=float(values.mean()),
        interval=interval(bootstrap_mean(values, groups)),
        mcnemar=mcnemar_p(values),
        mcnemar_each=tuple(mcnemar_p(row) for row in values),
        compared=both[0].seeds,
        permutation=permutation_p(values, groups),
    )


def contributions_of(
    rows: Sequence[Row], settings: Sequence[Setting], answers: Sequence[dict[str, Answers]], conditions: Sequence[str]
) -> tuple[Contribution, ...]:
    """Of each family of settings of two modalities, under each condition in which both are shown."""
    families: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if len(takes(row.model)) == 2:
            families.setdefault(row.family, []).append(i)
    found = []
    for family, members in families.items():
        for condition in (c for c in conditions if not parse_condition(c).hidden):
            there = [i for i in members if condition in answers[i]]
            if not there:
                continue
            asked = min(there, key=lambda i: abs(audio_share(rows[i].ratio or BALANCED) - 0.5))
            ratios = {r: answers[i][condition] for i in there if (r := rows[i].ratio) is not None}
            best = optimum(family, condition, ratios)
            shapley, loss = worths(settings[asked], answers[asked], condition)
            found.append(Contribution(family, condition, rows[asked].label, best, shapley, loss))
    return tuple(found)


def worths(setting: Setting, answers: dict[str, Answers], condition: str) -> tuple[Worth | None, Worth | None]:
    """Shapley values and losses of a setting; None where it was not tested with each modality alone."""
    streams = setting.runs[0].streams
    alone = [str(alone_under(parse_condition(condition), m, streams)) for m in ("audio", "visual")]
    if any(name not in answers for name in alone):
        return None, None
    given = answers[condition], answers[alone[0]], answers[alone[1]]
    return shapley_worth(*given), loss_worth(*given)


def known_mean(tests: Sequence[dict[str, Any]], key: str) -> float | None:
    """The mean over clips of a score of several runs, of those that have it; None where none has."""
    known = [(test[key], test["clips"]) for test in tests if test.get(key) is not None]
    return math.fsum(v * n for v, n in known) / sum(n for _, n in known) if known else None
