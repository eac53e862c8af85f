"""An export as one HDF5 file, and any HDF5 file as a source of arrays.

    /bmla                   the export's document: sealed JSON text (see `manifest`)
    /clips/<column>         (N,) the clip table; text as UTF-8
    /clips_null/<column>    (N,) bool: where the column has no value; left out where it has one everywhere
    /streams/<stream>/
        bmla                the stream's document: sealed JSON text
        values              packed: (steps, *F)     padded: (n, T, *F)
        valid               packed: (steps,)        padded: (n, T)
        offsets             packed: (n + 1,) int64: clip i has values[offsets[i]:offsets[i + 1]]
        length              padded: (n,) int64
        clips               (n,) int64 row of each clip in the clip table; clips that failed are absent

Padding is never written: it reads as HDF5's fill value, zero. The documents are datasets, since attributes may not be
large, and all text has fixed length: HDF5 1.x and 2.0 can hang on damage in the heap that holds text of any length.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from ..clips import LATER, SCHEMA, ClipTable
from ..errors import BmlaError, StoreError, UsageError
from .arrays import READ_ERRORS, Rows, fetch, no_array, texts
from .beside import written_beside
from .export import ExportPlan, Source
from .manifest import PADDED, ContentDigest

DOCUMENT = "bmla"
CHUNK_BYTES = 1 << 18  # small enough for HDF5's cache of 1 MiB, so that neighbouring clips are read once
PADDED_CHUNK_STEPS = 64
READ_CACHE_BYTES = 1 << 26
MOST_CHUNK_BYTES = 1 << 30  # HDF5 unpacks whole chunks: a stranger's file does not decide about our memory
MOST_LINKS = 16
LIBVER = ("v110", "v110")  # of 2016; older layouts of HDF5's own tables have no checksums


def write(plan: ExportPlan, out: Path, advance: Callable[[int], None]) -> None:
    """See `run_export`."""
    with written_beside(out) as beside, h5py.File(beside, "w", libver=LIBVER) as file:
        write_clips(file, plan.clips)
        for source in plan.sources:
            group = file.create_group(f"streams/{source.name}")
            padded = plan.manifest.layout == PADDED
            content = (write_padded if padded else write_packed)(group, source, advance)
            group.create_dataset("clips", data=source.finished.astype("<i8"))
            write_text(group, DOCUMENT, source.manifest(content).to_json())
        write_text(file, DOCUMENT, plan.manifest.to_json())


def write_packed(group: h5py.Group, source: Source, advance: Callable[[int], None]) -> ContentDigest:
    spec, offsets, content = source.head.spec, source.offsets, ContentDigest()
    step_bytes = math.prod(spec.feature_shape) * np.dtype(spec.dtype).itemsize
    values_to = create(group, "values", (offsets[-1], *spec.feature_shape), spec.dtype, CHUNK_BYTES // step_bytes)
    valid_to = create(group, "valid", (offsets[-1],), "bool", CHUNK_BYTES)
    group.create_dataset("offsets", data=offsets.astype("<i8"))
    for (row, values, valid), at in zip(source.clips(advance), offsets, strict=False):  # offsets holds the end as well
        values_to[at : at + len(values)] = values
        valid_to[at : at + len(valid)] = valid
        content.add(row, values, valid)
    return content


def write_padded(group: h5py.Group, source: Source, advance: Callable[[int], None]) -> ContentDigest:
    spec, content = source.head.spec, ContentDigest()
    extent = (len(source.finished), int(source.lengths.max(initial=0)))
    values_to = create(group, "values", (*extent, *spec.feature_shape), spec.dtype, 1, PADDED_CHUNK_STEPS)
    valid_to = create(group, "valid", extent, "bool", 1, extent[1])
    group.create_dataset("length", data=source.lengths[source.finished].astype("<i8"))
    for i, (row, values, valid) in enumerate(source.clips(advance)):
        values_to[i, : len(values)] = values
        valid_to[i, : len(valid)] = valid
        content.add(row, values, valid)
    return content


def create(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: str, *chunk: int) -> h5py.Dataset:
    """A chunked array, little endian; `chunk` is the wish for the first axes. An empty one can't have chunks."""
    first = tuple(min(max(wish, 1), n) for wish, n in zip(chunk, shape, strict=False))
    chunks = (*first, *shape[len(first) :]) if all(shape) else None
    return group.create_dataset(name, shape, np.dtype(dtype).newbyteorder("<"), chunks=chunks, track_times=False)


def write_clips(file: h5py.File, clips: ClipTable) -> None:
    """The clip table as one dataset a column."""
    for field in map(SCHEMA.field, clips.kept_columns()):
        column = clips.table[field.name].combine_chunks()
        if pa.types.is_string(field.type):
            rows = column.fill_null("").to_pylist()
            if lost := [text for text in rows if "\0" in text]:
                raise UsageError(f"column {field.name}: {lost[0]!r}: HDF5 text can't hold a zero byte: export as npy")
            write_text(file, f"clips/{field.name}", [text.encode() for text in rows])
        else:
            data = column.fill_null(0).to_numpy()
            file.create_dataset(f"clips/{field.name}", data=data.astype(data.dtype.newbyteorder("<")))
        if column.null_count:
            file.create_dataset(f"clips_null/{field.name}", data=column.is_null().to_numpy(zero_copy_only=False))


def write_text(group: h5py.Group, name: str, data: bytes | list[bytes]) -> None:
    longest = max(map(len, data if isinstance(data, list) else [data]))
    group.create_dataset(name, data=np.array(data, h5py.string_dtype("utf-8", max(longest, 1))))


class H5File:
    """See `arrays.ArrayFile`. Nothing outside the file is ever opened."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        try:
            self.file = h5py.File(path, "r", rdcc_nbytes=READ_CACHE_BYTES)
        except READ_ERRORS as error:
            raise StoreError(f"{path}: no whole HDF5 file ({error})") from error

    def close(self) -> None:
        self.file.close()

    def keys(self) -> list[str]:
        found: list[str] = []
        with damage_named(self.name):
            self.file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return sorted(found)

    def array(self, key: str, sparse: bool = False) -> Rows:
        with damage_named(f"{self.name}: {key}"):
            dataset = self._find(key)
            if not isinstance(dataset, h5py.Dataset):
                raise no_array(self, key)
            check_dataset(dataset, f"{self.name}: {key}", self.path.stat().st_size, sparse)
        return dataset

    def files(self, keys: list[str]) -> Iterator[tuple[str, Path]]:
        yield self.name, self.path

    def document(self, stream: str | None = None) -> bytes | None:
        """An export's document of the root or a stream; None where there is none."""
        with damage_named(self.name):
            dataset = self._find(f"streams/{stream}/{DOCUMENT}" if stream else DOCUMENT)
            if not isinstance(dataset, h5py.Dataset) or dataset.shape != () or dataset.dtype.kind != "S":
                return None
            check_dataset(dataset, f"{self.name}: {DOCUMENT}", self.path.stat().st_size, sparse=False)
            return bytes(dataset[()])

    def clips(self) -> ClipTable:
        """An export's clip table, from its columns."""
        columns = {
            f.name: self._column(f) for f in SCHEMA if f.name not in LATER or self._find(f"clips/{f.name}") is not None
        }
        if len({len(column) for column in columns.values()}) != 1:
            raise StoreError(f"{self.path}: clips: columns of different length")
        rows = len(columns["id"])
        columns |= {name: pa.nulls(rows, SCHEMA.field(name).type) for name in LATER if name not in columns}
        table = ClipTable(pa.table(columns, schema=SCHEMA))
        table.check()
        return table

    def _column(self, field: pa.Field) -> pa.Array:
        where = f"{self.name}: clips/{field.name}"
        try:
            values = fetch(self.array(f"clips/{field.name}"), slice(None), where)
            with damage_named(where):
                whole = self._find(f"clips_null/{field.name}") is None
            mask = None if whole else fetch(self.array(f"clips_null/{field.name}"), slice(None), where)
        except UsageError as error:
            raise StoreError(f"{self.path}: damaged: {error}") from error
        if values.ndim != 1 or (mask is not None and (mask.shape != values.shape or mask.dtype != bool)):
            raise StoreError(f"{where}: damaged: not one value a clip")
        if mask is not None and not field.nullable:
            raise StoreError(f"{where}: damaged: this column can't lack values")
        if pa.types.is_string(field.type):
            return pa.array(texts(values, where), field.type, mask=mask)
        expected = np.dtype(field.type.to_pandas_dtype())
        if values.dtype != expected:
            raise StoreError(f"{where}: damaged: {values.dtype}, expected {expected}")
        return pa.array(values, field.type, mask=mask, from_pandas=False)

    def _find(self, key: str) -> Any:
        """What a key names, link by link; None where there is nothing. Soft links may lead anywhere in this file.

        Raises:
            StoreError: a link leads to another file, or in circles.
        """
        item: Any = self.file["/"]
        names, links = [n for n in key.split("/") if n], 0
        while names:
            name = names.pop(0)
            link = item.get(name, getlink=True) if isinstance(item, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.SoftLink):
                links += 1
                if links > MOST_LINKS:
                    raise StoreError(f"{self.path}: {key}: a link in circles")
                item = self.file["/"] if link.path.startswith("/") else item
                names = [n for n in link.path.split("/") if n] + names
            elif isinstance(link, h5py.HardLink):
                item = item[name]
            else:
                raise StoreError(f"{self.path}: {key}: a link to another file: nothing outside this file is opened")
        return item


@contextmanager
def damage_named(where: str) -> Iterator[None]:
    """HDF5 says in many ways that a file is damaged, or holds a type that numpy lacks: raises StoreError for all."""
    try:
        yield
    except BmlaError:
        raise
    except (KeyError, TypeError, *READ_ERRORS) as error:
        raise StoreError(f"{where}: damaged, or of a type that numpy lacks ({error})") from error


def check_dataset(dataset: h5py.Dataset, where: str, file_bytes: int, sparse: bool) -> None:
    """Raises StoreError where a dataset is no plain array, keeps its data elsewhere, or is not all there."""
    if dataset.is_virtual or dataset.external:
        raise StoreError(f"{where}: keeps its data in other files: nothing outside this file is opened")
    if dataset.shape is None:
        raise StoreError(f"{where}: holds nothing (an HDF5 null dataset)")
    if dataset.dtype.hasobject and h5py.check_string_dtype(dataset.dtype) is None:
        raise StoreError(f"{where}: {kind_of(dataset.dtype)}: lay the clips end to end in one array and give --offsets")
    if dataset.chunks:
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if chunk_bytes > MOST_CHUNK_BYTES:
            raise StoreError(
                f"{where}: chunks of {chunk_bytes} bytes, at most {MOST_CHUNK_BYTES}: write it in smaller ones"
            )
        chunks = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        if not sparse and dataset.id.get_num_chunks() != chunks:
            raise StoreError(
                f"{where}: {dataset.id.get_num_chunks()} of {chunks} chunks are there; the rest was never written"
            )
    elif dataset.nbytes > min(dataset.id.get_storage_size(), file_bytes):
        raise StoreError(
            f"{where}: {dataset.id.get_storage_size()} bytes are there, its shape {dataset.shape} needs {dataset.nbytes}"
        )


def kind_of(dtype: np.dtype) -> str:
    return (
        "arrays of different lengths (vlen)" if h5py.check_vlen_dtype(dtype) is not None else "references, not numbers"
    )
