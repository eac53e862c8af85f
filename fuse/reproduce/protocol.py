"""An experiment as runs: the configurations of each arm, the arms that a store lacks streams for, and the row that stands for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...store.errors import UsageError
from ..condition import CLEAN, Condition, noise_series, parse_condition
from ..config import RunConfig
from ..models.base import MODALITIES
from ..models.table import MODELS
from ..rows import Row
from ..run import Run
from ..summary import Summary, summarise
from ..sweep import grid
from .experiments import Arm, Experiment

MASK = "mask"


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        arms: those that can be run, and their configurations.
        missing: label and reason of the others.
    """

    experiment: Experiment
    arms: tuple[tuple[Arm, tuple[RunConfig, ...]], ...]
    missing: tuple[tuple[str, str], ...]

    @property
    def configs(self) -> list[RunConfig]:
        """Of all arms, each once."""
        return list(dict.fromkeys(c for _, configs in self.arms for c in configs))


@dataclass(frozen=True)
class Outcome:
    """What was found.

    Attributes:
        rows: the row that stands for each arm: of several ratios, the best on dev. An arm none of whose runs finished has none.
        protocol: "exact" or "proxy" where sound was masked, else empty.
    """

    plan: Plan
    summary: Summary
    rows: tuple[tuple[Arm, int], ...]
    protocol: str

    def row(self, index: int) -> Row:
        return self.summary.rows[index]


def plan(
    experiment: Experiment,
    streams: Mapping[str, str],
    there: Sequence[str],
    *,
    seeds: Sequence[int],
    folds: int = 0,
    fold_numbers: Sequence[int] = (0,),
    **wishes: Any,
) -> Plan:
    """Spans an experiment.

    Args:
        streams: by modality, what arms without streams of their own are trained on.
        there: names of all streams of the store.
        wishes: see `recipes.run_config`.

    Raises:
        UsageError: no arm can be run; says why.
    """
    arms, missing = [], []
    for arm in experiment.arms:
        preferred = {m: name for m, name in arm.preferred.items() if name in there}
        used = {**streams, **preferred, **arm.streams}
        if lacking := [name for m, name in used.items() if m in MODELS[arm.model].takes and name not in there]:
            missing.append((arm.label, f"the store has no stream {' or '.join(lacking)}"))
        else:
            axes: dict[str, Any] = dict(seeds=seeds, removals=[arm.without], folds=folds, fold_numbers=fold_numbers)
            arms.append((arm, tuple(grid([arm.model], arm.ratios, **axes, **{**wishes, **used}))))
    if not arms:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in missing)
        raise UsageError(f"no arm of this experiment can be run: {reasons}")
    return Plan(experiment, tuple(arms), tuple(missing))


def masks(stream: str, there: Sequence[str]) -> list[str]:
    """The store's variants of a stream with masked sound, mildest first; empty where it has none."""
    return [name for _, name in noise_series([s for s in there if "@" in s]).get(f"{stream}@{MASK}", [])]


def conditions_of(experiment: Experiment, masks: Sequence[str]) -> tuple[Condition, ...]:
    """What every arm is tested under besides clean.

    Args:
        masks: names of the masked versions of the sound.
    """
    names = [*masks, *((f"no-{m}" for m in MODALITIES) if experiment.hidden else ())]
    return tuple(parse_condition(name) for name in names)


def outcome(plan: Plan, runs: Sequence[Run], conditions: Sequence[Condition] = (), protocol: str = "") -> Outcome:
    """Joins the finished runs and finds the row of each arm. What they were tested under for other experiments is not looked at."""
    summary = summarise(runs, under=[str(c) for c in conditions])
    rows = []
    for arm, configs in plan.arms:
        mine = {replace(config, seed=0, fold=0) for config in configs}
        found = [i for i, setting in enumerate(summary.settings) if setting.config in mine]
        if found:
            best = max(found, key=lambda i: (summary.rows[i].dev, -summary.rows[i].dev_loss))
            rows.append((arm, best))
    return Outcome(plan, summary, tuple(rows), protocol)


def curve_of_masks(row: Row) -> list[tuple[float, str]]:
    """Mask factor and condition, from none on: the exact masks or the proxies that a row was tested under."""
    series = noise_series(tuple(row.conditions))
    found = next((points for kind, points in series.items() if kind.endswith(MASK)), [])
    return [(0.0, str(CLEAN)), *found]
