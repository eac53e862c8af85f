"""Import of what `bmla store export` wrote as HDF5 or .npy: everything is known, so the same store comes out again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..clips import ClipTable
from ..errors import StoreError, StreamNotFound, UsageError
from ..identity import Identity
from ..ledger import Failure
from ..quality import Quality, row_of
from ..shard import ClipFeatures
from ..spec import StreamSpec
from ..store import Store, create_store
from .arrays import ArrayFile, Rows, fetch, open_arrays
from .manifest import PACKED, SAMPLES, Manifest, StreamManifest
from .target import (
    PASSES,
    Advance,
    Begin,
    Imported,
    Incoming,
    check_incoming,
    existing_store,
    silent,
    write_incoming,
)


def is_export(path: Path) -> bool:
    """Whether bmla exported this. Raises as `open_arrays`."""
    with open_arrays(path) as file:
        return file.document() is not None


def import_export(
    path: Path, target: str | Path, streams: Sequence[str] = (), begin: Begin = silent, advance: Advance = silent
) -> list[Imported]:
    """Makes the store that was exported, or adds the streams to it.

    Args:
        streams: none: all.
        begin: called once with 0 and how many clips there are, each counted when it is checked and when it is written.
        advance: called with a number of clips as they get done.

    Raises:
        StreamNotFound: a stream that the export has not.
        StoreMismatch: the target is made from something else.
        StoreError: the export is damaged; nothing was written.
    """
    with open_arrays(path) as file:
        manifest, clips = read_root(file, path)
        names = chosen(manifest, streams, path)
        incoming = [read_stream(file, manifest, clips, name, path) for name in names]
        if existing_store(target) is not None:  # what would not fit is said before anything is read
            existing = make_store(target, manifest.identity, clips)
            for each in incoming:
                existing.check_stream(each.spec, each.steps)
        begin(0, PASSES * len(clips) * len(incoming))
        ids = clips.table["id"].to_pylist()
        contents = [check_incoming(each, ids, manifest.identity.shard_size, advance) for each in incoming]
        store = make_store(target, manifest.identity, clips)
        return [write_incoming(store, each, content, advance) for each, content in zip(incoming, contents, strict=True)]


def make_store(target: str | Path, identity: Identity, clips: ClipTable) -> Store:
    """The store that was exported, without streams; or the one that is there, if it is made from the same."""
    return create_store(
        target,
        dataset=identity.dataset,
        task=identity.task,
        classes=identity.classes,
        clips=clips,
        options=identity.options,
        shard_size=identity.shard_size,
    )


def read_root(file: ArrayFile, path: Path) -> tuple[Manifest, ClipTable]:
    """The root's document and the clip table that it vouches for."""
    text = file.document()
    if text is None:
        raise UsageError(f"{path}: no export of bmla: say what is in it with --stream, --values and the others")
    manifest = Manifest.from_json(text, str(path))
    if manifest.layout == SAMPLES:
        raise UsageError(f"{path}: a webdataset export can't be imported: export the store as h5 or npy")
    clips = file.clips()
    if len(clips) != manifest.identity.clips or clips.digest() != manifest.identity.clips_digest:
        raise StoreError(f"{path}: damaged: its clip table is not the one that was exported")
    return manifest, clips


def chosen(manifest: Manifest, streams: Sequence[str], path: Path) -> tuple[str, ...]:
    for stream in streams:
        if stream not in manifest.streams:
            raise StreamNotFound(f'{path}: no stream "{stream}"; it has: {", ".join(manifest.streams) or "none"}')
    return tuple(sorted(set(streams))) or manifest.streams


@dataclass(frozen=True)
class OwnStream:
    """See `target.Incoming`.

    Attributes:
        bounds: (n + 1,) int64 ends of the clips in a packed stream; None for a padded one.
        lengths: (N,) int64; 0 where the clip failed.
        places: (N,) int64 which of the n clips of the arrays this is.
    """

    where: str
    spec: StreamSpec
    steps: int
    compression: str
    content: str | None
    values: Rows
    valid: Rows
    bounds: np.ndarray | None
    lengths: np.ndarray
    places: np.ndarray
    failures: dict[int, Failure]
    quality: Quality

    def block(self, start: int, stop: int) -> list[ClipFeatures]:
        rows = np.flatnonzero(self.lengths[start:stop]) + start
        found = dict(zip(rows.tolist(), self._features(rows), strict=True)) if len(rows) else {}
        clips = [found.get(row) or ClipFeatures(None, None, self.failures[row]) for row in range(start, stop)]
        return [replace(clip, quality=row_of(self.quality, row)) for row, clip in enumerate(clips, start)]

    def _features(self, rows: np.ndarray) -> list[ClipFeatures]:
        """Of finished clips, which stand next to each other in the arrays."""
        first, last = int(self.places[rows[0]]), int(self.places[rows[-1]]) + 1
        if self.bounds is None:
            values, valid = (fetch(array, slice(first, last), self.where) for array in (self.values, self.valid))
            return [ClipFeatures(values[i, :n], valid[i, :n]) for i, n in enumerate(self.lengths[rows])]
        begin, *ends = self.bounds[first : last + 1].tolist()
        values, valid = (fetch(array, slice(begin, ends[-1]), self.where) for array in (self.values, self.valid))
        cuts = [end - begin for end in ends[:-1]]
        return [ClipFeatures(*parts) for parts in zip(np.split(values, cuts), np.split(valid, cuts), strict=True)]


def read_stream(file: ArrayFile, manifest: Manifest, clips: ClipTable, stream: str, path: Path) -> Incoming:
    """Holds the shapes, types and indices of a stream against each other and against its document."""
    where = f"{path}: {stream}"
    text = file.document(stream)
    if text is None:
        raise StoreError(f"{where}: damaged: its document is missing")
    about = StreamManifest.from_json(text, stream, where, len(clips))
    packed = manifest.layout == PACKED
    names = ("values", "valid", "clips", "offsets" if packed else "length")
    try:
        values, valid = (file.array(f"streams/{stream}/{name}", sparse=not packed) for name in names[:2])
        at, last = (file.array(f"streams/{stream}/{name}") for name in names[2:])
    except UsageError as error:
        raise StoreError(f"{where}: damaged: {error}") from error
    finished = indices(at, f"{where}: clips")
    count = indices(last, f"{where}: {names[3]}")
    bounds = count if packed else None
    steps = np.diff(count) if packed else count
    if packed and (len(count) == 0 or count[0] != 0):
        raise StoreError(f"{where}: damaged: the offsets do not begin at 0")
    if len(steps) != len(finished) or (steps < 1).any() or (steps > about.steps).any():
        raise StoreError(f"{where}: damaged: a clip's length is not between 1 and {about.steps}, or one lacks it")
    if (np.diff(finished) < 1).any() or (len(finished) and not 0 <= finished[0] <= finished[-1] < len(clips)):
        raise StoreError(f"{where}: damaged: the rows of its clips do not ascend within the clip table")
    extent = (int(steps.sum()),) if packed else (len(finished), int(steps.max(initial=0)))
    spec = about.spec
    expected = (((*extent, *spec.feature_shape), np.dtype(spec.dtype)), (extent, np.dtype(bool)))
    if ((values.shape, values.dtype), (valid.shape, valid.dtype)) != expected:
        raise StoreError(
            f"{where}: damaged: values {values.dtype} {values.shape}, expected {spec.dtype} {expected[0][0]}"
        )
    rows = {clip: row for row, clip in enumerate(clips.table["id"].to_pylist())}
    failures = {rows.get(f.clip, -1): f for f in about.failures}
    if sorted([*failures, *finished.tolist()]) != list(range(len(clips))):
        raise StoreError(f"{where}: damaged: not every clip has either features or a failure")
    lengths, places = np.zeros(len(clips), np.int64), np.zeros(len(clips), np.int64)
    lengths[finished], places[finished] = steps, np.arange(len(finished))
    return OwnStream(
        where,
        spec,
        about.steps,
        about.compression,
        about.content,
        values,
        valid,
        bounds,
        lengths,
        places,
        failures,
        about.quality,
    )


def indices(rows: Rows, where: str) -> np.ndarray:
    if len(rows.shape) != 1 or rows.dtype != np.int64:
        raise StoreError(f"{where}: damaged: {rows.dtype} {rows.shape}, expected int64 (n,)")
    return np.array(fetch(rows, slice(None), where))
