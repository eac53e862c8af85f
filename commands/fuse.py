"""`bmla fuse`: a feature store -> trained fusion models, their scores and a report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..store.errors import UsageError
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
from .options import byte_count, device_of, device_options, echo_json, find_store, remote_options, split_names
from .own import own_models, with_sources
from .serve import watching
from .settings import setting_options
from .sweep_file import FILES, extending, keep_words
from .sweep_options import SHOWN, SPAN, STORE, TASKS, TIER, WITHOUT, WORK, with_options
from .training import (
    check_digest,
    check_runs,
    command_line,
    executor_of,
    leak_remarks,
    load,
    local_copy,
    logged,
    open_named,
    outline,
    remarks,
    shares,
    sweep_configs,
    task_of,
    train,
)

if TYPE_CHECKING:
    from ..fuse.condition import Condition
    from ..fuse.config import RunConfig
    from ..fuse.data import Features
    from ..fuse.run import Run
    from ..fuse.summary import Summary

EXAMPLES = """\b
Examples:
  bmla fuse                                            BalanceMLA on the only store here
  bmla fuse --ratio 1:2 --gpu 0
  bmla fuse --model transformer --ratio 1:2,1:1,2:1 --seed 0,1,2
  bmla fuse --model balancemla,balancemla-ao,balancemla-vo,transformer --seed 0,1,2
  bmla fuse --without brff,adf,clw --without adf,clw --without clw --without none
  bmla fuse --tasks words=lrw.zarr,emotion=iemocap.zarr --alone
  bmla fuse --balance none,ogm,adaptive --set ogm_alpha=0.8
  bmla fuse --store stores/words.zarr --layers 2 --width 64 --json > words.json
  bmla fuse --sweep sweep.yaml --workers 4             the same words from a file
  bmla fuse --add runs/words --seed 10..19             ten seeds more for every setting of a sweep

Killed or stopped? Run the same command again: finished runs are kept and reused.
"""


@click.command(epilog=EXAMPLES)
@with_options((STORE, *TASKS, *FILES, *SPAN))
@setting_options
@with_options((WITHOUT,))
@device_options
@remote_options
@with_options((TIER, *WORK))
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on from where a killed training was; the weights are those of one that was not.",
)
@click.option("--watch", is_flag=True, help="Serve the report on this machine while runs are made; see `bmla serve`.")
@click.option(
    "--log",
    "log_words",
    multiple=True,
    metavar="NAME",
    help="Write every epoch's figures for tensorboard or mlflow, into the folder of the runs; repeatable or with commas.",
)
@with_options(SHOWN)
@extending
def fuse(
    store_path: str | None,
    tasks: tuple[str, ...],
    alone: bool,
    digest: str | None,
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
    executor: str,
    cluster: str | None,
    out: Path | None,
    resume: bool,
    watch: bool,
    log_words: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **wishes: Any,
) -> None:
    """Train fusion models on the features of a store.

    Trains every combination of models, ratios, parts, balance methods, noises, folds and seeds; chooses each run's epoch on the dev split,
    looks at the test split once, and writes the runs and a report.
    """
    if tasks:
        from .tasks import fuse_tasks

        return fuse_tasks(click.get_current_context().params, wishes)
    if alone:
        raise UsageError("--alone: goes with --tasks; it compares a model of several tasks with each task alone")
    names = split_names(models)
    place = device_of(device, gpu)
    executor = executor_of(executor, cluster, place)
    check_models(names)
    builders = own_models(names)
    budget_bytes = None if budget is None else byte_count("--budget", budget)
    axes = dict(seeds=seed_numbers(seeds), removals=removed_parts(removals), folds=folds)
    axes["balances"] = check_balances(split_names(balances))
    wishes |= set_values(set_words, wishes)
    axes["fold_numbers"] = fold_numbers(fold_words, folds)
    store = open_named(store_path)
    from ..fuse.choice import choose_streams, needs_front
    from ..fuse.fold_streams import asked_names, stored_names

    streams = choose_streams(store, needed_modalities(names), audio, visual, names)
    there = asked_names(store.streams(), folds)
    axes["augmentations"] = training_noises(augmentations, there, streams)
    axes["gate_augment"] = training_noises((gate_noises,), there, streams)[0] if gate_noises else ()
    conditions = test_conditions(tests, dropped, there, streams)
    axes["pictures"] = needs_front(store, streams.values(), folds)
    configs = sweep_configs(names, split_names(ratios), streams, axes | wishes)
    noises = noises_of(configs, conditions)
    folder = out or Path("runs") / store.name
    parts = [part for name in (*streams.values(), *noises) for part in stored_names(name, store.streams(), folds)]
    local = local_copy(store, parts, quiet)
    features = load(local, streams, noises, names, place, tier, budget_bytes, quiet, folds)
    configs = with_sources(configs, builders, features)
    check_digest(features, digest)
    check_runs(configs, features, folder, executor)
    task = task_of(features, folder, conditions, place, store.name, quiet, resume)
    task = replace(task, builders=builders, progress=logged(task, split_names(log_words)))
    keep_words(
        folder,
        click.get_current_context(),
        {"store": str(find_store(store_path)), "features": features.digest, **streams, **share_of_noise(configs)},
    )
    if not quiet:
        told = (*remarks(streams, features, configs), *leak_remarks(configs, features))
        for line in (*told, outline(configs, features, folder)):
            click.echo(line, err=True)
    with watching(folder, watch):
        runs, failure = train(configs, task, shares(configs, place, workers, threads), executor, cluster)
    if runs:
        summary, report = conclude(runs, features, folder, conditions)
        show_json(summary, features, report) if as_json else show_table(summary, report)
    if failure:
        raise failure


def share_of_noise(configs: "Sequence[RunConfig]") -> dict[str, str]:
    """For the sweep's file, also where nobody said it: files without it are of sweeps from before there was this setting."""
    shares = {str(config.noise_share) for config in configs if config.augment}
    return {"noise-share": share for share in shares}  # noqa: B035 - all have the same, or none has noise


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

    echo_json({**results(summary, facts_of_features(features)), "report": str(report)})
