"""`bmla predict`: a trained run's answers about clips, by the very encoders that it was trained behind."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..store.errors import UsageError
from .extract import weight_folders
from .options import JSON, QUIET, device_of, device_options, echo_json, key_values, remote_options

if TYPE_CHECKING:
    from ..apply.cuts import Cut
    from ..apply.loaded import LoadedRun
    from ..apply.prediction import Prediction

EXAMPLES = """\b
Examples:
  bmla predict runs/lrw/balancemla_1-1_seed0_c958b9c3ec clip.mp4
  bmla predict RUN sentence.mpg --from 0.92 --to 1.20 --attention
  bmla predict RUN clips/ --weights weights --json > answers.json
  bmla predict RUN clip.mp4 --annotate seen.mp4
  bmla predict RUN --store stores/lrw.zarr --split test

A clip should be cut as those of the training: 29 frames around the word for LRW, the word and 0.04 s on either side for GRID.
"""


@click.command(epilog=EXAMPLES)
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("clips", metavar="[CLIP…]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--store",
    "store_path",
    metavar="PATH|URL",
    help="Without CLIP: ask about this store's clips. With it: the store that derived streams take their statistics from.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "test", "all"]),
    help="Which clips of --store.  [default: test]",
)
@click.option("--from", "start_s", type=click.FloatRange(min=0), metavar="S", help="Begin at this second of each file.")
@click.option("--to", "end_s", type=click.FloatRange(min=0), metavar="S", help="End at this second.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="K", help="Classes to name.")
@click.option("--attention", is_flag=True, help="Also say what looked where; with --json for every step.")
@click.option(
    "--annotate",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="MP4",
    help="Draw the face's track, the crop and the answer into the one CLIP, and write it here.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Look for the encoders' weights here first; also $BMLA_WEIGHTS.",
)
@click.option(
    "--model", "models", multiple=True, metavar="STREAM=WHERE", help="Where a stream's model lies, if elsewhere."
)
@click.option("--detector", type=click.Path(path_type=Path), help="Where the RetinaFace checkpoint lies, if elsewhere.")
@device_options
@remote_options
@JSON
@QUIET
def predict(
    run_folder: Path,
    clips: tuple[Path, ...],
    store_path: str | None,
    split: str | None,
    start_s: float | None,
    end_s: float | None,
    top: int,
    attention: bool,
    annotate: Path | None,
    weights: tuple[Path, ...],
    models: tuple[str, ...],
    detector: Path | None,
    device: str | None,
    gpu: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Ask a trained run about clips: files, folders of files, or the clips of a store.

    Goes the whole way from the file to the answer with the encoders and crops of the training, refused where they would not be
    the very same. Without a face the sound answers, without sound the face.
    """
    check_words(clips, store_path, split, start_s, end_s, annotate)
    place, folders, where = device_of(device, gpu), weight_folders(weights), key_values("--model", models)
    from ..apply.cuts import cuts_of
    from ..apply.loaded import load_run

    loaded = load_run(run_folder, weights=folders, models=where, detector=detector, store=store_path, device=place)
    if clips:
        cuts = cuts_of(clips, start_s, end_s)
        if annotate is not None and len(cuts) != 1:
            raise UsageError(f"--annotate: draws into one clip, got {len(cuts)}")
        found = ask(loaded, cuts, attention, quiet)
    else:
        found = ask_store(loaded, split or "test", attention, quiet)
    show_json(loaded, found, top, attention) if as_json else show(found, top, attention)
    if annotate is not None:
        from ..apply.annotate import annotate as draw

        draw(loaded, cuts[0], found[0], annotate)
        click.echo(f"annotated: {annotate}", err=True)
    if any(prediction.error for prediction in found):
        raise click.exceptions.Exit(1)


def check_words(
    clips: tuple[Path, ...],
    store_path: str | None,
    split: str | None,
    start_s: float | None,
    end_s: float | None,
    annotate: Path | None,
) -> None:
    """Raises UsageError for options that do not go together."""
    if not clips and store_path is None:
        raise UsageError("nothing to ask about: name files or folders, or a store by --store")
    if clips and split is not None:
        raise UsageError("--split: chooses among the clips of --store, but files were named")
    if not clips and (start_s is not None or end_s is not None or annotate is not None):
        raise UsageError("--from, --to and --annotate are for files: name one")
    if (end_s is not None or start_s is not None) and (start_s or 0.0) >= (float("inf") if end_s is None else end_s):
        raise UsageError(f"from {start_s or 0.0:g} to {end_s:g} s: expected 0 <= from < to")


def ask(loaded: "LoadedRun", cuts: "list[Cut]", attention: bool, quiet: bool) -> "list[Prediction]":
    """About files, under a progress bar where there are several."""
    from .progress import clip_progress

    versions = loaded.versions
    if versions and not quiet:
        click.echo(
            f"other versions than in training, numbers may differ in the last digits: {'; '.join(versions)}", err=True
        )
    with clip_progress(quiet or len(cuts) == 1, "predict") as progress:
        progress.begin(0, len(cuts))
        return list(loaded.predict_many(cuts, attention=attention, advance=progress.advance))


def ask_store(loaded: "LoadedRun", split: str, attention: bool, quiet: bool) -> "list[Prediction]":
    """About the clips of a store."""
    from .progress import clip_progress

    with clip_progress(quiet, "predict") as progress:
        progress.begin(0, loaded.stored_clips(None if split == "all" else split))
        chosen = None if split == "all" else split
        return list(loaded.predict_stored(chosen, attention=attention, advance=progress.advance))


def show(found: "list[Prediction]", top: int, attention: bool) -> None:
    """For a person; clips without an answer on stderr."""
    for prediction in found:
        for line in prediction.lines(top, attention):
            click.echo(line, err=prediction.error is not None)
    if score := score_line(found):
        click.echo(score)


def show_json(loaded: "LoadedRun", found: "list[Prediction]", top: int, attention: bool) -> None:
    """For a program."""
    document: dict[str, Any] = {
        "run": loaded.run.name,
        "dataset": loaded.run.document["features"]["dataset"],
        "model": loaded.run.config.model,
        "streams": loaded.run.streams,
        "clips": [prediction.to_dict(top, attention) for prediction in found],
    }
    echo_json(document)


def score_line(found: "list[Prediction]") -> str | None:
    """How many of the clips whose label is known were told right."""
    known = [p for p in found if p.label is not None and p.answer is not None]
    right = sum(p.best == p.label for p in known)
    return f"right: {right} of {len(known)} ({right / len(known):.1%})" if known else None
