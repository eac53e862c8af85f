"""`bmla fuse`: a feature store -> trained fusion models, their scores and a report."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..store.errors import UsageError
from .options import byte_count, device_of, device_options, find_store, remote_options, split_names

if TYPE_CHECKING:
    from ..fuse.config import RunConfig
    from ..fuse.data import Features
    from ..fuse.run import Run
    from ..fuse.summary import Summary
    from ..store import Store

EXAMPLES = """\b
Examples:
  bmla fuse                                            BalanceMLA on the only store here
  bmla fuse --ratio 1:2 --gpu 0
  bmla fuse --model transformer --ratio 1:2,1:1,2:1 --seed 0,1,2
  bmla fuse --model balancemla,balancemla-ao,balancemla-vo,transformer --seed 0,1,2
  bmla fuse --without brff,adf,clw --without adf,clw --without clw --without none
  bmla fuse --store stores/words.zarr --layers 2 --width 64 --json > words.json

Killed or stopped? Run the same command again: finished runs are kept and reused.
"""
NOTHING = "none"


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
    "--ratio-mode",
    type=click.Choice(["fixed-total", "fixed-base"]),
    help="Keep the sum of both lengths, or the shorter one.  [default: fixed-total]",
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
@click.option("--audio", metavar="STREAM", help="Audio stream.  [default: the best-known one in the store]")
@click.option("--visual", metavar="STREAM", help="Visual stream.  [default: the best-known one for the store's task]")
@click.option(
    "--schedule",
    default="paper",
    show_default=True,
    type=click.Choice(["paper", "long"]),
    help="BalanceMLA after pre-training: 5 epochs of fine-tuning, or 25 of training before them.",
)
@click.option(
    "--recipe",
    default="default",
    show_default=True,
    type=click.Choice(["default", "paper-sec3"]),
    help="Of the Transformers: learning rate 1e-4, or the 5e-7 of the paper's section 3.",
)
@click.option("--layers", type=int, metavar="N", help="Of every Transformer encoder.  [default: 6]")
@click.option("--heads", type=int, metavar="N", help="Attention heads.  [default: 8]")
@click.option("--width", type=int, metavar="N", help="Features of one modality in the model.  [default: 256]")
@click.option(
    "--epochs",
    type=int,
    metavar="N",
    help="Of training, pre-training included.  [default: 30 transformer, 25 others]",
)
@click.option("--finetune-epochs", type=int, metavar="N", help="Of fine-tuning, after training.  [default: 5]")
@click.option(
    "--lr", type=float, metavar="X", help="Learning rate of training.  [default: 1e-4 transformer, 3e-4 others]"
)
@click.option("--finetune-lr", type=float, metavar="X", help="Learning rate of fine-tuning.  [default: 5e-5]")
@click.option("--batch-size", type=int, metavar="N", help="Clips a step.  [default: 16 transformer, 32 others]")
@click.option(
    "--dropout", type=float, metavar="X", help="On embeddings and on the outputs of every part.  [default: 0.1]"
)
@click.option(
    "--gru-units", type=int, metavar="N", help="Of each GRU layer and direction (concat, bgru).  [default: 1024]"
)
@click.option("--gru-layers", type=int, metavar="N", help="Of each GRU.  [default: 2]")
@click.option(
    "--front-width", type=int, metavar="N", help="Kernels of the 3-D convolution (stconv, bgru).  [default: 64]"
)
@click.option("--resnet-depth", type=int, metavar="N", help="Of the ResNet after it, 18 or 34.  [default: 34]")
@click.option("--crop", type=float, metavar="X", help="Share of a picture's sides that is seen.  [default: 0.9]")
@click.option("--flip", type=float, metavar="X", help="Share of clips that are mirrored in training.  [default: 0.5]")
@click.option(
    "--time-mask", type=float, metavar="X", help="Longest share of a clip hidden in training.  [default: 0.4]"
)
@click.option(
    "--mixup", type=float, metavar="ALPHA", help="Mix training clips (stconv, bgru, concat).  [default: 0.4; concat 0]"
)
@click.option("--probe-width", type=int, metavar="N", help="What the probe projects to.  [default: 256]")
@click.option(
    "--probe-mean",
    type=click.Choice(["valid", "all"]),
    help="Steps that the probe averages: valid ones, or all up to the last valid one.  [default: valid]",
)
@click.option(
    "--head",
    type=click.Choice(["linear", "cosine"]),
    help="Of late fusion (joint): linear, or MMCosine's.  [default: linear]",
)
@click.option(
    "--attention",
    type=click.Choice(["cross", "bilinear"]),
    help="Form of BRFF: cross-attention blocks, or equations 1-2 to the letter.  [default: cross]",
)
@click.option(
    "--without",
    "removals",
    multiple=True,
    metavar="PARTS",
    help="BalanceMLA without these parts (brff, adf, clw; with commas); repeatable, each a setting of its own; "
    "none is the whole model.",
)
@click.option(
    "--gate-input",
    type=click.Choice(["brff", "encoder"]),
    help="What alpha is computed from.  [default: brff, as in the paper]",
)
@click.option(
    "--mix",
    type=click.Choice(["log-probabilities", "probabilities"]),
    help="What alpha mixes.  [default: log-probabilities]",
)
@click.option(
    "--lambda-audio",
    type=float,
    metavar="X",
    help="Weight of the audio branch's own loss.  [default: 1; joint, gated 0]",
)
@click.option(
    "--lambda-visual",
    type=float,
    metavar="X",
    help="Weight of the visual branch's own loss.  [default: 1; joint, gated 0]",
)
@click.option(
    "--lr-scale-audio", type=float, metavar="X", help="Factor on the audio parts' learning rate.  [default: 1]"
)
@click.option(
    "--lr-scale-visual", type=float, metavar="X", help="Factor on the visual parts' learning rate.  [default: 1]"
)
@click.option("--class-weights", is_flag=True, help="Weigh the loss by 1 / class frequency.")
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
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--quiet", is_flag=True, help="No progress and no remarks.")
def fuse(
    store_path: str | None,
    models: tuple[str, ...],
    ratios: tuple[str, ...],
    seeds: tuple[str, ...],
    removals: tuple[str, ...],
    audio: str | None,
    visual: str | None,
    device: str | None,
    gpu: int | None,
    tier: str,
    budget: str | None,
    workers: int | None,
    threads: int | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    class_weights: bool,
    **wishes: Any,
) -> None:
    """Train fusion models on the features of a store.

    Trains every combination of models, ratios, parts and seeds; chooses each run's epoch on the dev split, looks at the
    test split once, and writes the runs and a report.
    """
    names = split_names(models)
    place = device_of(device, gpu)
    settings = dict(seeds=seed_numbers(seeds), removals=removed_parts(removals), class_weights=class_weights, **wishes)
    check_models(names)
    budget_bytes = None if budget is None else byte_count("--budget", budget)
    store = open_named(store_path)
    from ..fuse.choice import choose_streams

    streams = choose_streams(store, needed_modalities(names), audio, visual, names)
    configs = sweep_configs(names, split_names(ratios), streams, settings)
    folder = out or Path("runs") / store.name
    features = load(local_copy(store, streams, quiet), streams, names, place, tier, budget_bytes, quiet)
    if not quiet:
        for line in (*remarks(streams, features), *ratio_lines(configs)):
            click.echo(line, err=True)
    runs = train(configs, features, folder, place, shares(configs, place, workers, threads), store.name, quiet)
    summary, report = conclude(runs, features, folder)
    show_json(summary, features, report) if as_json else show_table(summary, report)


def shares(configs: "list[RunConfig]", device: str, workers: int | None, threads: int | None) -> tuple[int, int]:
    """Processes and threads of each. They depend on the sweep alone, not on what is left of it: a resumed run is the same."""
    cores = os.cpu_count() or 1
    if device != "cpu":
        return 1, threads or cores
    from ..fuse.sweep import needed

    count = min(workers or cores, len({c for config in configs for c in needed(config)}))
    return count, threads or max(1, cores // count)


def check_models(names: tuple[str, ...]) -> None:
    """Raises UnknownName, before anything is loaded."""
    from ..fuse.models.table import entry

    for name in names:
        entry(name)


def needed_modalities(names: tuple[str, ...]) -> tuple[str, ...]:
    from ..fuse.models.table import takes

    return tuple(m for m in ("audio", "visual") if any(m in takes(name) for name in names))


def open_named(path: str | None) -> "Store":
    from ..store import open_store

    return open_store(find_store(path))


def local_copy(store: "Store", streams: dict[str, str], quiet: bool) -> "Store":
    """The store itself, or for a remote one its cached shards: $BMLA_CACHE, else ~/.cache/bmla, at most $BMLA_CACHE_GB."""
    if not store.place.remote:
        return store
    from ..store.cache import DEFAULT_LIMIT_BYTES, cached
    from .progress import byte_progress

    folder = Path(os.environ.get("BMLA_CACHE") or Path.home() / ".cache/bmla")
    limit = float(os.environ.get("BMLA_CACHE_GB") or DEFAULT_LIMIT_BYTES / 1e9)
    with byte_progress("fetch", 0, quiet) as bar:
        return cached(store, list(streams.values()), folder, round(limit * 1e9), bar.begin, bar.advance)


def seed_numbers(values: tuple[str, ...]) -> tuple[int, ...]:
    """Raises UsageError for a word that is no whole number."""
    words = split_names(values)
    if bad := [word for word in words if not (word.isascii() and word.isdigit())]:
        raise UsageError(f'--seed: "{bad[0]}" is no whole number of at least 0')
    return tuple(int(word) for word in words)


def removed_parts(values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """One setting a value. Raises UnknownName for a part that BalanceMLA does not have."""
    from ..fuse.config import PARTS
    from ..store.errors import UnknownName

    settings = [tuple(p for p in split_names([value]) if p != NOTHING) for value in values] or [()]
    for part in (p for setting in settings for p in setting):
        if part not in PARTS:
            raise UnknownName("part of BalanceMLA", part, (*PARTS, NOTHING))
    return tuple(settings)


def sweep_configs(
    models: tuple[str, ...], ratios: tuple[str, ...], streams: dict[str, str], settings: dict[str, Any]
) -> "list[RunConfig]":
    from ..fuse.sweep import grid

    return grid(models, ratios, **{**settings, **streams})


def load(
    store: "Store",
    streams: dict[str, str],
    models: tuple[str, ...],
    device: str,
    tier: str,
    budget_bytes: int | None,
    quiet: bool,
) -> "Features":
    from ..fuse.data import features_from_store

    def tell(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    audio, visual = streams.get("audio"), streams.get("visual")
    return features_from_store(
        store, audio, visual, device, models=models, tier=tier, budget_bytes=budget_bytes, tell=tell
    )


def remarks(streams: dict[str, str], features: "Features") -> list[str]:
    """What was chosen for the user, on stderr."""
    counts = ", ".join(f"{(features.split == split).sum()} {split}" for split in ("train", "dev", "test"))
    chosen = " + ".join(streams.values())
    return [f"{features.dataset}: {chosen}; clips: {counts}; {len(features.classes)} classes", *features.notes]


def ratio_lines(configs: "list[RunConfig]") -> list[str]:
    """The feature lengths of each ratio, and how they were rounded."""
    from ..fuse.models.table import takes
    from ..fuse.ratio import describe_widths, parse_ratio

    fused = [c for c in configs if len(takes(c.model)) == 2]
    return list(dict.fromkeys(describe_widths(parse_ratio(c.ratio), c.width, c.heads, c.ratio_mode) for c in fused))


def train(
    configs: "list[RunConfig]",
    features: "Features",
    out: Path,
    device: str,
    shares: tuple[int, int],
    store_name: str,
    quiet: bool,
) -> "list[Run]":
    import torch

    from ..fuse.progress import Progress, StderrProgress
    from ..fuse.sweep import run_sweep

    workers, threads = shares
    torch.set_num_threads(threads)
    provenance = {"store": store_name, "command": command_line()}
    progress = Progress() if quiet else StderrProgress()
    return run_sweep(
        configs,
        features,
        out,
        device=device,
        provenance=provenance,
        progress=progress,
        workers=workers,
        threads=threads,
    )


def conclude(runs: "list[Run]", features: "Features", out: Path) -> "tuple[Summary, Path]":
    from ..fuse.report import write_report
    from ..fuse.summary import summarise

    summary = summarise(runs)
    return summary, write_report(out, summary, features, {"command": command_line()})


def show_table(summary: "Summary", report: Path) -> None:
    """The results for a person."""
    from rich.console import Console
    from rich.table import Table

    from ..fuse.report import spread, table_columns

    columns = table_columns(summary.rows)
    table = Table(box=None, pad_edge=False)
    for head, _ in columns:
        table.add_column(head, justify="left" if head == "model" else "right", no_wrap=True)
    for i, cells in enumerate(zip(*(cells for _, cells in columns), strict=True)):
        table.add_row(*cells, style="bold" if i == summary.best else "")
    wide = max(sum(max(map(len, (head, *cells))) + 2 for head, cells in columns), 80)
    Console(width=wide, highlight=False, markup=False).print(table)
    best = summary.rows[summary.best]
    click.echo(f"best on dev: {best.label}, {spread(best)} % of {best.clips} test clips")
    click.echo(f"report: {report}")


def show_json(summary: "Summary", features: "Features", report: Path) -> None:
    """The results for a program."""
    from ..fuse.report import results

    click.echo(json.dumps({**results(summary, features), "report": str(report)}, indent=2, allow_nan=False))


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["bmla", *sys.argv[1:]])
