"""`bmla fuse --tasks`: several stores -> one model of several tasks, and a report for each of them."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..store.errors import UsageError
from .axes import (
    check_balances,
    fold_numbers,
    needed_modalities,
    noises_of,
    removed_parts,
    seed_numbers,
    set_values,
    some,
    test_conditions,
    training_noises,
)
from .options import byte_count, device_of, echo_json, split_names

if TYPE_CHECKING:
    from ..fuse.condition import Condition
    from ..fuse.config import RunConfig
    from ..fuse.obtain import Task
    from ..fuse.run import Run
    from ..fuse.summary import Summary
    from ..store import Store

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"  # it becomes part of folder names


def fuse_tasks(words: dict[str, Any], wishes: dict[str, Any]) -> None:
    """Trains, reports on and shows what was asked for.

    Args:
        words: the options of `bmla fuse`, by parameter; wishes: those of them that are settings of a run.
    """
    from ..fuse.progress import Progress, StderrProgress
    from ..fuse.tasks.obtain import train_tasks
    from ..fuse.tasks.share import check_model
    from .training import open_named

    stores = task_stores(words["tasks"])
    if words["store_path"]:
        raise UsageError("--store: --tasks names the stores already")
    for option, name in (
        ("--log", "log_words"),
        ("--features", "digest"),
        ("--watch", "watch"),
        ("--cluster", "cluster"),
    ):
        if words[name]:
            raise UsageError(f"{option}: goes with one store, not with --tasks")
    if words["executor"] not in ("auto", "processes"):
        raise UsageError(
            f"--executor {words['executor']}: a model of several tasks is trained by itself, in one process; leave it out"
        )
    if words["workers"] and not words["alone"]:
        raise UsageError("--workers: a model of several tasks is trained in one process; it goes with --alone only")
    for name in some("--model", split_names(words["models"])):
        check_model(name)
    wishes = wishes | set_values(words["set_words"], wishes)
    streams = {m: streams_by_task(f"--{m}", words[m], tuple(stores)) for m in ("audio", "visual")}
    place = device_of(words["device"], words["gpu"])
    budget = None if words["budget"] is None else byte_count("--budget", words["budget"]) // len(stores)
    home = words["out"] or Path("runs") / "+".join(sorted(stores))
    plans = plans_of(
        {name: (open_named(path), {m: of[name] for m, of in streams.items()}) for name, path in stores.items()},
        words,
        wishes,
    )
    if len({len(each.configs) for each in plans.values()}) > 1:
        raise UsageError("--augment: two of its settings are the same in one store and differ in another")
    progress = Progress() if words["quiet"] else StderrProgress()
    tasks = {name: load_task(name, each, home / name, words, place, budget) for name, each in plans.items()}
    tasks = {name: replace(task, progress=progress) for name, task in tasks.items()}
    grids = {name: each.configs for name, each in plans.items()}
    trainings = [dict(zip(grids, configs, strict=True)) for configs in zip(*grids.values(), strict=True)]
    use_threads(words["threads"] or os.cpu_count() or 1)
    runs, failed = train_tasks(trainings, tasks)
    if words["alone"]:
        for name, task in tasks.items():
            alone, failed_alone = train_alone(grids[name], task, place, words)
            runs[name] += alone
            failed |= failed_alone
    show({name: found for name, found in runs.items() if found}, tasks, words["as_json"], words["alone"])
    if failed:
        from ..fuse.sweep import RunsFailed

        raise RunsFailed([run for found in runs.values() for run in found], failed)


def task_stores(words: tuple[str, ...]) -> dict[str, str]:
    """Store by task. Raises UsageError for a name that is given twice or can't be one, and for fewer than two."""
    stores: dict[str, str] = {}
    for word in (w.strip() for value in words for w in value.split(",") if w.strip()):
        name, equals, path = word.partition("=")
        if not equals or not path or not re.fullmatch(NAME, name):
            raise UsageError(
                f'--tasks: "{word}" is not of the form NAME=STORE, with a name of letters, digits, "-" and "_"'
            )
        if name in stores:
            raise UsageError(f'--tasks: two tasks are called "{name}": expected a name of its own for each')
        stores[name] = path
    if len(stores) < 2:
        raise UsageError(
            f"--tasks: {', '.join(stores) or 'none'} alone is given: expected two or more; for one: --store"
        )
    return stores


def streams_by_task(option: str, text: str | None, names: tuple[str, ...]) -> dict[str, str | None]:
    """The stream of each task: NAME=STREAM is one task's, STREAM that of all others; None: the best-known one.

    Raises:
        UsageError: there is no such task, or two streams for one.
    """
    own: dict[str, str] = {}
    for word in split_names([text or ""]):
        name, equals, stream = word.partition("=")
        if not equals or "@" in name:  # audio.logspec@white=0 is a stream
            name, stream = "", word
        elif name not in names:
            raise UsageError(f'{option} {word}: no task is called "{name}"; tasks: {", ".join(names)}')
        if name in own:
            raise UsageError(f"{option} {word}: {name or 'every task'} has {own[name]} already")
        own[name] = stream
    return {name: own.get(name, own.get("")) for name in names}


@dataclass(frozen=True)
class Plan:
    """What is asked of one task's store.

    Attributes:
        streams: by modality.
        configs: its settings of every training.
        conditions: that it is tested under.
    """

    store: "Store"
    streams: dict[str, str]
    configs: "list[RunConfig]"
    conditions: "tuple[Condition, ...]"


def plans_of(
    asked: "dict[str, tuple[Store, dict[str, str | None]]]", words: dict[str, Any], wishes: dict[str, Any]
) -> dict[str, Plan]:
    """By task, what is asked of its store. Raises UsageError, before anything is loaded.

    Args:
        asked: each task's store, and the streams that were named, by modality.
    """
    from ..fuse.choice import choose_streams, needs_front

    models, folds = split_names(words["models"]), words["folds"]
    chosen = {
        name: (store, choose_streams(store, needed_modalities(models), named["audio"], named["visual"], models))
        for name, (store, named) in asked.items()
    }
    pictures = any(needs_front(store, streams.values(), folds) for store, streams in chosen.values())
    return {
        name: plan(store, streams, words, wishes | {"pictures": pictures}) for name, (store, streams) in chosen.items()
    }


def plan(store: "Store", streams: dict[str, str], words: dict[str, Any], wishes: dict[str, Any]) -> Plan:
    """Looks up in a store what the words of the command mean there. Raises UsageError."""
    from .training import sweep_configs

    models, gate = split_names(words["models"]), words["gate_noises"]
    axes = {
        "seeds": seed_numbers(words["seeds"]),
        "removals": removed_parts(words["removals"]),
        "balances": check_balances(split_names(words["balances"])),
        "folds": words["folds"],
        "fold_by": words["fold_by"],
        "fold_numbers": fold_numbers(words["fold_words"], words["folds"]),
        "augmentations": training_noises(words["augmentations"], store.streams(), streams),
        "gate_augment": training_noises((gate,), store.streams(), streams)[0] if gate else (),
    }
    conditions = test_conditions(words["tests"], words["dropped"], store.streams(), streams)
    return Plan(store, streams, sweep_configs(models, split_names(words["ratios"]), streams, axes | wishes), conditions)


def load_task(name: str, plan: Plan, out: Path, words: dict[str, Any], place: str, budget_bytes: int | None) -> "Task":
    """A task's features, and what else its runs share."""
    from .training import load, local_copy, remarks, task_of

    models, quiet = split_names(words["models"]), words["quiet"]
    noises = noises_of(plan.configs, plan.conditions)
    local = local_copy(plan.store, [*plan.streams.values(), *noises], quiet)
    features = load(local, plan.streams, noises, models, place, words["tier"], budget_bytes, quiet)
    if not quiet:
        for line in remarks(plan.streams, features, plan.configs):
            click.echo(f"{name}: {line}", err=True)
    return task_of(features, out, plan.conditions, place, plan.store.name, True, words["resume"])


def use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def train_alone(
    configs: "list[RunConfig]", task: "Task", place: str, words: dict[str, Any]
) -> "tuple[list[Run], dict[RunConfig, str]]":
    """The same settings on one task alone: its finished runs, and what went wrong with the others."""
    from .training import shares, train

    runs, failure = train(configs, task, shares(configs, place, words["workers"], words["threads"]), words["executor"])
    return runs, failure.failed if failure else {}


def show(runs: "dict[str, list[Run]]", tasks: "dict[str, Task]", as_json: bool, compare: bool) -> None:
    """Writes a report for each task, and prints its results."""
    from ..fuse.facts import facts_of_features
    from ..fuse.report import results, write_report
    from ..fuse.summary import summarise
    from .training import command_line

    documents = {}
    for name, found in runs.items():
        task = tasks[name]
        summary = summarise(found, all_pairs=compare, under=[str(c) for c in task.conditions])
        facts = facts_of_features(task.features)
        page = write_report(task.out, summary, facts, {"command": command_line()})
        documents[name] = {**results(summary, facts), "report": str(page)}
        if not as_json:
            show_task(name, summary, page, compare)
    if as_json:
        echo_json({"tasks": documents})


def show_task(name: str, summary: "Summary", page: Path, compare: bool) -> None:
    """A task's results for a person."""
    from ..fuse.tables import pairs_table
    from .fuse import show_table
    from .tables import show_lines, show_note

    click.echo(f"task {name}")
    show_table(summary, page)
    if compare and summary.pairs:
        table = pairs_table(summary)
        click.echo(f"\n{table.title}")
        show_lines(table.heads, table.lines)
        show_note(table.note)
    click.echo("")
