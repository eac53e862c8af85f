"""Import of features that were made elsewhere (HDF5, .npz, .npy): N x T x L, clips end to end, or groups by split.

What the arrays can't say, the user does; the words go into the stream's specification, with the files' digests.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ..errors import StoreError
from ..ledger import Failure
from ..shard import ClipFeatures
from ..spec import StreamSpec
from ..store import create_store
from .arrays import ArrayFile, open_arrays
from .choice import ArrayImport
from .columns import Columns, check_agreement, clip_table, options_of, read_columns
from .features import Features, converted, dtype_for, open_features
from .target import (
    PASSES,
    Advance,
    Begin,
    Imported,
    check_incoming,
    clip_bytes,
    existing_store,
    shard_size_for,
    silent,
    write_incoming,
)

ENCODER = "imported"


def import_arrays(
    path: Path, target: str | Path, choice: ArrayImport, begin: Begin = silent, advance: Advance = silent
) -> Imported:
    """Makes a store of the arrays, or adds them as a stream to the store of the same clips that is there.

    Args:
        begin, advance: see `import_export`.

    Raises:
        UsageError: the choice contradicts itself or the file.
        StoreMismatch: the target holds other clips, or this stream made otherwise.
        StoreError: the file is damaged or holds what no store can; nothing was written.
    """
    choice.check()
    with open_arrays(path) as file:
        parts = {group: open_features(file, choice, group) for group in choice.split_groups or ("",)}
        columns = read_columns(file, choice, {group: len(part.lengths) for group, part in parts.items()})
        incoming = ForeignStream.of(path, choice, tuple(parts.values()), columns, source_of(file, choice))
        store = existing_store(target)
        if store is not None:
            check_agreement(store, choice, columns, path.name)
            store.check_stream(incoming.spec, incoming.steps)
            size = store.shard_size
        else:
            size = shard_size_for(len(columns.ids), clip_bytes(incoming))
            table = clip_table(columns, incoming.lengths, choice.rate_hz)
        begin(0, PASSES * len(columns.ids))
        content, new = check_incoming(incoming, columns.ids, size, advance), store is None
        if store is None:
            store = create_store(
                target,
                dataset=choice.dataset,
                task=choice.task,
                classes=columns.classes,
                clips=table,
                options=options_of(choice),
                shard_size=size,
            )
        result = write_incoming(store, incoming, content, advance)
    return replace(result, notes=tuple(notes(incoming, columns, new=new)))


@dataclass(frozen=True)
class ForeignStream:
    """See `target.Incoming`. parts: the arrays of each split group, end to end; starts: (parts + 1,) their first clips."""

    where: str
    spec: StreamSpec
    steps: int
    parts: tuple[Features, ...]
    starts: tuple[int, ...]
    ids: tuple[str, ...]
    compression: str = "none"
    content: str | None = None

    @classmethod
    def of(
        cls, path: Path, choice: ArrayImport, parts: tuple[Features, ...], columns: Columns, source: dict[str, Any]
    ) -> "ForeignStream":
        first = parts[0]
        dtype = dtype_for(first, choice.dtype)
        for part in parts[1:]:
            if (part.shape, part.dtype) != (first.shape, first.dtype):
                raise StoreError(
                    f"{part.where}: {part.dtype} features of shape {part.shape}, "
                    f"those of {first.where} are {first.dtype} {first.shape}"
                )
        stored = first.dtype.newbyteorder("=").name
        parameters: dict[str, Any] = {} if choice.layer is None else {"layer": choice.layer}
        spec = StreamSpec(
            name=choice.stream,
            modality=choice.modality,
            encoder=ENCODER,
            dtype=dtype,
            feature_shape=first.shape,
            rate_hz=choice.rate_hz,
            frame_law="as imported",
            parameters={**parameters, **({} if stored == dtype else {"converted_from": stored})},
            source=source,
            versions={"bmla": __version__},
        )
        steps = max(int(part.lengths.max()) for part in parts)
        starts = tuple(accumulate((len(part.lengths) for part in parts), initial=0))
        return cls(str(path), spec, steps, parts, starts, columns.ids)

    @property
    def lengths(self) -> np.ndarray:
        return np.concatenate([part.lengths for part in self.parts])

    def block(self, start: int, stop: int) -> list[ClipFeatures]:
        clips = []
        for part, first in zip(self.parts, self.starts, strict=False):  # the last start is the end
            a, b = max(start - first, 0), min(stop - first, len(part.lengths))
            if a < b:
                features = part.block(a, b)
                clips += [self._clip(part, first + a + i, *feature) for i, feature in enumerate(features)]
        return clips

    def _clip(self, part: Features, row: int, values: np.ndarray, valid: np.ndarray) -> ClipFeatures:
        if len(values) == 0:
            lost = Failure(self.ids[row], "import", "NoSteps", f"{part.where}: the clip has no steps")
            return ClipFeatures(None, None, lost)
        return ClipFeatures(converted(values, self.spec.dtype, f'{part.where}: clip "{self.ids[row]}"'), valid)


def source_of(file: ArrayFile, choice: ArrayImport) -> dict[str, Any]:
    """Where the features come from: the user's words, the file and its digest, and which array was what."""
    used = [choice.path(group, key) for group in choice.split_groups or ("",) for key in choice.keys().values()]
    groups = {"split_groups": list(choice.split_groups)} if choice.split_groups else {}
    return {
        "imported_from": file.name,
        "sha256": {name: sha256_of(path) for name, path in sorted(set(file.files(used)))},
        "statement": choice.provenance.strip(),
        "key": choice.keys(),
        **groups,
    }


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def notes(incoming: ForeignStream, columns: Columns, new: bool) -> Iterator[str]:
    """What a person should know of this import; new: the store was made by it."""
    spec = incoming.spec
    if before := spec.parameters.get("converted_from"):
        yield f"{spec.name}: {before} became {spec.dtype}{', rounded' if before.startswith('float') else ', unchanged'}"
    if new and columns.labels is None:
        yield "no labels: give --labels, or `bmla fuse` has nothing to learn"
    if new and columns.splits is None:
        yield "no splits: give --splits or --split-groups, or `bmla fuse` can't tell training from test"
