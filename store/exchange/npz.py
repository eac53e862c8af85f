""".npz files (zip of .npy), read a part at a time and without pickles: never more is unpacked than is asked for."""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..clips import ClipTable
from ..errors import StoreError
from .arrays import READ_ERRORS, Rows, no_array

SUFFIX = ".npy"
SKIP_BYTES = 1 << 24  # how much is unpacked at once on the way to a row


class NpzFile:
    """See `arrays.ArrayFile`. An array's key is its member's name without ".npy"; it never becomes a path."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.opened: list[NpzRows] = []
        try:
            self.zip = zipfile.ZipFile(path)
        except READ_ERRORS as error:
            raise StoreError(f"{path}: no whole .npz file ({error})") from error
        self.members = {m.filename.removesuffix(SUFFIX): m for m in self.zip.infolist() if m.filename.endswith(SUFFIX)}
        if not self.members:
            self.close()
            raise StoreError(
                f"{path}: a zip without .npy files, so no .npz (PyTorch's files hold a pickle: bmla opens none)"
            )

    def close(self) -> None:
        for rows in self.opened:
            rows.close()
        self.zip.close()

    def keys(self) -> list[str]:
        return sorted(self.members)

    def array(self, key: str, sparse: bool = False) -> Rows:
        if key not in self.members:
            raise no_array(self, key)
        self.opened.append(NpzRows(self.zip, self.members[key], f"{self.name}: {key}"))
        return self.opened[-1]

    def files(self, keys: list[str]) -> Iterator[tuple[str, Path]]:
        yield self.name, self.path

    def document(self, stream: str | None = None) -> None:
        """bmla exports no .npz."""

    def clips(self) -> ClipTable:
        raise StoreError(f"{self.path}: no export of bmla")


class NpzRows:
    """One array of the zip. Asked for in the order of its rows, each byte is unpacked once."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str):
        self.archive, self.member, self.where = archive, member, where
        self.file: IO[bytes] | None = None
        self.shape, self.fortran, self.dtype, self.start = self._header()
        claimed = self.start + math.prod(self.shape) * self.dtype.itemsize
        if member.file_size != claimed:
            raise StoreError(f"{where}: {member.file_size} bytes are there, its shape {self.shape} needs {claimed}")

    def __getitem__(self, index: Any) -> np.ndarray:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if self.fortran:  # columns first: there are no rows to be read one after the other
            return self._whole()[index]
        start, stop, _ = first.indices(self.shape[0])
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        data = self._bytes(start * row_bytes, max(stop - start, 0) * row_bytes)
        rows = np.frombuffer(data, self.dtype).reshape(-1 if row_bytes else 0, *self.shape[1:])
        return rows[(slice(None), *rest)]

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _header(self) -> tuple[tuple[int, ...], bool, np.dtype, int]:
        try:
            with self.archive.open(self.member) as file:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in read:
                    raise StoreError(f"{self.where}: a .npy of version {version}, as only records with names need it")
                shape, fortran, dtype = read[version](file)
                start = file.tell()
        except READ_ERRORS as error:
            raise StoreError(f"{self.where}: no whole .npy file ({error})") from error
        if dtype.hasobject:
            raise StoreError(
                f"{self.where}: holds Python objects, which only a pickle can carry: bmla opens none; "
                "save it as an array of numbers or text"
            )
        return shape, fortran, dtype, start

    def _whole(self) -> np.ndarray:
        data = np.frombuffer(self._bytes(0, self.member.file_size - self.start), self.dtype)
        return data.reshape(self.shape, order="F")

    def _bytes(self, start: int, count: int) -> bytes:
        """`count` bytes of the data from `start` on; goes back only by beginning again."""
        position = self.start + start
        if self.file is None or self.file.tell() > position:
            self.close()
            self.file = self.archive.open(self.member)
        while (missing := position - self.file.tell()) > 0:
            if not self.file.read(min(missing, SKIP_BYTES)):
                raise EOFError("it ends too early")
        data = self.file.read(count)
        if len(data) != count:
            raise EOFError("it ends too early")
        return data
