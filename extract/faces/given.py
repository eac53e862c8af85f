"""Faces that somebody else found: boxes or landmarks of each clip from files, checked before they are believed.

A folder holds one file a clip, named by its id (an id with slashes lies in subfolders): <id>.npy with boxes (T, 4) or landmarks
(T, 68, 2), or <id>.npz with the arrays "boxes" and "landmarks", one of them or both. A single .csv or .parquet file has the columns
clip, frame, x0, y0, x1, y1: one row a box, any order. Pixels and frames: see `finding`. NaN, or no row: no face there.
No pickle is opened.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...store.errors import MediaError, StoreError, UsageError
from ...store.exchange.arrays import fetch, open_arrays
from ...store.folder import Folder
from .landmarks import POINTS

SHAPES = {"boxes": (4,), "landmarks": (POINTS, 2)}
ARRAY_SUFFIXES = (".npy", ".npz")
COLUMNS = ("clip", "frame", "x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Given:
    """One clip's given face over T frames, NaN where it has none. boxes: (T, 4), landmarks: (T, 68, 2); float32, at least one."""

    boxes: np.ndarray | None
    landmarks: np.ndarray | None


class GivenFaces(Protocol):
    """Given faces, opened."""

    def of(self, clip_id: str, n_frames: int) -> Given:
        """One clip's. Raises MediaError where they are missing, damaged or of another shape."""
        ...


def open_given(path: Path) -> GivenFaces:
    """Raises UsageError where there is nothing, or a file that is no table of boxes."""
    if path.is_dir():
        return GivenFolder(path)
    return GivenTable(path)


def checksum(path: Path) -> dict[str, Any]:
    """SHA-256 of the one file or, of a folder, over the sorted lines "<sha256>  <name below the folder>"; and how many there are.

    Raises:
        UsageError: nothing that can be read is there.
    """
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "files": 1}
        folder = Folder(path)
        names = [name for name in folder.sizes("") if name.endswith(ARRAY_SUFFIXES)]
        total = hashlib.sha256()
        for name in names:
            with folder.path_of(name).open("rb") as file:
                total.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n".encode())
    except (OSError, StoreError) as error:
        raise UsageError(f"{path}: given faces cannot be read ({error})") from error
    if not names:
        raise UsageError(f"{path}: no given faces: expected <clip id>.npy or .npz in it")
    return {"sha256": total.hexdigest(), "files": len(names)}


class GivenFolder:
    """One file a clip."""

    def __init__(self, path: Path):
        self.folder = Folder(path)

    def of(self, clip_id: str, n_frames: int) -> Given:
        where = f'clip "{clip_id}": given face'
        path = self._path(clip_id, where)
        try:
            with open_arrays(path) as file:
                held = file.keys()
                if path.suffix == ".npy":
                    rows = file.array(held[0])
                    kinds = {kind: rows for kind, shape in SHAPES.items() if rows.shape[1:] == shape}
                    if not kinds:
                        raise MediaError(
                            f"{where}: shape {rows.shape}, expected ({n_frames}, 4) or ({n_frames}, {POINTS}, 2)"
                        )
                else:
                    kinds = {kind: file.array(kind) for kind in SHAPES if kind in held}
                    if not kinds:
                        raise MediaError(f'{where}: arrays {", ".join(held)}, expected "boxes" or "landmarks"')
                arrays: dict[str, np.ndarray] = {}
                for kind, rows in kinds.items():  # shapes are checked before any value is read
                    expected = (n_frames, *SHAPES[kind])
                    if rows.shape != expected or rows.dtype.kind not in "fiu":
                        raise MediaError(
                            f"{where}: {kind} are {rows.dtype} of shape {rows.shape}, expected numbers {expected}"
                        )
                    arrays[kind] = _checked(fetch(rows, slice(None), where), kind, where)
        except (StoreError, UsageError) as error:  # its text may say where the folder lies, which no record should
            raise MediaError(f"{where}: {str(error).replace(str(path), path.name)}") from error
        return Given(arrays.get("boxes"), arrays.get("landmarks"))

    def _path(self, clip_id: str, where: str) -> Path:
        if not clip_id or "\0" in clip_id or "\\" in clip_id:
            raise MediaError(f"{where}: an id like that is no file's name")
        for suffix in ARRAY_SUFFIXES:
            try:
                path = self.folder.path_of(clip_id + suffix)
            except StoreError as error:
                raise MediaError(f"{where}: the id, or a link, leads out of the folder of given faces") from error
            if path.is_file():
                return path
        raise MediaError(f"{where}: neither {clip_id}.npy nor {clip_id}.npz is in the folder of given faces")


class GivenTable:
    """One row a box: all clips in memory, sorted, 20 bytes a row."""

    def __init__(self, path: Path):
        import pyarrow as pa
        import pyarrow.compute as pc

        table = _read_table(path)
        try:
            clips = table["clip"].cast(pa.string()).combine_chunks().dictionary_encode()
            frames = table["frame"].cast(pa.int64()).to_numpy(zero_copy_only=False)
            corners = [table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in COLUMNS[2:]]
        except pa.ArrowException as error:
            raise UsageError(f"{path}: given boxes: {error}") from error
        if clips.null_count or pc.sum(pc.is_null(table["frame"])).as_py():
            raise UsageError(f"{path}: given boxes: a row without clip or frame")
        codes = clips.indices.to_numpy(zero_copy_only=False)
        order = np.lexsort((frames, codes))
        self.frames = np.clip(frames[order], -1, np.iinfo(np.int32).max).astype(np.int32)
        with np.errstate(over="ignore"):
            self.boxes = np.stack(corners, axis=1)[order].astype(np.float32)
        ends = np.bincount(codes, minlength=len(clips.dictionary)).cumsum()
        self.rows = {
            clip: slice(int(start), int(end))
            for clip, start, end in zip(clips.dictionary.to_pylist(), [0, *ends[:-1]], ends, strict=True)
        }

    def of(self, clip_id: str, n_frames: int) -> Given:
        where = f'clip "{clip_id}": given face'
        if clip_id not in self.rows:
            raise MediaError(f"{where}: the table of given boxes has no row of this clip")
        frames, boxes = self.frames[self.rows[clip_id]], self.boxes[self.rows[clip_id]]
        if frames[0] < 0 or frames[-1] >= n_frames:
            far = frames[-1] if frames[-1] >= n_frames else frames[0]
            raise MediaError(f"{where}: a row for frame {far}, expected 0 to {n_frames - 1}")
        if repeated := frames[1:][np.diff(frames) == 0].tolist():
            raise MediaError(f"{where}: two rows for frame {repeated[0]}")
        spread = np.full((n_frames, 4), np.nan, np.float32)
        spread[frames] = _checked(boxes, "boxes", where)
        return Given(spread, None)


def _read_table(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".csv":
            ids_as_text = csv.ConvertOptions(column_types={"clip": pa.string()}, include_columns=list(COLUMNS))
            return csv.read_csv(path, convert_options=ids_as_text)
        if path.suffix == ".parquet":
            file = parquet.ParquetFile(path)
            if missing := [name for name in COLUMNS if name not in file.schema_arrow.names]:
                raise UsageError(f"{path}: given boxes without the columns {', '.join(missing)}")
            return file.read(columns=list(COLUMNS))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UsageError(
            f"{path}: given boxes cannot be read ({error}); expected the columns {', '.join(COLUMNS)}"
        ) from error
    raise UsageError(f"{path}: given faces: expected a folder, a .csv or a .parquet file")


def _checked(values: np.ndarray, kind: str, where: str) -> np.ndarray:
    """As float32. Raises MediaError for infinite numbers and boxes without area; NaN is allowed."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if np.isinf(values).any():
        raise MediaError(f"{where}: {kind} hold infinite numbers; expected NaN where there is no face")
    if kind == "boxes":
        known = np.isfinite(values).all(axis=1)
        without = known & ~(values[:, 2:] > values[:, :2]).all(axis=1)
        if without.any():
            x0, y0, x1, y1 = values[int(np.argmax(without))]
            raise MediaError(f"{where}: the box {x0:g} {y0:g} {x1:g} {y1:g} has no area: expected x0 < x1 and y0 < y1")
    return values
