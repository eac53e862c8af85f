"""Streams computed from stored ones: standardised, projected on principal components, with every n-th step kept.

Statistics come from the valid steps of the training split alone, or of each fold's training clips; clips without a split have no
part in them. Those of a noise variant are the clean stream's, so that a model trained on one can be asked about the other. How
they are written: `deriving`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..store import Store, open_store
from ..store.errors import UsageError
from ..store.merge import ShardReader
from ..store.sealing import digest_json
from ..store.shard import ClipFeatures
from ..store.spec import StreamSpec, check_stream_name
from .deriving import Derived, make_streams
from .extraction import Summary
from .moments import Moments, deviations, principal

SPLIT = "train"
FORMS = "pca:COMPONENTS, standardise or subsample:N"
WORD = re.compile(r"(pca|subsample):([1-9][0-9]{0,5})|(standardise)")


@dataclass(frozen=True)
class Derivation:
    """What is done to a stream. number: components of "pca", n of "subsample"; None for "standardise"."""

    kind: str
    number: int | None = None

    @property
    def suffix(self) -> str:
        """What its streams' names end with."""
        return self.kind if self.number is None else f"{self.kind}-{self.number}"

    def name(self, stream: str, suffix: str = "") -> str:
        """The derived stream's name: of audio.hubert@white=10, audio.hubert.pca-128@white=10."""
        base, at, noise = stream.partition("@")
        return check_stream_name(f"{base}.{self.suffix}{suffix}{at}{noise}")


@dataclass(frozen=True, eq=False)
class Training:
    """The clips that statistics come from.

    Attributes:
        rows: (n,) of the clip table; None: the store's own training split.
        suffix: that tells streams of several such sets apart, such as ".fold-0".
        about: what the specification says of the set.
        called: it, to a person.
    """

    rows: np.ndarray | None = None
    suffix: str = ""
    about: Mapping[str, Any] = field(default_factory=lambda: {"split": SPLIT})
    called: str = f"the {SPLIT} split"


@dataclass(frozen=True)
class DeriveConfig:
    """One derivation of some streams of a store.

    Attributes:
        compression: "none" or "zstd", of the new streams.
        training: each makes a stream of every one of `streams`.
    """

    store: Path
    derivation: Derivation
    streams: tuple[str, ...]
    compression: str = "none"
    training: tuple[Training, ...] = (Training(),)


def read_derivation(text: str) -> Derivation:
    """Raises UsageError for anything but one of FORMS."""
    found = WORD.fullmatch(text)
    if found is None or (found[2] == "1" and found[1] == "subsample"):
        raise UsageError(f'--derive: "{text}" is no derivation: expected {FORMS}, such as pca:128 or subsample:2')
    return Derivation(found[1] or found[3], int(found[2]) if found[2] else None)


def derive(
    config: DeriveConfig,
    begin: Callable[[int, int], None],
    advance: Callable[[int], None],
    tell: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Makes the derived streams, or goes on with them.

    Args:
        begin: called once with (clips done before, clips in all), over all streams.
        advance: called with a number of clips as they get done.
        tell: gets a line for each stream on what it is computed with.

    Raises:
        StreamNotFound, StreamNotDone, UsageError, StoreMismatch, StoreBusy: before anything is written.
        StoreError: the store can't be read or written.
    """
    store = open_store(config.store, read_only=False)

    def made() -> list[Derived]:
        return [
            derived(store, stream, config.derivation, of, tell) for of in config.training for stream in config.streams
        ]

    return make_streams(store, made, config.compression, begin, advance)


def derived(
    store: Store, stream: str, derivation: Derivation, training: Training, tell: Callable[[str], None]
) -> Derived:
    """Computes the statistics, and says what the derived stream is. Writes nothing."""
    spec, steps = store.spec(stream), store.steps(stream)
    store.require(stream, np.arange(len(store.clips)))
    if derivation.kind == "subsample":
        every = derivation.number or 1
        law = {
            "frame_law": f"every {every}. step of {stream}: T = ceil(t / {every})",
            "rate_hz": spec.rate_hz / every,
        }
        made = specification(spec, derivation, derivation.name(stream), {}, **law)
        return Derived(stream, made, -(-steps // every), each(lambda values: values[::every]), every)
    check_vectors(spec, derivation)
    of = stream.partition("@")[0]
    if of not in store.streams():
        raise UsageError(
            f"{derivation.suffix} of {stream} takes its statistics from {of}, which {store.place} has not: extract it too"
        )
    moments, about = statistics(store, of, training, cross=derivation.kind == "pca")
    apply, length, line = transform(moments, derivation, stream, training)
    name = derivation.name(stream, training.suffix)
    made = specification(spec, derivation, name, {"statistics": about}, feature_shape=length)
    tell(f"{name}: {line}{about['steps']} valid steps of {about['clips']} clips of {training.called} of {of}")
    return Derived(stream, made, steps, each(apply))


def each(apply: Callable[[np.ndarray], np.ndarray]) -> Callable[[Sequence[ClipFeatures]], list[np.ndarray]]:
    """What is done to one clip's values, to those of several."""
    return lambda clips: [apply(clip.values) for clip in clips if clip.values is not None]


def transform(
    moments: Moments, derivation: Derivation, stream: str, training: Training
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...], str]:
    """What is done to a clip's values, the shape of a step then, and the beginning of a line on it."""
    mean = moments.mean
    assert mean is not None
    if derivation.kind == "standardise":
        spread = deviations(moments)
        return lambda values: (values.astype(np.float64) - mean) / spread, mean.shape, "by "
    components = derivation.number or 1
    if components >= moments.count:
        raise UsageError(
            f"pca:{components} of {stream}: {training.called} has {moments.count} valid steps, expected more than {components}"
        )
    directions, share = principal(moments, components)
    line = f"{components} components hold {share:.1%} of the variance of "
    return lambda values: (values.astype(np.float64) - mean) @ directions, (components,), line


def statistics(store: Store, stream: str, training: Training, cross: bool) -> tuple[Moments, dict[str, Any]]:
    """Moments over the valid steps of the training clips, and what they were computed from, for the specification.

    Raises:
        UsageError: there is no training split, or no valid step in it.
    """
    rows = store.clips.indices(SPLIT) if training.rows is None else training.rows
    if not len(rows):
        splits = ", ".join(f"{name} {count}" for name, count in store.clips.counts("split").items())
        raise UsageError(
            f"{store.place}: no clip is in the {SPLIT} split, which alone statistics may come from (splits: {splits})"
        )
    store.require(stream, np.arange(len(store.clips)))
    reader, moments, clips = ShardReader(store, stream), Moments(cross), 0
    for row in rows.tolist():
        clip = reader.clip(row)
        if clip.values is not None:
            moments.add(clip.values[clip.valid])
            clips += 1
    if not moments.count:
        raise UsageError(
            f"{store.place}: {stream} has no valid step in {training.called}: there is nothing to compute from"
        )
    shards = sorted({row // store.shard_size for row in rows.tolist()})
    features = digest_json([store.spec(stream).digest(), [[n, store.entry(stream, n).digest] for n in shards]])
    counts = {"clips": clips, "steps": moments.count, "features": features}
    return moments, {"stream": stream, **training.about, **counts}


def check_vectors(spec: StreamSpec, derivation: Derivation) -> None:
    """Raises UsageError for a stream that can't be standardised or projected."""
    shape = " x ".join(map(str, spec.feature_shape))
    if spec.dtype == "uint8":
        raise UsageError(f"{derivation.suffix} of {spec.name}: it holds {shape} pictures, expected features")
    if derivation.kind != "pca":
        return
    if len(spec.feature_shape) != 1:
        raise UsageError(f"{derivation.suffix} of {spec.name}: a step is {shape}, expected one vector")
    if (derivation.number or 0) > spec.feature_shape[0]:
        raise UsageError(
            f"pca:{derivation.number} of {spec.name}: a step has {shape} numbers, expected at most as many"
        )


def specification(
    spec: StreamSpec, derivation: Derivation, name: str, about: dict[str, Any], **changes: Any
) -> StreamSpec:
    """The derived stream's: all of the source's lies within it."""
    values = {
        "frame_law": spec.frame_law,
        "rate_hz": spec.rate_hz,
        "feature_shape": spec.feature_shape,
        **changes,
    }
    number = {"pca": "components", "subsample": "every"}.get(derivation.kind)
    return StreamSpec(
        name=name,
        modality=spec.modality,
        encoder=derivation.kind,
        dtype=spec.dtype,
        parameters={number: derivation.number} if number else {},
        noise=spec.noise,
        source={"stream": spec.name, "specification": spec.to_dict(), **about},
        versions={"bmla": __version__, "numpy": np.__version__},
        **values,
    )
