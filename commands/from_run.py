"""`bmla extract --from-run`: features of a run's trained front end as a new stream of a store.

Here `fuse`, which knows what a run is, and `extract`, which knows how a derived stream is written, meet: neither imports the other.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..store.errors import UsageError
from .derive import check_idle
from .options import echo_json
from .progress import clip_progress

if TYPE_CHECKING:
    from ..extract.deriving import Derived
    from ..fuse.run import Run
    from ..store import Store
    from ..store.spec import StreamSpec

SERVES = {"runs", "store", "streams", "gpus", "device", "compression", "max_failed", "as_json", "quiet"}
SPLITS = ("train", "dev")


def from_run(
    words: tuple[str, ...],
    store: Path | None,
    streams: tuple[str, ...],
    devices: tuple[str, ...],
    compression: str,
    as_json: bool,
    quiet: bool,
) -> float:
    """Writes the streams, prints the summary, and returns the largest share of failed clips.

    Args:
        words: folders of runs, or patterns of such: runs/lrw/bgru-vo_fold*.
        streams: what to call the features, with the noise that they are of: visual.bgru, visual.bgru@blur=4.

    Raises:
        UsageError: options that have nothing to do with it; no store, stream or run; a run of other features.
    """
    from ..extract.deriving import make_streams
    from ..extract.report import summary_lines
    from ..store import open_store

    check_idle(SERVES, "--from-run")
    if store is None or not streams:
        raise UsageError("--from-run: name the store by --store and what to call the features by --stream")
    if len(bases := {name.partition("@")[0] for name in streams}) > 1:
        raise UsageError(f"--from-run: a run's features have one name, got {' and '.join(sorted(bases))}")
    if len(set(devices)) > 1:
        raise UsageError("--from-run: works on one GPU: name one")
    opened = open_store(store, read_only=False)
    runs = runs_of(words)

    def made() -> "list[Derived]":
        return [derived(opened, run, stream, devices[0] if devices else "cpu") for run in runs for stream in streams]

    with clip_progress(quiet, "derive") as progress:
        summary = make_streams(opened, made, compression, progress.begin, progress.advance)
    if as_json:
        echo_json(asdict(summary))
    else:
        for line in summary_lines(summary):
            click.echo(line)
    return summary.failed_share


def runs_of(words: tuple[str, ...]) -> "list[Run]":
    """The runs of some folders. Several are those of a cross-validation, one a fold, which differ in nothing else.

    Raises:
        UsageError: there is none, or two would write the same stream.
    """
    from dataclasses import replace

    from ..fuse.run import load_run

    places = [Path(word) for word in words]
    found = [path for p in places for path in (sorted(p.parent.glob(p.name)) if "*" in p.name else [p])]
    if not found:
        raise UsageError(f"--from-run: no run fits {words[0]}")
    runs = [load_run(path) for path in found]
    if len(runs) > 1:
        same = {replace(run.config, fold=0) for run in runs}
        if len(same) > 1 or len({run.config.fold for run in runs}) < len(runs):
            raise UsageError(
                f"--from-run: {len(runs)} runs that are not the folds of one setting, such as {runs[0].name} and "
                f"{runs[1].name}: expected one run, or one a fold"
            )
    return runs


def derived(store: "Store", run: "Run", stream: str, device: str) -> "Derived":
    """A run's features of one stream, ready to be written. A run of a fold writes the stream of that fold.

    Raises:
        UsageError: the run is of a model without such features, or was trained on other features than the store has.
        StreamNotFound, StreamNotDone, RunDamaged.
    """
    import numpy as np

    from ..extract.deriving import Derived
    from ..extract.encoders.device import computing
    from ..fuse.fold_streams import fold_name, stored_names
    from ..fuse.frames import FrameFeatures
    from ..store.reading.device import pick_device
    from ..store.spec import check_stream_name

    at, noise = stream.partition("@")[1:]
    features = FrameFeatures(run, device)
    trained = run.document["features"]["streams"][features.modality]
    names = stored_names(trained["name"], store.streams(), run.config.folds)
    own = names[run.config.fold] if len(names) > 1 else names[0]
    check_same(store, run, own, trained["digest"])
    source = f"{own}{at}{noise}"
    spec = store.spec(source)
    store.require(source, np.arange(len(store.clips)))
    name = check_stream_name(fold_name(stream, run.config.fold) if run.config.folds else stream)
    place = pick_device(device)

    def apply(clips: Sequence[Any]) -> list[np.ndarray]:
        with computing("fp32", place):
            return features([(clip.values, clip.valid) for clip in clips])

    return Derived(source, specification(store, run, name, spec, features), store.steps(source), apply)


def check_same(store: "Store", run: "Run", stream: str, digest: str) -> None:
    """Raises UsageError where the store's stream is not the one that the run was trained on."""
    there = store.spec(stream).digest()
    if there != digest:
        raise UsageError(
            f"{run.name} was trained on other features than {stream} of {store.place}: expected the specification "
            f"{digest[:12]}, got {there[:12]}"
        )


def specification(store: "Store", run: "Run", name: str, spec: "StreamSpec", features: Any) -> "StreamSpec":
    """Of the derived stream: the run, what it was trained on, and all of the source's within it."""
    from importlib import metadata

    from .. import __version__
    from ..store.spec import StreamSpec

    about = {
        "name": run.name,
        "digest": run.digest(),
        "dataset": run.document["features"]["dataset"],
        "trained_on": run.document["features"]["digest"],
        "folds": run.config.folds,
        "fold": run.config.fold,
        "seed": run.config.seed,
        "clips": clips_seen_by(store, run),
    }
    return StreamSpec(
        name=name,
        modality=spec.modality,
        encoder=run.config.model,
        dtype="float16",
        feature_shape=(features.length,),
        rate_hz=spec.rate_hz,
        frame_law=f"one step for each of {spec.name}",
        weights={"source": f"run {run.name}", "sha256": run.weights_digest()},
        parameters={"features": features.described},
        noise=spec.noise,
        source={"stream": spec.name, "specification": spec.to_dict(), "run": about},
        versions={"bmla": __version__, **{lib: metadata.version(lib) for lib in ("torch", "numpy")}},
    )


def clips_seen_by(store: "Store", run: "Run") -> dict[str, Any]:
    """Which of the store's clips the run was trained on and chosen by: a bit for each row of the clip table."""
    from ..fuse.data import units_of_store
    from ..fuse.leakage import to_bits
    from ..fuse.run_clips import clips_seen

    ids, recordings = store.clips.column("id"), units_of_store(store)["group"]
    seen = {split: clips_seen(run.path, ids, recordings, split) for split in SPLITS}
    return {"table": store.clips.digest(), **{split: to_bits(clips) for split, clips in seen.items()}}
