"""Runs put together as settings: everything in the configuration but seed and fold; and what to call each of them.

A label says what differs: the model, what was taken away from it, its balance method and its ratio always; any other field only
where two settings would be called the same without it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .config import PARTS, RunConfig
from .leakage import leak_lines
from .models.table import entry
from .run import Run

NAMED = ("model", "ratio", "balance", *PARTS)  # what every label tells; the ratio only of models that have one
SHORT = 3  # so many noise variants are named, more are counted
DIGEST = "features"
DIGEST_LETTERS = 8


@dataclass(frozen=True)
class Setting:
    """One setting and its runs.

    Attributes:
        config: with seed and fold 0.
        digest: of the features.
        runs: by seed, then fold; every seed has the same folds.
        notes: what was left out, and folds that are missing.
    """

    config: RunConfig
    digest: str
    runs: tuple[Run, ...]
    notes: tuple[str, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(run.config.seed for run in self.runs))

    @property
    def folds(self) -> tuple[int, ...]:
        """Ascending; empty without cross-validation."""
        return tuple(sorted({run.config.fold for run in self.runs})) if self.config.folds else ()

    @property
    def by_seed(self) -> dict[int, list[Run]]:
        """The runs of each seed, by fold."""
        return {seed: [run for run in self.runs if run.config.seed == seed] for seed in self.seeds}

    @property
    def ratio(self) -> str | None:
        """None for models of one modality, and for those that have none."""
        found = entry(self.config.model)
        return self.config.ratio if len(found.takes) == 2 and "ratio" in found.reads else None


@dataclass(frozen=True)
class Label:
    """What a setting is called.

    Attributes:
        family: the same for settings that differ in their ratio alone.
        ratio: None for models without one.
    """

    family: str
    ratio: str | None

    def __str__(self) -> str:
        return f"{self.family} {self.ratio}" if self.ratio else self.family


def settings_of(runs: Sequence[Run]) -> list[Setting]:
    """In the order in which they come; a run that is given twice counts once."""
    groups: dict[tuple[RunConfig, str], dict[tuple[int, int], Run]] = {}
    for run in runs:
        key = replace(run.config, seed=0, fold=0), str(run.document.get("features", {}).get("digest", ""))
        groups.setdefault(key, {}).setdefault((run.config.seed, run.config.fold), run)
    return [setting(config, digest, found) for (config, digest), found in groups.items()]


def setting(config: RunConfig, digest: str, found: dict[tuple[int, int], Run]) -> Setting:
    """Keeps the seeds that have all folds which any seed has most of: only these are tested on the same clips."""
    folds: dict[int, tuple[int, ...]] = {}
    for seed, fold in sorted(found):
        folds[seed] = (*folds.get(seed, ()), fold)
    kept = max(Counter(folds.values()).items(), key=lambda item: (len(item[0]), item[1], item[0]))[0]
    dropped = [seed for seed, own in folds.items() if own != kept]
    notes = []
    if dropped:
        notes.append(f"seeds {listed(dropped)} are left out: they lack folds that others have")
    if config.folds > len(kept):
        missing = sorted(set(range(config.folds)) - set(kept))
        notes.append(f"folds {listed(missing)} of {config.folds} are missing: not every clip was a test clip")
    runs = tuple(run for (seed, _), run in sorted(found.items()) if seed not in dropped)
    of_folds = {run.config.fold: run for run in runs}  # of one seed: the splits of the others are the same
    notes += leak_lines(leak for run in of_folds.values() for leak in run.leaks)
    return Setting(config, digest, runs, tuple(notes))


def labels(settings: Sequence[Setting]) -> list[Label]:
    """One each; no two are the same."""
    first = [Label(plain_name(s.config), s.ratio) for s in settings]
    for full in (False, True):
        found = [
            with_details(s, label, [t for t, other in zip(settings, first, strict=True) if other == label], full)
            for s, label in zip(settings, first, strict=True)
        ]
        if len(set(found)) == len(found):
            break
    return found


def plain_name(config: RunConfig) -> str:
    """Model, balance method, what was taken away, and the tasks that it was trained on."""
    balance = f"+{config.balance}" if config.balance != "none" else ""
    without = f" without {', '.join(config.removed)}" if config.removed else ""
    return f"{config.model}{balance}{without}{config.told_tasks}"


def with_details(setting: Setting, label: Label, namesakes: Sequence[Setting], full: bool) -> Label:
    """The label with the fields in which a setting's namesakes differ."""
    mine, all_of_them = facts(setting), [facts(s) for s in namesakes]
    differing = [name for name in mine if any(other.get(name, mine[name]) != mine[name] for other in all_of_them)]
    if not differing:
        return label
    details = ", ".join(detail(name, mine[name], full) for name in differing)
    return replace(label, family=f"{label.family} [{details}]")


def facts(setting: Setting) -> dict[str, Any]:
    untold = {name for name in NAMED if name != "ratio" or setting.ratio is not None} | {"seed", "fold"}
    if not setting.config.augment:
        untold.add("noise_share")
    fields = {k: v for k, v in setting.config.to_dict().items() if k not in untold}
    return {**fields, DIGEST: setting.digest}


def detail(name: str, value: Any, full: bool) -> str:
    """A field and its value in a few words."""
    words = name.replace("_", " ")
    if name == DIGEST:
        return f"{words} {value[:DIGEST_LETTERS]}"
    if isinstance(value, list):
        if not value:
            return f"no {words}"
        if len(value) > SHORT and not full:
            return f"{words} {len(value)} variants"
        return f"{words} {' '.join(v if full else v.partition('@')[2] or v for v in value)}"
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
