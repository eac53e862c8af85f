"""What `bmla fuse` and `bmla reproduce` share: a store opened and its features loaded, and runs trained on them."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..store.errors import UsageError
from .axes import some
from .options import find_store

if TYPE_CHECKING:
    from ..fuse.condition import Condition
    from ..fuse.config import RunConfig
    from ..fuse.data import Features
    from ..fuse.obtain import Task
    from ..fuse.progress import Progress
    from ..fuse.run import Run
    from ..fuse.sweep import RunsFailed
    from ..store import Store


def shares(configs: "list[RunConfig]", device: str, workers: int | None, threads: int | None) -> tuple[int, int]:
    """Processes and threads of each. They depend on the sweep alone, not on what is left of it: a resumed run is the same."""
    cores = os.cpu_count() or 1
    if device != "cpu":
        return 1, threads or cores
    from ..fuse.sweep import needed

    count = min(workers or cores, len({c for config in configs for c in needed(config)}))
    return count, threads or max(1, cores // count)


def executor_of(executor: str, cluster: str | None, device: str) -> str:
    """A cluster is an executor by itself. Raises UsageError where that does not fit together, before anything is loaded."""
    if cluster is not None:
        if executor not in ("auto", "dask"):
            raise UsageError(f"--cluster {cluster} with --executor {executor}: leave one of them out")
        from ..store.cluster import find_place

        find_place(cluster)
        executor = "dask"
    if executor == "dask" and device != "cpu":
        option = "--executor dask" if cluster is None else f"--cluster {cluster}"
        raise UsageError(f"{option}: workers train on their CPUs: leave out --gpu and --device")
    return executor


def open_named(path: str | None) -> "Store":
    from ..store import open_store

    return open_store(find_store(path))


def local_copy(store: "Store", streams: list[str], quiet: bool) -> "Store":
    """The store itself, or for a remote one its cached shards: $BMLA_CACHE, else ~/.cache/bmla, at most $BMLA_CACHE_GB."""
    if not store.place.remote:
        return store
    from ..store.cache import DEFAULT_LIMIT_BYTES, cached
    from .progress import byte_progress

    folder = Path(os.environ.get("BMLA_CACHE") or Path.home() / ".cache/bmla")
    limit = float(os.environ.get("BMLA_CACHE_GB") or DEFAULT_LIMIT_BYTES / 1e9)
    with byte_progress("fetch", 0, quiet) as bar:
        return cached(store, streams, folder, round(limit * 1e9), bar.begin, bar.advance)


def check_digest(features: "Features", asked: str | None) -> None:
    """Raises UsageError where these are not the features that were asked for."""
    if asked is not None and asked != features.digest:
        raise UsageError(
            f"features {asked[:12]}… were asked for, these are {features.digest[:12]}…: other clips, streams or extraction than "
            "those of that sweep; begin another sweep with --out, or leave --features out"
        )


def check_runs(configs: "list[RunConfig]", features: "Features", folder: Path, executor: str) -> None:
    """Raises UsageError for what can't be trained, or not in this way, before anything is written."""
    from ..fuse import sweep

    sweep.check_runs(configs, features)
    if executor == "stacked":
        from ..fuse.stacked.group import check_stacks

        check_stacks(sweep.missing_runs(configs, features, folder), features)


def sweep_configs(
    models: tuple[str, ...], ratios: tuple[str, ...], streams: dict[str, str], settings: dict[str, Any]
) -> "list[RunConfig]":
    from ..fuse.sweep import grid

    return grid(models, some("--ratio", ratios), **{**settings, **streams})


def load(
    store: "Store",
    streams: dict[str, str],
    noises: list[str],
    models: tuple[str, ...],
    device: str,
    tier: str,
    budget_bytes: int | None,
    quiet: bool,
    folds: int = 0,
) -> "Features":
    from ..fuse.data import features_from_store

    def tell(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    audio, visual = streams.get("audio"), streams.get("visual")
    return features_from_store(
        store,
        audio,
        visual,
        device,
        models=models,
        variants=noises,
        tier=tier,
        budget_bytes=budget_bytes,
        tell=tell,
        folds=folds,
    )


def remarks(streams: dict[str, str], features: "Features", configs: "list[RunConfig]") -> list[str]:
    """What was chosen for the user, on stderr."""
    counts = ", ".join(f"{(features.split == split).sum()} {split}" for split in ("train", "dev", "test"))
    chosen = " + ".join(streams.values())
    line = f"{features.dataset}: {chosen}; clips: {counts}; {len(features.classes)} classes"
    return [line, *features.notes, *front_lines(configs, features), *ratio_lines(configs)]


def front_lines(configs: "list[RunConfig]", features: "Features") -> list[str]:
    """Which streams are read by front ends, and of what size."""
    from ..fuse.models.kinds import VECTORS
    from ..fuse.models.table import entry

    sizes = {
        (features.stream(m).name, c.front_width, c.resnet_depth): None
        for c in configs
        if "front_width" in entry(c.model).reads
        for m in entry(c.model).takes
        if features.stream(m).input.kind != VECTORS
    }
    return [
        f"{name}: through a front end of {k} kernels and ResNet-{depth}, learnt with the model"
        for name, k, depth in sizes
    ]


def leak_remarks(configs: "list[RunConfig]", features: "Features") -> tuple[str, ...]:
    """Streams whose making has seen clips that these runs choose or test with: a line each."""
    from ..fuse.leakage import leak_lines
    from ..fuse.models.table import takes

    modalities = {m for c in configs for m in takes(c.model)}
    splits = dict.fromkeys((c.folds, c.fold, c.fold_by) for c in configs)
    leaks = [leak for split in splits for leak in features.folded(*split).leaks(tuple(modalities))]
    return tuple(f"warning: {line}" for line in leak_lines(leaks))


def ratio_lines(configs: "list[RunConfig]") -> list[str]:
    """The feature lengths of each ratio, and how they were rounded; of the models that look at one."""
    from ..fuse.models.table import entry
    from ..fuse.ratio import describe_widths, parse_ratio

    fused = [c for c in configs if len(entry(c.model).takes) == 2 and "ratio" in entry(c.model).reads]
    return list(dict.fromkeys(describe_widths(parse_ratio(c.ratio), c.width, c.heads, c.ratio_mode) for c in fused))


def outline(configs: "list[RunConfig]", features: "Features", folder: Path) -> str:
    """What the sweep spans, and how much of it is done already."""
    from ..fuse.outline import outline
    from ..fuse.sweep import is_finished, needed

    every = dict.fromkeys(c for config in configs for c in needed(config))
    return outline(configs, list(every), [c for c in every if is_finished(c, features, folder)])


def task_of(
    features: "Features",
    out: Path,
    conditions: "tuple[Condition, ...]",
    device: str,
    store_name: str,
    quiet: bool,
    resume: bool,
) -> "Task":
    """What all runs share."""
    from ..fuse.obtain import Task
    from ..fuse.progress import Progress, StderrProgress

    provenance = {"store": store_name, "command": command_line()}
    return Task(features, out, conditions, device, provenance, Progress() if quiet else StderrProgress(), resume)


def logged(task: "Task", names: tuple[str, ...]) -> "Progress":
    """The progress, which also writes to the logs of these names. Raises UnknownName, UsageError (not installed)."""
    if not names:
        return task.progress
    from ..fuse.logs import Logged, open_logs
    from ..fuse.run import run_name

    logs = open_logs(names, task.out)
    return Logged(task.progress, logs, task.out, lambda config: run_name(config, task.features))


def train(
    configs: "list[RunConfig]",
    task: "Task",
    shares: tuple[int, int],
    executor: str = "auto",
    cluster: str | None = None,
) -> "tuple[list[Run], RunsFailed | None]":
    """The finished runs, and what is to be said of the others when these have been shown."""
    import torch

    from ..fuse.sweep import RunsFailed, train_all

    workers, threads = shares
    torch.set_num_threads(threads)
    try:
        return train_all(configs, task, workers, threads, executor, cluster), None
    except RunsFailed as error:
        return error.runs, error


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["bmla", *sys.argv[1:]])
