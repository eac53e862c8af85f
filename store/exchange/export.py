"""Streams of a store as HDF5, a folder of .npy files, or webdataset tars.

Everything goes out: features, validity, clip table, failures, specifications and the store's identity, so that
`bmla store import` makes the same store again. One shard at a time is in memory.

Shape legend: N clips of the export's clip table, n of them with features, T steps, F the shape of one step's feature.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..clips import ClipTable
from ..errors import StreamNotDone, UnknownName, UsageError
from ..head import Head
from ..ledger import Failure
from ..merge import ShardReader
from ..place import digest_bytes
from ..quality import Quality, gathered
from ..store import Store
from .manifest import PACKED, PADDED, SAMPLES, ContentDigest, Manifest, StreamManifest

FORMATS = ("h5", "npy", "webdataset")


@dataclass(frozen=True)
class Source:
    """One stream on its way out.

    Attributes:
        rows: (N,) the store's row of each clip of the export.
        lengths: (N,) int64 steps; 0 where the clip failed.
        quality: facts on the clips' material, (N,) each.
    """

    store: Store
    head: Head
    rows: np.ndarray
    lengths: np.ndarray
    failures: tuple[Failure, ...]
    quality: Quality

    @property
    def name(self) -> str:
        return self.head.spec.name

    @property
    def finished(self) -> np.ndarray:
        """(n,) int64 rows of the export's clip table that have features, ascending."""
        return np.flatnonzero(self.lengths)

    @property
    def offsets(self) -> np.ndarray:
        """(n + 1,) int64: where each finished clip begins, end to end."""
        return np.concatenate([[0], np.cumsum(self.lengths[self.finished])]).astype(np.int64)

    @property
    def bytes(self) -> int:
        spec = self.head.spec
        return int(self.lengths.sum()) * int(np.prod(spec.feature_shape)) * np.dtype(spec.dtype).itemsize

    def clips(self, advance: Callable[[int], None]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Row in the export, values (T, *F) and validity (T,) of each finished clip, in order."""
        reader = ShardReader(self.store, self.name)
        for row in self.finished:
            clip = reader.clip(int(self.rows[row]))
            assert clip.values is not None
            assert clip.valid is not None
            advance(clip.values.nbytes)
            yield int(row), clip.values, clip.valid

    def manifest(self, content: ContentDigest) -> StreamManifest:
        head = self.head
        digest = content.hexdigest()
        return StreamManifest(head.spec, head.steps, head.compression, self.failures, digest, self.quality)


@dataclass(frozen=True)
class ExportPlan:
    """What is to be written: the root's document, the clip table and the streams."""

    manifest: Manifest
    clips: ClipTable
    sources: tuple[Source, ...]

    @property
    def bytes(self) -> int:
        return sum(source.bytes for source in self.sources)


def plan_export(
    store: Store, format_name: str, streams: Sequence[str] = (), split: str | None = None, padded: bool = False
) -> ExportPlan:
    """Decides everything, writes nothing.

    Args:
        streams: none: all.
        split: only the clips of this split; None: all.
        padded: (n, T, *F) with zeros behind each clip instead of clips end to end.

    Raises:
        UnknownName, UsageError: the format, the split, or a choice that the format does not have.
        StreamNotFound, StreamNotDone: see `Store.load`.
    """
    if format_name not in FORMATS:
        raise UnknownName("export format", format_name, FORMATS)
    if padded and format_name == "webdataset":
        raise UsageError("--padded: webdataset keeps one sample a clip, so there is nothing to pad")
    names = tuple(sorted(set(streams) or store.streams()))
    if not names:
        raise UsageError(f"{store.place}: has no stream to export")
    rows = store.clips.indices(split)
    if len(rows) == 0:
        raise UsageError(f'{store.place}: no clip is in split "{split}"')
    sources = tuple(source_of(store, name, rows) for name in names)
    layout = SAMPLES if format_name == "webdataset" else PADDED if padded else PACKED
    clips, identity = store.clips, store.identity
    if split is not None:
        clips = store.clips.select(rows.tolist())
        identity = replace(
            identity,
            options={**identity.options, "exported_split": split},
            clips=len(clips),
            clips_digest=clips.digest(),
            clips_file=digest_bytes(clips.to_parquet()),
        )
    return ExportPlan(Manifest(identity, layout, split, store.digest(names), names), clips, sources)


def source_of(store: Store, stream: str, rows: np.ndarray) -> Source:
    head = store.head(stream)
    if pending := store.pending(stream):
        raise StreamNotDone(
            f"{store.place}: stream {stream} is not done: {len(pending)} of {store.shards} shards are missing; "
            "run `bmla extract` again with the same options: it goes on where it stopped"
        )
    entries = list(store.entries(stream))
    lengths = np.concatenate([np.asarray(e.lengths, np.int64) for e in entries])
    wanted = set(store.clips.table["id"].take(rows).to_pylist())
    failures = tuple(f for e in entries for f in e.failures if f.clip in wanted)
    facts = gathered(((e.start, e.quality) for e in entries), len(lengths))
    quality = {
        name: tuple(None if x != x else x for x in column[rows].tolist())  # NaN is unlike itself: no number
        for name, column in facts.items()
    }
    return Source(store, head, rows, lengths[rows], failures, quality)


def run_export(plan: ExportPlan, format_name: str, out: Path, advance: Callable[[int], None] = lambda n: None) -> None:
    """Writes the plan, whole or not at all.

    Args:
        out: a file for "h5", a folder for "npy" and "webdataset"; nothing may be there yet.
        advance: called with bytes of features as they get done.

    Raises:
        UsageError: there is something at `out`, or the format can't hold the names.
        StoreError: the store is damaged, or the disk is full.
    """
    from . import h5, npy, webdataset

    {"h5": h5.write, "npy": npy.write, "webdataset": webdataset.write}[format_name](plan, out, advance)
