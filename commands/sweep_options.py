"""The options that say what a sweep spans and how it is worked off; those that are settings of a run are in `settings.py`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from .completion import known_balances, known_models, lists_of
from .options import JSON, QUIET

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def with_options(options: Sequence[Option]) -> Option:
    """Adds them in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


STORE = click.option(
    "--store",
    "store_path",
    metavar="PATH|URL",
    help="The feature store; a remote one is cached.  [default: the only one in . or stores/]",
)
TASKS = (
    click.option(
        "--tasks",
        "tasks",
        multiple=True,
        metavar="NAME=STORE",
        help="Several tasks in one model, a store for each: words=words.zarr,emotion=iemocap.zarr. --audio and --visual take "
        "NAME=STREAM then.",
    ),
    click.option("--alone", is_flag=True, help="With --tasks: train each task alone too, and compare."),
)
MODEL = click.option(
    "--model",
    "models",
    multiple=True,
    default=("balancemla",),
    show_default=True,
    metavar="NAME",
    help="What to train, repeatable or with commas; see `bmla models`. own:package.module:ClassName is a class of yours.",
    shell_complete=lists_of(known_models),
)
RATIO = click.option(
    "--ratio",
    "ratios",
    multiple=True,
    default=("1:1",),
    show_default=True,
    metavar="A:V",
    help="Lengths of the audio and visual features, audio first; repeatable or with commas.",
)


def seed_option(default: str) -> Option:
    return click.option(
        "--seed",
        "seeds",
        multiple=True,
        default=(default,),
        show_default=True,
        metavar="N",
        help="Repeatable or with commas: 0,1,2; or 0..9 for ten of them.",
    )


FOLDS = (
    click.option(
        "--folds",
        default=0,
        show_default=True,
        metavar="K",
        type=int,
        help="Cross-validation with so many folds: every clip is tested once. 0: the store's own splits.",
    ),
    click.option(
        "--fold",
        "fold_words",
        multiple=True,
        default=("all",),
        show_default=True,
        metavar="N",
        help="Which folds, from 0; repeatable or with commas.",
    ),
    click.option(
        "--fold-by",
        default="group",
        show_default=True,
        type=click.Choice(["group", "speaker", "session"]),
        help="What stays together in a fold: recordings, speakers, or IEMOCAP's sessions.",
    ),
)
BALANCE = click.option(
    "--balance",
    "balances",
    multiple=True,
    default=("none",),
    show_default=True,
    metavar="NAME",
    help="How modalities are kept in balance, repeatable or with commas; see `bmla balances`.",
    shell_complete=lists_of(known_balances),
)
SET = click.option(
    "--set",
    "set_words",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other setting of a run, such as ogm_alpha=0.8; repeatable.",
)
STREAMS = (
    click.option("--audio", metavar="STREAM", help="Audio stream.  [default: the best-known one in the store]"),
    click.option(
        "--visual", metavar="STREAM", help="Visual stream.  [default: the best-known one for the store's task]"
    ),
)
NOISES = (
    click.option(
        "--augment",
        "augmentations",
        multiple=True,
        metavar="STREAMS",
        help="Train with noise too, drawn anew for every clip: noise variants of the store by name or pattern, joined by +; "
        "all; or none. Repeatable, each a setting of its own.",
    ),
    click.option(
        "--gate-augment",
        "gate_noises",
        metavar="STREAMS",
        help="Noise for the held-out clips that alpha is fitted on, as in --augment.  [default: that of training]",
    ),
    click.option(
        "--test-on",
        "tests",
        multiple=True,
        metavar="STREAMS",
        help="Test under noise too: a noise variant, a pattern such as audio.logspec@*, or all; joined by + with another or with "
        "no-audio or no-visual; repeatable.",
    ),
    click.option(
        "--drop-modality",
        "dropped",
        multiple=True,
        metavar="NAME",
        help="Test without this modality too, audio or visual; repeatable or with commas.",
    ),
)
WITHOUT = click.option(
    "--without",
    "removals",
    multiple=True,
    metavar="PARTS",
    help="BalanceMLA without these parts (brff, adf, clw; with commas); repeatable, each a setting of its own; "
    "none is the whole model.",
)
TIER = click.option(
    "--tier",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "gpu", "ram", "mmap", "shard"]),
    help="Where the features stay while models train: the fastest that there is room for.",
)
WORK = (
    click.option(
        "--budget",
        metavar="SIZE",
        help="Memory that the features may take, such as 8GB; the rest is read as it is wanted.  [default: half of what is free]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes side by side on the CPU.  [default: one a core]",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="CPU threads of each process.  [default: cores / processes]",
    ),
    click.option(
        "--executor",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "processes", "stacked", "dask"]),
        help="Train in processes side by side, in one with runs in lockstep, or on a Dask cluster; auto measures the first two "
        "and takes the quicker.",
    ),
    click.option(
        "--cluster",
        metavar="WHERE",
        help="A Dask cluster to train on: local:N or tcp://host:port.  [default: this machine, without]",
    ),
)
SHOWN = (
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Folder of the runs and the report.  [default: runs/STORE, by its name]",
    ),
    JSON,
    QUIET,
)
# What spans a sweep, in the order of the help.
SPAN = (MODEL, RATIO, seed_option("0"), *FOLDS, BALANCE, SET, *STREAMS, *NOISES)
