"""`bmla store export` and `bmla store import`: features to and from HDF5, NumPy files and webdataset tars."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..store.errors import UsageError
from .options import JSON, QUIET, echo_json, find_store, split_names
from .share import remote_options

if TYPE_CHECKING:
    from ..store.exchange import ArrayImport
    from ..store.exchange.target import Imported

NEEDED = ("modality", "rate_hz", "values", "dataset", "task", "provenance")  # of arrays that are no export of bmla
MOST_FAILURES_SHOWN = 5


@click.command(
    epilog="\b\nExamples:\n  bmla store export stores/grid.zarr --format h5 --stream audio.logspec,mouth.dct --out grid.h5\n"
    "  bmla store export stores/grid.zarr --format npy --split train --padded --out grid-train\n"
    "  bmla store export stores/grid.zarr --format webdataset --out grid-tars\n"
)
@click.argument("path", metavar="[STORE]", required=False)
@click.option("--format", "format_name", default="h5", show_default=True, metavar="NAME", help="h5, npy or webdataset.")
@click.option("--stream", "streams", multiple=True, metavar="NAME", help="Only these, repeatable or with commas.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new file (h5) or folder.")
@click.option("--split", metavar="NAME", help="Only clips of train, dev or test.")
@click.option("--padded", is_flag=True, help="n x T arrays with zeros behind each clip, instead of clips end to end.")
@remote_options
@QUIET
@JSON
def export(
    path: str | None,
    format_name: str,
    streams: tuple[str, ...],
    out: Path,
    split: str | None,
    padded: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write streams in another format, with clip table, failures and specifications. `import` makes the same store of it."""
    from ..store import open_store
    from ..store.exchange import plan_export, run_export
    from .progress import byte_progress

    plan = plan_export(open_store(find_store(path)), format_name, split_names(streams), split, padded)
    with byte_progress("export", plan.bytes, quiet) as bar:
        run_export(plan, format_name, out, bar.advance)
    failed = {source.name: len(source.failures) for source in plan.sources}
    if as_json:
        echo_json({"out": str(out), "clips": len(plan.clips), "bytes": plan.bytes, "failed": failed})
        return
    click.echo(f"{out}: {len(plan.clips)} clips, {', '.join(failed)}, {plan.bytes / 1e6:.1f} MB of features")
    for name, count in failed.items():
        if count:
            click.echo(f"{name}: {count} clips without features (they are listed)", err=True)


@click.command(
    "import",
    epilog="\b\nExamples:\n  bmla store import grid.h5 --store stores/grid.zarr\n"
    "  bmla store import feats.npz --store stores/mine.zarr --stream audio.mine --modality audio --rate-hz 50 \\\n"
    "    --values feats --lengths lengths --labels labels --splits splits --dataset mine --task emotion \\\n"
    '    --provenance "wav2vec 2.0 base, layer 9, by Kim"\n'
    "  bmla store import mosi.npz --store stores/mosi.zarr --stream visual.facet --modality visual --rate-hz 15 \\\n"
    "    --split-groups train,valid,test --values vision --lengths vision_lengths --labels classification_labels \\\n"
    '    --ids id --dataset mosi --task sentiment --provenance "MMSA, unaligned_50"\n',
)
@click.argument("path", metavar="FILE_OR_DIR", type=click.Path(path_type=Path))
@click.option(
    "--store",
    "target",
    metavar="PATH",
    required=True,
    help="The store to make, or one of the same clips that gets another stream.",
)
@click.option(
    "--stream",
    "streams",
    multiple=True,
    metavar="NAME",
    help="The stream's name; of an export of bmla: only these.  [default: all]",
)
@click.option("--modality", metavar="NAME", help="audio, visual or audio-visual.")
@click.option("--rate-hz", type=float, metavar="HZ", help="Steps per second.")
@click.option("--values", metavar="KEY", help="Features: N x T x L, or steps x L with --offsets.")
@click.option("--lengths", metavar="KEY", help="Steps of each clip.  [default: all T]")
@click.option("--offsets", metavar="KEY", help="N + 1 numbers: where each clip begins, end to end.")
@click.option("--valid", metavar="KEY", help="Which steps are valid.  [default: all]")
@click.option("--layer", type=int, metavar="K", help="Which one, counted from 0, of N x layers x T x L.")
@click.option("--labels", metavar="KEY", help="Label of each clip: text or whole numbers.")
@click.option(
    "--classes", multiple=True, metavar="NAMES", help="Class names in order.  [default: those of the labels, sorted]"
)
@click.option("--splits", metavar="KEY", help="Split of each clip: train, dev (or valid), test.")
@click.option(
    "--split-groups",
    multiple=True,
    metavar="NAMES",
    help="Look the keys up in each of these, such as train,valid,test.",
)
@click.option("--ids", metavar="KEY", help="Id of each clip.  [default: row numbers]")
@click.option("--durations", metavar="KEY", help="Seconds of each clip.  [default: steps / rate]")
@click.option("--dtype", metavar="NAME", help="Convert to float16, float32 or uint8.")
@click.option("--dataset", metavar="NAME", help="The data set's name.")
@click.option("--task", metavar="NAME", help="Such as emotion.")
@click.option("--provenance", metavar="TEXT", help="Where the features come from and how they were made.")
@QUIET
@JSON
def import_(path: Path, target: str, streams: tuple[str, ...], quiet: bool, as_json: bool, **words: Any) -> None:
    """Make a store of an export of bmla, or of arrays in HDF5, .npz or .npy. Pickles are never opened."""
    from ..store.exchange import import_arrays, import_export, is_export
    from .progress import clip_progress

    names = split_names(streams)
    given = {key: value for key, value in words.items() if value not in (None, ())}
    with clip_progress(quiet, "import") as progress:
        if is_export(path):
            refuse_words(path, given)
            done = import_export(path, target, names, progress.begin, progress.advance)
        else:
            choice = choice_of(path, names, given)
            done = [import_arrays(path, target, choice, progress.begin, progress.advance)]
    if as_json:
        echo_json([asdict(each) for each in done])
        return
    for each in done:
        show(each)


def refuse_words(path: Path, given: dict[str, Any]) -> None:
    """An export says everything itself. Raises UsageError where the user does as well."""
    if given:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in sorted(given))
        raise UsageError(f"{path}: an export of bmla, which says itself what is in it: leave out {options}")


def choice_of(path: Path, streams: tuple[str, ...], given: dict[str, Any]) -> "ArrayImport":
    """Raises UsageError for what is missing."""
    from ..store.exchange import ArrayImport

    missing = [f"--{key.replace('_', '-')}" for key in NEEDED if key not in given]
    if len(streams) != 1:
        missing.insert(0, "--stream (one)")
    if missing:
        raise UsageError(f"{path}: no export of bmla, so these must be said: {', '.join(missing)}")
    for key in ("split_groups", "classes"):
        given[key] = split_names(given.get(key, ()))
    return ArrayImport(stream=streams[0], **given)


def show(done: "Imported") -> None:
    click.echo(f"{done.store}: {done.stream}, {done.clips} clips, {len(done.failures)} without features")
    for failure in done.failures[:MOST_FAILURES_SHOWN]:
        click.echo(f"  {failure.clip}: {failure.error}: {failure.message}", err=True)
    if len(done.failures) > MOST_FAILURES_SHOWN:
        click.echo(
            f"  and {len(done.failures) - MOST_FAILURES_SHOWN} more: `bmla store failures {done.store}`", err=True
        )
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
