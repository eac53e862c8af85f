"""What runs found: runs of the same setting joined over seeds and folds, under every condition, with intervals and paired tests.

Everything is computed from the kept test predictions, so any table can be made again. The best setting is chosen by its mean
accuracy on dev, never on test. Seeds are joined as repetitions; folds are joined end to end, so that every clip is a test clip once.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .answers import Answers, join
from .condition import CLEAN, parse_condition, place_in_table
from .models.table import takes
from .optimum import Contribution, Optimum, Worth, alone_under, audio_share, loss_worth, optimum, shapley_worth
from .pairs import Pair, make_pairs
from .rows import Row, make_row
from .run import Run
from .settings import Setting, labels, settings_of

BALANCED = "1:1"


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
    return tuple(sorted({name for run in runs for name in run.conditions}, key=place_in_table))


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
