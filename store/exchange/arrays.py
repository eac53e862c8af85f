"""Arrays that somebody else made, whatever file they lie in: opened without running anything, read a part at a time.

HDF5, .npz, .npy and folders of .npy are told apart by their content. A pickle is never opened. What a file says of itself
(shapes, sizes, links) is held against what is there before anything is read.
"""

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..clips import ClipTable
from ..errors import StoreError, UsageError

READ_ERRORS = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
PICKLE_SUFFIXES = (".pkl", ".pickle", ".p", ".joblib")
NPY, ZIP, PICKLE = b"\x93NUMPY", b"PK", b"\x80"
MOST_KEYS_SHOWN = 12


class Rows(Protocol):
    """An array that is read by its first axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


class ArrayFile(Protocol):
    """Arrays by key. name: the file's or folder's own, without where it lies."""

    name: str

    def keys(self) -> list[str]: ...

    def array(self, key: str, sparse: bool = False) -> Rows:
        """Args:
            sparse: allow HDF5 chunks that were never written (they read as zeros).

        Raises:
            UsageError: no such array; lists those there are.
            StoreError: it is no plain array, leads out of the file, or is not all there.
        """

    def files(self, keys: list[str]) -> Iterable[tuple[str, Path]]:
        """Name and path of the files that hold these arrays."""

    def document(self, stream: str | None = None) -> bytes | None:
        """What an export says of itself or of a stream; None where it is none."""

    def clips(self) -> ClipTable:
        """An export's clip table. Raises StoreError where it is damaged."""

    def close(self) -> None: ...


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Raises UsageError where there is nothing, StoreError for a pickle and for files of no known kind."""
    file = opened(path)
    try:
        yield file
    finally:
        file.close()


def opened(path: Path) -> ArrayFile:
    import h5py

    from .h5 import H5File
    from .npy import NpyFolder
    from .npz import NpzFile

    if path.is_dir():
        return NpyFolder(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): expected HDF5, .npz, .npy or a folder") from error
    if start.startswith(NPY):
        return NpyFolder(path)
    if start.startswith(ZIP):
        return NpzFile(path)
    if h5py.is_hdf5(path):
        return H5File(path)
    if path.suffix in PICKLE_SUFFIXES or start.startswith(PICKLE):
        raise StoreError(f"{path}: {pickle_advice(path)}")
    raise StoreError(f"{path}: neither HDF5 nor .npz nor .npy, by its content")


def pickle_advice(path: Path) -> str:
    return (
        "a pickle can run its author's code when it is opened, so bmla opens none. Where you trust it, make an .npz of "
        'it: python -c "import pickle, numpy as np; '
        f"d = pickle.load(open('{path.name}', 'rb')); "
        "np.savez('features.npz', **{f'{s}/{k}': np.asarray(v) for s, g in d.items() for k, v in g.items()})\" "
        "(for a dictionary of splits of arrays)"
    )


def fetch(rows: Rows, index: Any, where: str) -> np.ndarray:
    """A part of an array. Raises StoreError where the file is damaged."""
    try:
        return np.asarray(rows[index])
    except READ_ERRORS as error:
        raise StoreError(f"{where}: damaged, cannot be read ({error})") from error


def fetch_column(file: ArrayFile, key: str, expected: int) -> np.ndarray:
    """A whole array of one value a clip, (expected,) or (expected, 1). Raises StoreError for another shape."""
    rows, where = file.array(key), f"{file.name}: {key}"
    if rows.shape not in ((expected,), (expected, 1)):
        raise StoreError(f"{where}: shape {rows.shape}, expected ({expected},): one value a clip")
    return fetch(rows, slice(None), where).reshape(expected)


def whole_numbers(values: np.ndarray, where: str) -> np.ndarray:
    """As int64. Raises StoreError where they are no whole numbers (whole floats will do)."""
    if values.dtype.kind not in "iuf":
        raise StoreError(f"{where}: {values.dtype}, expected whole numbers")
    with np.errstate(invalid="ignore"):
        numbers = values.astype(np.int64)
    if not np.array_equal(numbers.astype(np.float64), values.astype(np.float64)):
        raise StoreError(f"{where}: not all are whole numbers")
    return numbers


def texts(values: np.ndarray, where: str) -> list[str]:
    """Text of any kind that numpy and HDF5 keep. Raises StoreError for anything else."""
    if values.dtype.kind == "U":
        return values.tolist()
    if values.dtype.kind not in "SO":
        raise StoreError(f"{where}: {values.dtype}, expected text")
    try:
        return [bytes(value).decode() for value in values.tolist()]
    except UnicodeDecodeError as error:
        raise StoreError(f"{where}: text that is not UTF-8 ({error})") from error


def no_array(file: ArrayFile, key: str) -> UsageError:
    keys = file.keys()
    shown = ", ".join(keys[:MOST_KEYS_SHOWN]) + (", …" if len(keys) > MOST_KEYS_SHOWN else "")
    return UsageError(f'{file.name}: no array "{key}"; it has: {shown or "none"}')
