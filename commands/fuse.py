"""`bmla fuse`: a feature store -> trained fusion models, their scores and a report."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .axes import (
    check_balances,
    check_models,
    fold_numbers,
    needed_modalities,
    noises_of,
    removed_parts,
    seed_numbers,
    set_values,
    test_conditions,
    training_noises,
)
from .options import byte_count, device_of, device_options, find_store, remote_options, split_names
from .settings import setting_options

if TYPE_CHECKING:
    from ..fuse.condition import Condition
    from ..fuse.config import RunConfig
    from ..fuse.data import Features
    from ..fuse.obtain import Task
    from ..fuse.run import Run
    from ..fuse.summary import Summary
    from ..fuse.sweep import RunsFailed
    from ..store import Store

EXAMPLES = """\b
Examples:
  bmla fuse                                            BalanceMLA on the only store here
  bmla fuse --ratio 1:2 --gpu 0
  bmla fuse --model transformer --ratio 1:2,1:1,2:1 --seed 0,1,2
  bmla fuse --model balancemla,balancemla-ao,balancemla-vo,transformer --seed 0,1,2
  bmla fuse --without brff,adf,clw --without adf,clw --without clw --without none
  bmla fuse --balance none,ogm,adaptive --set ogm_alpha=0.8
  bmla fuse --store stores/words.zarr --layers 2 --width 64 --json > words.json

Killed or stopped? Run the same command again: finished runs are kept and reused.
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--store",
    "store_path",
    metavar="PATH|URL",
    help="The feature store; a remote one is cached.  [default: the only one in . or stores/]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("balancemla",),
    show_default=True,
    metavar="NAME",
    help="What to train, repeatable or with commas; see `bmla models`.",
)
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    default=("1:1",),
    show_default=True,
    metavar="A:V",
    help="Lengths of the audio and visual features, audio first; repeatable or with commas.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    default=("0",),
    show_default=True,
    metavar="N",
    help="Repeatable or with commas: 0,1,2.",
)
@click.option(
    "--folds",
    default=0,
    show_default=True,
    metavar="K",
    type=int,
    help="Cross-validation with so many folds: every clip is tested once. 0: the store's own splits.",
)
@click.option(
    "--fold",
    "fold_words",
    multiple=True,
    default=("all",),
    show_default=True,
    metavar="N",
    help="Which folds, from 0; repeatable or with commas.",
)
@click.option(
    "--fold-by",
    default="group",
    show_default=True,
    type=click.Choice(["group", "speaker", "session"]),
    help="What stays together in a fold: recordings, speakers, or IEMOCAP's sessions.",
)
@click.option(
    "--balance",
    "balances",
    multiple=True,
    default=("none",),
    show_default=True,
    metavar="NAME",
    help="How modalities are kept in balance, repeatable or with commas; see `bmla balances`.",
)
@click.option(
    "--set",
    "set_words",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other setting of a run, such as ogm_alpha=0.8; repeatable.",
)
@click.option("--audio", metavar="STREAM", help="Audio stream.  [default: the best-known one in the store]")
@click.option("--visual", metavar="STREAM", help="Visual stream.  [default: the best-known one for the store's task]")
@click.option(
    "--augment",
    "augmentations",
    multiple=True,
    metavar="STREAMS",
    help="Train with noise too, drawn anew for every clip: noise variants of the store by name or pattern, joined by +; "
    "all; or none. Repeatable, each a setting of its own.",
)
@click.option(
    "--gate-augment",
    "gate_noises",
    metavar="STREAMS",
    help="Noise for the held-out clips that alpha is fitted on, as in --augment.  [default: that of training]",
)
@click.option(
    "--test-on",
    "tests",
    multiple=True,
    metavar="STREAMS",
    help="Test under noise too: a noise variant, a pattern such as audio.logspec@*, all, or two joined by +; repeatable.",
)
@click.option(
    "--drop-modality",
    "dropped",
    multiple=True,
    type=click.Choice(["audio", "visual"]),
    help="Test without this modality too; repeatable.",
)
@setting_options
@click.option(
    "--without",
    "removals",
    multiple=True,
    metavar="PARTS",
    help="BalanceMLA without these parts (brff, adf, clw; with commas); repeatable, each a setting of its own; "
    "none is the whole model.",
)
@device_options
@remote_options
@click.option(
    "--tier",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "gpu", "ram", "mmap", "shard"]),
    help="Where the features stay while models train: the fastest that there is room for.",
)
@click.option(
    "--budget",
    metavar="SIZE",
    help="Memory that the features may take, such as 8GB; the rest is read as it is wanted.  [default: half of what is free]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes side by side on the CPU.  [default: one a core]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="CPU threads of each process.  [default: cores / processes]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the runs and the report.  [default: runs/STORE, by its name]",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on from where a killed training was; the weights are those of one that was not.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--quiet", is_flag=True, help="No progress and no remarks.")
def fuse(
    store_path: str | None,
    models: tuple[str, ...],
    ratios: tuple[str, ...],
    seeds: tuple[str, ...],
    folds: int,
    fold_words: tuple[str, ...],
    removals: tuple[str, ...],
    balances: tuple[str, ...],
    set_words: tuple[str, ...],
    audio: str | None,
    visual: str | None,
    augmentations: tuple[str, ...],
    gate_noises: str | None,
    tests: tuple[str, ...],
    dropped: tuple[str, ...],
    device: str | None,
    gpu: int | None,
    tier: str,
    budget: str | None,
    workers: int | None,
    threads: int | None,
    out: Path | None,
    resume: bool,
    as_json: bool,
    quiet: bool,
    **wishes: Any,
) -> None:
    """Train fusion models on the features of a store.

    Trains every combination of models, ratios, parts, balance methods, noises, folds and seeds; chooses each run's epoch on the dev split,
    looks at the test split once, and writes the runs and a report.
    """
    names = split_names(models)
    place = device_of(device, gpu)
    check_models(names)
    budget_bytes = None if budget is None else byte_count("--budget", budget)
    axes = dict(seeds=seed_numbers(seeds), removals=removed_parts(removals), folds=folds)
    axes["balances"] = check_balances(split_names(balances))
    wishes |= set_values(set_words, wishes)
    axes["fold_numbers"] = fold_numbers(fold_words, folds)
    store = open_named(store_path)
    from ..fuse.choice import choose_streams
    from ..fuse.fold_streams import asked_names, stored_names

    streams = choose_streams(store, needed_modalities(names), audio, visual, names)
    there = asked_names(store.streams(), folds)
    axes["augmentations"] = training_noises(augmentations, there, streams)
    axes["gate_augment"] = training_noises((gate_noises,), there, streams)[0] if gate_noises else ()
    conditions = test_conditions(tests, dropped, there, streams)
    configs = sweep_configs(names, split_names(ratios), streams, axes | wishes)
    noises = noises_of(configs, conditions)
    folder = out or Path("runs") / store.name
    parts = [part for name in (*streams.values(), *noises) for part in stored_names(name, store.streams(), folds)]
    local = local_copy(store, parts, quiet)
    features = load(local, streams, noises, names, place, tier, budget_bytes, quiet, folds)
    if not quiet:
        for line in (*remarks(streams, features), *leak_remarks(configs, features), *ratio_lines(configs)):
            click.echo(line, err=True)
    task = task_of(features, folder, conditions, place, store.name, quiet, resume)
    runs, failure = train(configs, task, shares(configs, place, workers, threads))
    if runs:
        summary, report = conclude(runs, features, folder, conditions)
        show_json(summary, features, report) if as_json else show_table(summary, report)
    if failure:
        raise failure


def shares(configs: "list[RunConfig]", device: str, workers: int | None, threads: int | None) -> tuple[int, int]:
    """Processes and threads of each. They depend on the sweep alone, not on what is left of it: a resumed run is the same."""
    cores = os.cpu_count() or 1
    if device != "cpu":
        return 1, threads or cores
    from ..fuse.sweep import needed

    count = min(workers or cores, len({c for config in configs for c in needed(config)}))
    return count, threads or max(1, cores // count)


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


def sweep_configs(
    models: tuple[str, ...], ratios: tuple[str, ...], streams: dict[str, str], settings: dict[str, Any]
) -> "list[RunConfig]":
    from ..fuse.sweep import grid

    return grid(models, ratios, **{**settings, **streams})


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


def remarks(streams: dict[str, str], features: "Features") -> list[str]:
    """What was chosen for the user, on stderr."""
    counts = ", ".join(f"{(features.split == split).sum()} {split}" for split in ("train", "dev", "test"))
    chosen = " + ".join(streams.values())
    return [f"{features.dataset}: {chosen}; clips: {counts}; {len(features.classes)} classes", *features.notes]


def leak_remarks(configs: "list[RunConfig]", features: "Features") -> tuple[str, ...]:
    """Streams whose making has seen clips that these runs choose or test with: a line each."""
    from ..fuse.leakage import leak_lines
    from ..fuse.models.table import takes

    modalities = {m for c in configs for m in takes(c.model)}
    splits = dict.fromkeys((c.folds, c.fold, c.fold_by) for c in configs)
    leaks = [leak for split in splits for leak in features.folded(*split).leaks(tuple(modalities))]
    return tuple(f"warning: {line}" for line in leak_lines(leaks))


def ratio_lines(configs: "list[RunConfig]") -> list[str]:
    """The feature lengths of each ratio, and how they were rounded."""
    from ..fuse.models.table import takes
    from ..fuse.ratio import describe_widths, parse_ratio

    fused = [c for c in configs if len(takes(c.model)) == 2]
    return list(dict.fromkeys(describe_widths(parse_ratio(c.ratio), c.width, c.heads, c.ratio_mode) for c in fused))


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


def train(configs: "list[RunConfig]", task: "Task", shares: tuple[int, int]) -> "tuple[list[Run], RunsFailed | None]":
    """The finished runs, and what is to be said of the others when these have been shown."""
    import torch

    from ..fuse.sweep import RunsFailed, train_all

    workers, threads = shares
    torch.set_num_threads(threads)
    try:
        return train_all(configs, task, workers, threads), None
    except RunsFailed as error:
        return error.runs, error


def conclude(
    runs: "list[Run]", features: "Features", out: Path, conditions: "tuple[Condition, ...]"
) -> "tuple[Summary, Path]":
    """Sums up and reports what was asked for; what a reused run was tested under before is left to `bmla report`."""
    from ..fuse.facts import facts_of_features
    from ..fuse.report import write_report
    from ..fuse.summary import summarise

    summary = summarise(runs, under=[str(c) for c in conditions])
    return summary, write_report(out, summary, facts_of_features(features), {"command": command_line()})


def show_table(summary: "Summary", report: Path) -> None:
    """The results for a person."""
    from .tables import show_summary

    show_summary(summary)
    click.echo(f"report: {report}")


def show_json(summary: "Summary", features: "Features", report: Path) -> None:
    """The results for a program."""
    from ..fuse.facts import facts_of_features
    from ..fuse.report import results

    click.echo(
        json.dumps({**results(summary, facts_of_features(features)), "report": str(report)}, indent=2, allow_nan=False)
    )


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["bmla", *sys.argv[1:]])
