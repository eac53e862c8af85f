"""`bmla reproduce`: an experiment of the paper on a store, beside what the paper says."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .axes import fold_numbers, seed_numbers
from .options import byte_count, device_of, device_options, echo_json, remote_options
from .settings import setting_options
from .sweep_options import FOLDS, SHOWN, STORE, STREAMS, WORK, seed_option, with_options
from .training import (
    check_runs,
    command_line,
    executor_of,
    load,
    local_copy,
    open_named,
    outline,
    remarks,
    shares,
    task_of,
    train,
)

if TYPE_CHECKING:
    from ..fuse.condition import Condition
    from ..fuse.data import Features
    from ..fuse.reproduce.protocol import Outcome
    from ..fuse.run import Run
    from ..fuse.tables import Table

NAMES = ("fig1a", "fig1b", "fig1c", "table1", "table2", "table3", "fig3")
EXAMPLES = """\b
Examples:
  bmla reproduce fig1c --store stores/lrw.zarr --seed 0..2
  bmla reproduce table3 --store stores/words.zarr --folds 5 --seed 0..2
  bmla reproduce fig3 --epochs 10 --layers 2 --width 64 --json > fig3.json

Killed or stopped? Run the same command again: finished runs are kept and reused, also by `bmla fuse` and `bmla report`.
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", metavar="|".join(NAMES), type=click.Choice(NAMES))
@with_options((STORE, seed_option("0..2"), *FOLDS, *STREAMS))
@setting_options
@device_options
@remote_options
@with_options((*WORK, *SHOWN))
def reproduce(
    name: str,
    store_path: str | None,
    seeds: tuple[str, ...],
    folds: int,
    fold_words: tuple[str, ...],
    audio: str | None,
    visual: str | None,
    device: str | None,
    gpu: int | None,
    budget: str | None,
    workers: int | None,
    threads: int | None,
    executor: str,
    cluster: str | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    **wishes: Any,
) -> None:
    """Run an experiment of the paper on any store.

    Trains what the figure or table compares, shows the paper's numbers beside ours with intervals, and draws the figure. Defaults
    are ours where the paper's do not train or ours do better (see --recipe); fig3 uses the store's variants with masked sound, and
    without them a stand-in that says so.
    """
    place = device_of(device, gpu)
    executor = executor_of(executor, cluster, place)
    axes: dict[str, Any] = dict(seeds=seed_numbers(seeds), folds=folds, fold_numbers=fold_numbers(fold_words, folds))
    budget_bytes = None if budget is None else byte_count("--budget", budget)
    store = open_named(store_path)
    from ..fuse.choice import choose_streams, needs_front
    from ..fuse.reproduce.experiments import experiment
    from ..fuse.reproduce.protocol import conditions_of, masks, outcome, plan

    chosen = experiment(name)
    streams = choose_streams(store, ("audio", "visual"), audio, visual)
    axes["pictures"] = needs_front(store, streams.values(), folds)
    planned = plan(chosen, streams, store.streams(), **axes, **wishes)
    noises = masks(streams["audio"], store.streams()) if chosen.masked else []
    folder = out or Path("runs") / store.name
    runs: list[Run] = []
    conditions: tuple[Condition, ...] = ()
    failure, protocol = None, ""
    for used, configs in by_streams(planned.configs).items():
        local = local_copy(store, [*dict(used).values(), *noises], quiet)
        models = tuple(dict.fromkeys(config.model for config in configs))
        features = load(local, dict(used), noises, models, place, "auto", budget_bytes, quiet)
        protocol, names = "", noises
        if chosen.masked:
            features, names, protocol = masked(features, noises)
        if not quiet:
            for line in (*remarks(dict(used), features, configs), outline(configs, features, folder)):
                click.echo(line, err=True)
        check_runs(configs, features, folder, executor)
        conditions = conditions_of(chosen, names)
        task = task_of(features, folder, conditions, place, store.name, quiet, True)
        finished, broken = train(configs, task, shares(configs, place, workers, threads), executor, cluster)
        runs, failure = [*runs, *finished], failure or broken
    if runs:
        found = outcome(planned, runs, conditions, protocol)
        conclude(name, found, store.dataset, store.task, folder, as_json)
    if failure:
        raise failure


def by_streams(configs: "list[Any]") -> "dict[tuple[tuple[str, str], ...], list[Any]]":
    """Configurations by the streams that they are trained on; those of one modality go with others that have its stream."""
    pairs = {streams_of(c): None for c in configs}
    whole = [p for p in pairs if not any(set(p) < set(other) for other in pairs)]
    groups: dict[tuple[tuple[str, str], ...], list[Any]] = {p: [] for p in whole}
    for config in configs:
        groups[next(p for p in whole if set(streams_of(config)) <= set(p))].append(config)
    return groups


def streams_of(config: Any) -> tuple[tuple[str, str], ...]:
    return tuple((m, name) for m in ("audio", "visual") if (name := getattr(config, m)) is not None)


def masked(features: "Features", noises: list[str]) -> "tuple[Features, list[str], str]":
    """The masked versions of the sound to test with, and whether they are the paper's protocol."""
    if noises:
        return features, noises, "exact"
    from ..fuse.reproduce.proxy import with_proxies

    return *with_proxies(features), "proxy"


def conclude(name: str, found: "Outcome", dataset: str, task: str, folder: Path, as_json: bool) -> None:
    """Draws the figure, and prints the tables or JSON."""
    from ..fuse.figures import drawing, render
    from ..fuse.reproduce.draw import draw_outcome
    from ..fuse.reproduce.show import tables_of
    from ..fuse.tables import records

    with drawing():
        figure = draw_outcome(found, dataset, task)
        kinds = ("png", "svg")
        pictures = dict(zip(kinds, render(figure, *kinds), strict=True))
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for kind, content in pictures.items():
        (figures / f"{name}.{kind}").write_bytes(content)
    tables = tables_of(name, found, dataset)
    if as_json:
        document = {
            "experiment": name,
            "dataset": dataset,
            "protocol": found.protocol,
            "arms": {arm.label: found.row(i).to_dict() for arm, i in found.rows},
            "missing": dict(found.plan.missing),
            **records(found.summary),
            "figure": str(figures / f"{name}.png"),
            "command": command_line(),
        }
        echo_json(document)
        return
    show(tables)
    if task not in found.plan.experiment.tasks:
        click.echo(
            f"\nThe paper's is of {' and '.join(found.plan.experiment.tasks)}; this store is {task}: another task."
        )
    click.echo(f"\nfigure: {figures / name}.png, .svg")


def show(tables: "list[Table]") -> None:
    from .tables import show_lines, show_note

    for i, table in enumerate(tables):
        click.echo(("\n" if i else "") + table.title)
        show_lines(table.heads, table.lines)
        show_note(table.note)
