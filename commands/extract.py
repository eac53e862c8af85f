"""`bmla extract`: a data set's clips -> a feature store."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..extract.datasets import table as datasets
from ..extract.encoders import table as encoders
from ..store.errors import UsageError
from .completion import known_streams, lists_of
from .derive import derive
from .from_run import from_run
from .options import JSON, QUIET, STORES, device_of, echo_json, key_values, split_names

if TYPE_CHECKING:
    from ..extract.extraction import Summary
    from ..extract.faces.finding import FaceFinding
    from ..extract.plan import Plan

EXAMPLES = """\b
Examples:
  bmla extract --dataset lrw --gpu 0
  bmla extract --dataset grid --target word --root data/grid --store stores/words.zarr
  bmla extract --dataset grid --target letter --stream mouth.dct,audio.logspec --limit 200
  bmla extract --dataset lrw --stream audio.hubert --model audio.hubert=microsoft/wavlm-base --layer audio.hubert=9
  bmla extract --dataset grid --stream mouth.roi --parameter mouth.roi.crop_px=96 --parameter mouth.roi.colour=rgb
  bmla extract --dataset grid --stream audio.logspec,audio.logspec@white=10,audio.logspec@mask=0.4
  bmla extract --dataset lrw --stream mouth.roi --mouth-box 79,115,175,211
  bmla extract --dataset manifest --root clips.csv --dry-run
  bmla extract --store stores/lrw.zarr --derive pca:128 --stream audio.hubert
  bmla extract --store stores/lrw.zarr --from-run runs/lrw/bgru-vo_seed0_1a2b3c4d5e --stream visual.bgru

Killed or stopped? Run the same command again: it goes on after the last finished shard.
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--dataset",
    type=click.Choice(sorted(datasets.ADAPTERS)),
    help="Which data set; see `bmla datasets`.  [required, but for --derive and --from-run]",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Its folder (or manifest).  [default: $BMLA_DATA/DATASET or data/DATASET]",
)
@click.option(
    "--store", type=click.Path(path_type=Path), help="The store to make or go on with.  [default: stores/DATASET.zarr]"
)
@click.option(
    "--stream",
    "streams",
    multiple=True,
    metavar="NAME",
    help="What to extract, repeatable or with commas; see `bmla encoders`.  [default: the store's own; else all whose weights are here]",
    shell_complete=lists_of(known_streams),
)
@click.option(
    "--gpu", "gpus", metavar="N", help="GPU number N, or several such as 0,1: a process each; 0,0: two on one GPU."
)
@click.option("--device", metavar="NAME", help="cpu or cuda:N.  [default: cpu]")
@click.option("--target", help="grid: word, command, colour, preposition, letter, digit or adverb.")
@click.option(
    "--option",
    "adapter_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other choice of the data set's adapter, such as margin_s=0.1 or split=sentence.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only N clips, drawn evenly at random (always the same)."
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Look for model weights here first; also $BMLA_WEIGHTS.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="STREAM=ID",
    help="Another model for a stream: a Hugging Face id, a folder, or a variant.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="STREAM=N",
    help="Which hidden layer to keep, several such as 6,9,12, or all.  [default: the last]",
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="STREAM.NAME=VALUE",
    help="A parameter of a stream's encoder, such as mouth.roi.crop_px=96; `bmla encoders` lists them.",
)
@click.option(
    "--detector",
    type=click.Path(path_type=Path),
    help="A RetinaFace checkpoint (.pth).  [default: the embedded mobilenet0.25]",
)
@click.option(
    "--face-policy",
    type=click.Choice(["detect", "fixed", "given"]),
    help="Find faces by the detector, take a fixed box, or boxes and landmarks from files.  [default: as the next options say]",
)
@click.option(
    "--detect-every", type=click.IntRange(min=1), metavar="K", help="Detect in every K-th frame.  [default: 1]"
)
@click.option("--face-box", metavar="X0,Y0,X1,Y1", help="Fixed box of the face, in pixels.")
@click.option("--mouth-box", metavar="X0,Y0,X1,Y1", help="Fixed box of the mouth, or picture: all of each picture.")
@click.option(
    "--faces",
    "given_faces",
    type=click.Path(path_type=Path, exists=True),
    help="Given boxes or landmarks: a folder of CLIP.npy, or a table clip,frame,x0,y0,x1,y1.",
)
@click.option("--noise-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all @noise streams.")
@click.option(
    "--noise-file", type=click.Path(path_type=Path, exists=True), help="The recording that a stream @file=SNR adds."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes; with GPUs: those that decode and crop for them.  [default: one a core]",
)
@click.option(
    "--cluster", metavar="WHERE", help="A Dask cluster: local:N or tcp://host:port.  [default: this machine, without]"
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Clips a shard of a new store.  [default: by the number of clips, at most 256]",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "zstd"]),
    default="none",
    show_default=True,
    help="Of new streams: none can be mapped into memory.",
)
@click.option(
    "--max-failed",
    default="1%",
    show_default=True,
    metavar="SHARE",
    help="Exit with 1 when a larger share of the clips failed.",
)
@click.option(
    "--derive",
    "derivation",
    metavar="HOW",
    help="Make new streams of those of --store: pca:128, standardise (by the training split alone) or subsample:2.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=3),
    metavar="K",
    help="With --derive: a stream for each fold of a cross-validation, by its training clips alone.",
)
@click.option(
    "--fold-by",
    default="group",
    show_default=True,
    type=click.Choice(["group", "speaker", "session"]),
    help="As of `bmla fuse`.",
)
@click.option(
    "--from-run",
    "runs",
    multiple=True,
    metavar="RUN",
    help="Make a new stream, --stream NAME, of what a trained run's front end makes of its stream; a run a fold, or a pattern of them.",
)
@click.option("--retry-failed", is_flag=True, help="Also try the clips again that failed.")
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="On GPUs: compile the networks first, some minutes that a long extraction may win back.",
)
@click.option("--profile", is_flag=True, help="Show how long each stage worked and waited.")
@click.option("--dry-run", is_flag=True, help="Show the plan, try a few clips, say how long it will take, and stop.")
@JSON
@QUIET
def extract(
    dataset: str | None,
    root: Path | None,
    store: Path | None,
    streams: tuple[str, ...],
    device: str | None,
    gpus: str | None,
    target: str | None,
    adapter_options: tuple[str, ...],
    limit: int | None,
    weights: tuple[Path, ...],
    models: tuple[str, ...],
    layers: tuple[str, ...],
    parameters: tuple[str, ...],
    detector: Path | None,
    face_policy: str | None,
    detect_every: int | None,
    face_box: str | None,
    mouth_box: str | None,
    given_faces: Path | None,
    noise_seed: int,
    noise_file: Path | None,
    workers: int | None,
    cluster: str | None,
    shard_size: int | None,
    compression: str,
    max_failed: str,
    derivation: str | None,
    folds: int | None,
    fold_by: str,
    runs: tuple[str, ...],
    retry_failed: bool,
    compiled: bool,
    profile: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Extract features of sound and sight into a store.

    Decodes each clip, finds and tracks the face, and writes one array a stream. A clip that fails is recorded with its
    reason and left out; nothing is made up.
    """
    allowed = share(max_failed)
    if folds is None and fold_by != "group":
        raise UsageError("--fold-by: goes with --folds")
    if runs:
        named = tuple(stream_names(split_names(streams)))
        failed = from_run(runs, store, named, devices_of(device, gpus, None), compression, as_json, quiet)
        if failed > allowed:
            raise click.exceptions.Exit(1)
        return
    if derivation is not None:
        named = tuple(stream_names(split_names(streams)))
        if derive(derivation, store, named, compression, as_json, quiet, folds or 0, fold_by) > allowed:
            raise click.exceptions.Exit(1)
        return
    if folds is not None:
        raise UsageError("--folds: of --derive alone: an extraction is the same for all folds")
    if dataset is None:
        raise click.MissingParameter(param_hint="--dataset", param_type="option")
    devices = devices_of(device, gpus, cluster)
    if compiled and not devices:
        raise UsageError("--compile: only networks on a GPU are compiled: add --gpu 0")
    path = store or STORES / f"{dataset}.zarr"
    folders = weight_folders(weights)
    plan = plan_of(
        dataset=dataset,
        root=root or data_root(dataset),
        store=path,
        tools=dict(
            streams=chosen_streams(split_names(streams), path, folders),
            device=devices[0] if devices else "cpu",
            weights=folders,
            models=key_values("--model", models),
            layers=key_values("--layer", layers),
            parameters=encoders.read_parameters(key_values("--parameter", parameters)),
            detector_weights=detector,
            finding=finding_of(face_policy, detect_every, face_box, mouth_box, given_faces),
            noise_seed=noise_seed,
            noise_file=noise_file,
            compiled=compiled,
        ),
        options={**({"target": target} if target else {}), **key_values("--option", adapter_options)},
        limit=limit,
        shard_size=shard_size,
        compression=compression,
        workers=workers or os.cpu_count() or 1,
        devices=devices,
        cluster=cluster,
        retry_failed=retry_failed,
    )
    if not quiet:
        show_plan(plan)
    if dry_run:
        show_estimate(plan, as_json)
        return
    summary = run(plan, quiet)
    echo_json(to_json(summary)) if as_json else show_summary(summary, profile)
    if summary.failed_share > allowed:
        raise click.exceptions.Exit(1)


def plan_of(*, tools: dict[str, Any], **config: Any) -> "Plan":
    from ..extract.plan import ExtractConfig, make_plan
    from ..extract.tools import ToolConfig

    return make_plan(ExtractConfig(tools=ToolConfig(**tools), **config))


def run(plan: "Plan", quiet: bool) -> "Summary":
    """The extraction under a progress bar on stderr."""
    from ..extract.extraction import extract as work
    from .progress import clip_progress

    with clip_progress(quiet) as progress:
        return work(plan, progress.begin, progress.advance, lambda line: None if quiet else click.echo(line, err=True))


def devices_of(device: str | None, gpus: str | None, cluster: str | None) -> tuple[str, ...]:
    """The GPUs asked for; none for the CPU. Raises UsageError where one is not there: on a cluster, only workers know."""
    words = [word.strip() for word in gpus.split(",") if word.strip()] if gpus is not None else []
    if bad := [word for word in words if not (word.isascii() and word.isdigit())]:
        raise UsageError(f'--gpu: "{bad[0]}" is no number of a GPU: expected such as 0 or 0,1')
    if gpus is not None and not words:
        raise UsageError("--gpu: expected a number such as 0, or several such as 0,1")
    if cluster is not None:
        return ("cuda",) if words or (device or "cpu") != "cpu" else ()
    names = [device_of(device, int(word)) for word in words] or [device_of(device, None)]
    return tuple(name for name in names if name != "cpu")


def finding_of(
    policy: str | None, every: int | None, face_box: str | None, mouth_box: str | None, given: Path | None
) -> "FaceFinding":
    """How faces are found; the policy follows from the other options where it is not named."""
    from ..extract.faces.finding import PICTURE, FaceFinding

    implied = "given" if given else "fixed" if face_box or mouth_box else "detect"
    return FaceFinding(
        policy=policy or implied,
        every=every or 1,
        face_box=box("--face-box", face_box) if face_box else None,
        mouth_box=PICTURE if mouth_box == PICTURE else box("--mouth-box", mouth_box) if mouth_box else None,
        given=given,
    )


def box(option: str, text: str) -> tuple[int, int, int, int]:
    """Raises UsageError for anything but four whole numbers."""
    words = text.split(",")
    if len(words) != 4 or not all(word.strip().isdigit() for word in words):
        raise UsageError(f'{option}: "{text}" is no box: expected X0,Y0,X1,Y1 in pixels, such as 79,115,175,211')
    x0, y0, x1, y1 = map(int, words)
    return x0, y0, x1, y1


def data_root(dataset: str) -> Path:
    """$BMLA_DATA/DATASET, else data/DATASET."""
    return Path(os.environ.get("BMLA_DATA", "data")) / dataset


def weight_folders(given: tuple[Path, ...]) -> tuple[Path, ...]:
    """Folders to look in: those given, then those of $BMLA_WEIGHTS. Raises UsageError for one that is missing."""
    if missing := [p for p in given if not p.is_dir()]:
        raise UsageError(f"--weights: {missing[0]} is no folder")
    return (*given, *(Path(p) for p in os.environ.get("BMLA_WEIGHTS", "").split(os.pathsep) if p))


def chosen_streams(given: tuple[str, ...], store: Path, folders: tuple[Path, ...]) -> tuple[str, ...]:
    """What was asked for; else the store's own; else everything whose weights are here, and a line on what is not."""
    if given:
        from ..extract.noise.table import parse

        names = stream_names(given)
        for name in names:
            parse(name)
        return tuple(names)
    from ..extract.available import default_streams
    from ..extract.plan import streams_of

    if there := streams_of(store):
        return tuple(there)
    chosen, missing = default_streams(folders)
    if missing:
        click.echo(
            f"without {', '.join(missing)}: the weights are not here (`bmla doctor` says how to get them)", err=True
        )
    return tuple(chosen)


def stream_names(words: tuple[str, ...]) -> list[str]:
    """Names that were split at commas, which also stand between the noises of one stream."""
    names: list[str] = []
    for word in words:
        if "=" in word and "@" not in word and names:
            names[-1] += f",{word}"
        else:
            names.append(word)
    return names


def share(text: str) -> float:
    """A share such as 1% or 0.01. Raises UsageError for anything else."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f'--max-failed: "{text}" is no share: expected such as 1% or 0.01')
    return value


def show_plan(plan: "Plan") -> None:
    """What is about to be done, on stderr."""
    from ..extract.report import plan_lines

    for line in plan_lines(plan):
        click.echo(line, err=True)


def show_estimate(plan: "Plan", as_json: bool) -> None:
    from dataclasses import asdict

    from ..extract.estimate import estimate
    from ..extract.report import estimate_line

    found = estimate(plan)
    echo_json(asdict(found)) if as_json else click.echo(estimate_line(plan, found))


def show_summary(summary: "Summary", profile: bool) -> None:
    from ..extract.report import profile_lines, summary_lines

    for line in (*summary_lines(summary), *(profile_lines(summary) if profile else ())):
        click.echo(line)


def to_json(summary: "Summary") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(summary)
