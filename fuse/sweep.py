"""Many runs over the same features: models x ratios x balance methods x seeds, by one of these executors:

    processes   runs side by side, each in a process of few threads (`workers.py`); with one worker, in this process
    stacked     runs of one architecture in lockstep, in this process (`stacked/`)
    dask        runs on a cluster's workers (`cluster.py`)
    auto        processes or stacked, whichever a few measured steps say is quicker (`planner.py`); what does not stack goes to processes

The single-modality models that BalanceMLA starts from, or that a balance method learns from, are runs as well, kept in the same
folder: every run of the sweep that can share them does, and so does the next sweep.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..store.errors import BmlaError, UnknownName, UsageError
from .condition import Condition
from .config import PARTS, RunConfig
from .data import Features
from .learner import clips_of, set_apart
from .models.table import takes
from .obtain import Task, is_finished, obtain
from .planner import plan
from .prerequisites import prerequisites
from .progress import Progress, describe, work
from .recipes import run_config
from .run import Run, run_name
from .stacked.executor import divided, run_stacks
from .stacked.group import check_stacks
from .standing import Diverged
from .workers import run_parallel

EXECUTORS = ("auto", "processes", "stacked", "dask")


def grid(
    models: Sequence[str],
    ratios: Sequence[str],
    seeds: Sequence[int],
    removals: Sequence[Sequence[str]] = ((),),
    balances: Sequence[str] = ("none",),
    augmentations: Sequence[Sequence[str]] = ((),),
    folds: int = 0,
    fold_numbers: Sequence[int] = (0,),
    **wishes: Any,
) -> list[RunConfig]:
    """The runs of a sweep, each once: a model of one modality has no ratio, no parts and nothing to balance, so it stands once a seed.

    Args:
        removals: parts of BalanceMLA to do without; each entry is a setting of its own.
        balances: balance methods; each is a setting of its own.
        augmentations: noise variants to train with; each entry is a setting of its own.
        folds, fold_numbers: of a cross-validation, and which of its folds; 0 and (0,): the store's own splits.
        wishes: see `recipes.run_config`.
    """
    configs = [
        run_config(
            model,
            ratio="1:1" if len(takes(model)) == 1 else ratio,
            seed=seed,
            balance=balance,
            augment=tuple(augment),
            folds=folds,
            fold=fold,
            **{**wishes, **{part: part not in removed for part in PARTS}},
        )
        for model in models
        for balance in (balances if len(takes(model)) == 2 else ("none",))
        for removed in removals
        for augment in augmentations
        for ratio in ratios
        for fold in fold_numbers
        for seed in seeds
    ]
    return list(dict.fromkeys(configs))


class RunsFailed(BmlaError):
    """Some runs of a sweep could not be trained; all others are done.

    Attributes:
        runs: the finished ones, in the order asked for.
        failed: what went wrong, by configuration.
    """

    def __init__(self, runs: list[Run], failed: Mapping[RunConfig, str]):
        lines = "".join(f"\n  {describe(config)}: {what}" for config, what in failed.items())
        super().__init__(f"{len(failed)} of {len(failed) + len(runs)} runs failed:{lines}")
        self.runs, self.failed = runs, dict(failed)


def run_sweep(
    configs: Sequence[RunConfig],
    features: Features,
    out: Path,
    *,
    conditions: Sequence[Condition] = (),
    device: torch.device | str = "cpu",
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    workers: int = 1,
    threads: int = 1,
    executor: str = "processes",
    cluster: str | None = None,
) -> list[Run]:
    """Trains and tests what is not there yet, and returns all runs in the order asked for.

    Args:
        out: folder of the runs.
        conditions: that every run is tested under, besides clean.
        device: where the features are.
        workers: processes that train side by side, on a CPU; 1: this one, with as many threads as torch is set to.
        threads: of each worker.
        executor: of EXECUTORS; see the module.
        cluster: of executor dask: "local:N" or a scheduler's address; None: as many local workers as `workers`.
        provenance: more keys for each run's config.json.

    Raises:
        UnknownName: there is no such executor.
        UsageError: no configuration; executor stacked, and a run that does not stack; or as `train`, before anything is trained where
            it can be told.
        RunsFailed: some could not be trained (their loss became NaN); raised when all others are done.
    """
    task = Task(features, out, tuple(conditions), device, dict(provenance or {}), progress or Progress())
    return train_all(configs, task, workers, threads, executor, cluster)


def train_all(
    configs: Sequence[RunConfig],
    task: Task,
    workers: int = 1,
    threads: int = 1,
    executor: str = "processes",
    cluster: str | None = None,
) -> list[Run]:
    """As `run_sweep`."""
    if executor not in EXECUTORS:
        raise UnknownName("executor", executor, EXECUTORS)
    if not configs:
        raise UsageError("a sweep of no runs: give at least one model, ratio and seed")
    task = replace(task, asked=frozenset(configs))
    features, out = task.features, task.out
    missing = missing_runs(configs, features, out)
    untested = [c for c in dict.fromkeys(configs) if c not in missing and task.untested(c)]
    check_runs([*configs, *missing], features)
    if executor == "stacked":
        check_stacks(missing, features)
    reused = [c for c in dict.fromkeys(configs) if c not in missing]
    planned = plan(missing, task, workers, threads, executor)
    task.progress.plan(planned.lines)
    task.progress.begin(sum(work(c) for c in missing), reused=[run_name(c, features) for c in reused])
    failed: dict[RunConfig, str] = {}
    try:
        if planned.executor == "dask" and missing:
            from .cluster import run_on_cluster  # Dask is slow to import

            failed = run_on_cluster(missing, task, cluster or f"local:{workers}")
        elif planned.executor == "stacked":
            for wave in waves_of(missing):
                failed |= train_stacked(wave, task, workers, threads, failed)
        elif workers > 1 and len(missing) + len(untested) > 1:
            count = min(workers, len(missing) + len(untested))
            failed = run_parallel([*missing, *untested], task, count, threads)
        runs = []
        for config in configs:
            if broken := [failed[c] for c in needed(config) if c in failed]:
                failed[config] = broken[0]
                continue
            try:
                runs.append(obtain(config, task))
            except Diverged as error:
                failed[config] = str(error)
    finally:
        task.progress.end()
    if failed:
        raise RunsFailed(runs, {c: failed[c] for c in configs if c in failed})
    return runs


def train_stacked(
    wave: Sequence[RunConfig], task: Task, workers: int, threads: int, failed: Mapping[RunConfig, str]
) -> dict[RunConfig, str]:
    """Runs that do not depend on each other: what stacks in stacks, on all cores, the others in processes."""
    groups, others, reasons = divided(wave, task.features, task.device)
    for reason in reasons:
        task.progress.say(f"{reason}: does not stack, trained in processes")
    torch.set_num_threads(threads * workers)
    try:
        wrong = run_stacks(groups, task, failed)
    finally:
        torch.set_num_threads(threads)
    if workers > 1 and len(others) > 1:
        wrong |= run_parallel(others, task, min(workers, len(others)), threads, failed)
    return wrong  # what is left is trained by whoever asks for it


def missing_runs(configs: Iterable[RunConfig], features: Features, out: Path) -> list[RunConfig]:
    """Those that are to be trained, with those that they need, each once."""
    every = dict.fromkeys(c for config in configs for c in needed(config))
    return [c for c in every if not is_finished(c, features, out)]


def waves_of(configs: Iterable[RunConfig]) -> tuple[list[RunConfig], list[RunConfig]]:
    """Those that start from nothing, and then those that start or learn from others."""
    waves: tuple[list[RunConfig], list[RunConfig]] = ([], [])
    for config in configs:
        waves[bool(prerequisites(config))].append(config)
    return waves


def check_runs(configs: Iterable[RunConfig], features: Features) -> None:
    """Raises UsageError where a run can't be trained on these features: what can be told before anything is trained."""
    for config in dict.fromkeys(configs):
        folded = features.folded(config.folds, config.fold, config.fold_by)
        for split in ("train", "dev", "test"):
            clips = clips_of(folded, split, config)
            if split == "train":
                set_apart(clips, features, config)


def needed(config: RunConfig) -> Iterable[RunConfig]:
    """A run and those that it starts or learns from."""
    return (*prerequisites(config), config)
