"""An export as a folder of .npy files, and any folder of .npy files as a source of arrays.

    bmla.json                    the export's document, sealed (see `manifest`)
    clips.parquet                the clip table
    streams/<stream>/bmla.json   the stream's document, sealed
        values.npy               packed: (steps, *F)     padded: (n, T, *F)
        valid.npy                packed: (steps,)        padded: (n, T)
        offsets.npy              packed: (n + 1,) int64: clip i has values[offsets[i]:offsets[i + 1]]
        length.npy               padded: (n,) int64
        clips.npy                (n,) int64 row of each clip in clips.parquet; clips that failed are absent

Opened with `numpy.load(path, mmap_mode="r")` nothing has to fit into memory.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..clips import ClipTable
from ..errors import StoreError
from ..folder import Folder
from .arrays import Rows, no_array
from .beside import written_beside
from .export import ExportPlan, Source
from .manifest import PADDED, ContentDigest, StreamManifest

DOCUMENT, CLIPS = "bmla.json", "clips.parquet"
SUFFIX = ".npy"


def write(plan: ExportPlan, out: Path, advance: Callable[[int], None]) -> None:
    """See `run_export`."""
    with written_beside(out) as folder:
        write_documents(plan, folder)
        for source in plan.sources:
            content = write_arrays(source, folder / "streams" / source.name, plan.manifest.layout == PADDED, advance)
            write_stream_document(folder, source.manifest(content))


def write_documents(plan: ExportPlan, folder: Path) -> None:
    """The root's document and the clip table; makes the folder."""
    folder.mkdir()
    (folder / DOCUMENT).write_bytes(plan.manifest.to_json())
    (folder / CLIPS).write_bytes(plan.clips.to_parquet())


def write_stream_document(folder: Path, manifest: StreamManifest) -> None:
    path = folder / "streams" / manifest.spec.name
    path.mkdir(parents=True, exist_ok=True)
    (path / DOCUMENT).write_bytes(manifest.to_json())


def write_arrays(source: Source, folder: Path, padded: bool, advance: Callable[[int], None]) -> ContentDigest:
    """One stream's arrays, clip after clip: written as plain files, since a full disk kills who writes a memory map."""
    folder.mkdir(parents=True)
    spec, content = source.head.spec, ContentDigest()
    longest = int(source.lengths.max(initial=0))
    extent = (len(source.finished), longest) if padded else (int(source.lengths.sum()),)
    with (folder / "values.npy").open("wb") as values_file, (folder / "valid.npy").open("wb") as valid_file:
        write_header(values_file, (*extent, *spec.feature_shape), np.dtype(spec.dtype))
        write_header(valid_file, extent, np.dtype(bool))
        for row, values, valid in source.clips(advance):
            content.add(row, values, valid)
            for file, array in ((values_file, values), (valid_file, valid)):
                file.write(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).data)
                if padded:
                    file.write(bytes((longest - len(array)) * array[0].nbytes))
    np.save(folder / "clips.npy", source.finished.astype("<i8"), allow_pickle=False)
    if padded:
        np.save(folder / "length.npy", source.lengths[source.finished].astype("<i8"), allow_pickle=False)
    else:
        np.save(folder / "offsets.npy", source.offsets.astype("<i8"), allow_pickle=False)
    return content


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    descr = np.lib.format.dtype_to_descr(dtype.newbyteorder("<"))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


class NpyFolder:
    """See `arrays.ArrayFile`. An array's key is its path below the folder without ".npy"; a single file is one too."""

    def __init__(self, path: Path):
        self.name = path.name
        if path.is_dir():
            self.folder = Folder(path)
            self.paths = {k.removesuffix(SUFFIX): k for k in self.folder.sizes("") if k.endswith(SUFFIX)}
        else:
            self.folder = Folder(path.parent)
            self.paths = {path.name.removesuffix(SUFFIX): path.name}

    def close(self) -> None:
        """Memory maps close themselves."""

    def keys(self) -> list[str]:
        return sorted(self.paths)

    def array(self, key: str, sparse: bool = False) -> Rows:
        path = self._path(key)
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except (ValueError, OSError, EOFError) as error:
            if "Python objects" in str(error):
                raise StoreError(
                    f"{path.name}: holds Python objects, which only a pickle can carry: bmla opens none; "
                    "save it as an array of numbers or text"
                ) from error
            raise StoreError(f"{path.name}: no whole .npy file ({error})") from error

    def files(self, keys: list[str]) -> Iterator[tuple[str, Path]]:
        for key in keys:
            path = self._path(key)
            yield self.paths[key], path

    def document(self, stream: str | None = None) -> bytes | None:
        """An export's document of the root or a stream; None where there is none."""
        key = f"streams/{stream}/{DOCUMENT}" if stream else DOCUMENT
        return self.folder.read(key) if self.folder.exists(key) else None

    def clips(self) -> ClipTable:
        """An export's clip table."""
        if not self.folder.exists(CLIPS):
            raise StoreError(f"{self.folder}/{CLIPS}: missing")
        return ClipTable.from_parquet(self.folder.read(CLIPS))

    def _path(self, key: str) -> Path:
        """Only keys that were found in the folder become paths, and no link leads out of it."""
        if key not in self.paths:
            raise no_array(self, key)
        return self.folder.path_of(self.paths[key])
