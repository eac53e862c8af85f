"""The files of one stream, on a local disk or at a remote place: opened by shard, checked against the ledger."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from operator import attrgetter
from typing import Any

import google_crc32c
import numpy as np

from ..arrays import file_key
from ..errors import StoreError
from ..folder import Folder
from ..head import Head
from ..ledger import Entry
from ..place import Place
from .layout import CRC_BYTES, RESIDUE, Chunks, File, Layout, copy_piece, damaged, pieces_of, read_index
from .memory import empty

CACHE_BYTES = 256 << 20  # of shard indexes
WINDOW = 64  # shard files that are open at once while the ranges of all of them are on their way


class StreamFiles:
    """One stream's files as the ledger names them. Holds no open file and no thread: safe to fork and to pickle.

    Attributes:
        lengths: (N,) int64 steps of each clip of the store; 0 where it failed or its shard is not here.
        bytes: array name -> (shards,) int64 size of each shard's file; -1 where the ledger names none: all is zero.
    """

    def __init__(self, place: Place, head: Head, clips: int, shard_clips: int, entries: Sequence[Entry]):
        self.place, self.head = place, head
        self.layout = Layout.of(head, shard_clips)
        self.lengths = np.zeros(clips, np.int64)
        self.bytes = {name: np.full(-(-clips // shard_clips), -1, np.int64) for name in ("values", "valid")}
        for entry in entries:
            self.lengths[entry.start : entry.stop] = entry.lengths
            for name, sizes in self.bytes.items():
                if record := entry.files[name]:
                    sizes[entry.shard] = record["bytes"]
        self.indexes: dict[int, np.ndarray] = {}
        self.paths: dict[tuple[str, int], str] = {}

    @property
    def mappable(self) -> bool:
        """The shard files can be mapped into memory."""
        return not self.place.remote and not self.layout.compressed

    def copy(self, chunks: Chunks, out: np.ndarray, whole: bool = False) -> None:
        """Reads chunks of any shards into out, (steps,) items of step_bytes each; checks every checksum.

        Args:
            whole: nearly all of these shards is wanted: a remote file comes in one request.

        Raises:
            StoreError: a file is missing or damaged; names the shard.
        """
        chunks, shards, bounds = chunks.by_shard()
        for i in range(0, len(shards), WINDOW):
            part = slice(bounds[i], bounds[min(i + WINDOW, len(shards))])
            self.copy_window(Chunks(*(column[part] for column in chunks)), shards[i : i + WINDOW], out, whole)

    def copy_window(self, chunks: Chunks, shards: list[int], out: np.ndarray, whole: bool) -> None:
        """`copy` of a few shards; the chunks are in their order. All ranges are on their way before the first is waited for."""
        files: dict[int, ShardFile] = {}
        place = np.full((len(chunks.shard), 2), -1)
        shard = shards[0]
        try:
            ends = np.searchsorted(chunks.shard, shards, side="right").tolist()
            for shard, start, stop in zip(shards, [0, *ends], ends, strict=False):
                if (file := self.open("values", shard, whole)) is not None:
                    files[shard] = file
                    place[start:stop] = self.index(shard, file)[chunks.number[start:stop]]
            pieces = pieces_of(chunks, place, out)
            for shard, group in groupby(pieces, attrgetter("shard")):
                files[shard].expect([(piece.start, piece.stop) for piece in group])
            scratch = np.empty(max((p.stop - p.start for p in pieces), default=0), np.uint8)
            for piece in pieces:
                shard = piece.shard
                copy_piece(files[shard], self.layout, piece, scratch, out)
        except (ValueError, OSError) as error:
            raise self.named("values", shard, error) from error
        finally:
            for file in files.values():
                file.close()

    def valid(self, shard: int) -> np.ndarray:
        """(S, T) bool validity of a shard's clips; rows past the last clip are padding. Raises StoreError as `copy`."""
        shape = (self.layout.shard_clips, self.head.steps)
        with self.naming("valid", shard):
            if (file := self.open("valid", shard, whole=True)) is None:
                return np.broadcast_to(np.False_, shape)
            with closing(file):
                if file.size != shape[0] * shape[1] + CRC_BYTES:
                    raise ValueError(f"{file.size} bytes, expected {shape[0] * shape[1] + CRC_BYTES}")
                data = empty((file.size,), "uint8", self.where("valid", shard))
                file.read_into(0, data)
        if google_crc32c.value(data) != RESIDUE:
            raise damaged(self.where("valid", shard), "it does not match its checksum")
        return (data[:-CRC_BYTES] != 0).reshape(shape)

    def open(self, name: str, shard: int, whole: bool = False) -> "ShardFile | None":
        """One shard's file of an array, for the caller to close; None where the ledger names none."""
        expected = int(self.bytes[name][shard])
        if expected < 0:
            return None
        file: ShardFile
        if not self.place.remote:
            file = LocalFile(self.path(name, shard))
        elif whole:
            file = FetchedFile(self.place.read(file_key(self.head, name, shard)))
        else:
            file = RemoteFile(self.place, file_key(self.head, name, shard), expected)
        if file.size != expected:
            file.close()
            raise ValueError(f"{file.size} bytes, expected {expected}")
        return file

    def path(self, name: str, shard: int) -> str:
        """Where a local shard's file lies; checked not to lead out of the store, once."""
        if (name, shard) not in self.paths:
            assert isinstance(self.place, Folder)
            self.paths[name, shard] = str(self.place.path_of(file_key(self.head, name, shard)))
        return self.paths[name, shard]

    def index(self, shard: int, file: File) -> np.ndarray:
        """A shard's index; the last ones used are kept."""
        if (index := self.indexes.get(shard)) is None:
            index = self.indexes[shard] = read_index(file, self.layout)
            keep_last(self.indexes, self.layout.index_bytes)
        return index

    def where(self, name: str, shard: int) -> str:
        return f"{self.place}: streams/{self.head.spec.name}/{name}, shard {shard}"

    @contextmanager
    def naming(self, name: str, shard: int) -> Iterator[None]:
        """Says of which shard an error is."""
        try:
            yield
        except (ValueError, OSError) as error:
            raise self.named(name, shard, error) from error

    def named(self, name: str, shard: int, error: Exception) -> Exception:
        if isinstance(error, StoreError):
            return error
        if isinstance(error, FileNotFoundError):
            return StoreError(f"{self.where(name, shard)}: missing; `bmla store verify` finds all")
        return damaged(self.where(name, shard), error)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "indexes": {}, "paths": {}}


def keep_last(cache: dict[int, Any], item_bytes: int) -> None:
    """Forgets what came first, beyond CACHE_BYTES. Several threads may do so at once."""
    for old in list(cache)[: -max(1, CACHE_BYTES // item_bytes)]:
        cache.pop(old, None)


class LocalFile:
    """See `layout.File`."""

    def __init__(self, path: str):
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.fd).st_size

    def expect(self, ranges: list[tuple[int, int]]) -> None:
        if hasattr(os, "posix_fadvise"):  # the system knows it on Linux only
            for first, last in ranges:
                os.posix_fadvise(self.fd, first, last - first, os.POSIX_FADV_WILLNEED)

    def read_into(self, start: int, out: np.ndarray) -> None:
        view, done = out.data, 0
        while done < len(view):
            if not (n := os.preadv(self.fd, [view[done:]], start + done)):
                raise ValueError("it ends too early")
            done += n

    def close(self) -> None:
        os.close(self.fd)


class RemoteFile:
    """Ranges of a file in a bucket or on a web server; what is expected comes in requests side by side."""

    def __init__(self, place: Place, key: str, size: int):
        self.place, self.key, self.size = place, key, size
        self.fetched: dict[int, Any] = {}

    def expect(self, ranges: list[tuple[int, int]]) -> None:
        starts, ends = ([r[i] for r in ranges] for i in (0, 1))
        self.fetched = dict(zip(starts, read_ranges(self.place, self.key, starts, ends), strict=True))

    def read_into(self, start: int, out: np.ndarray) -> None:
        if start not in self.fetched:
            self.expect([(start, start + len(out))])
        data = np.frombuffer(self.fetched.pop(start), np.uint8)
        if len(data) != len(out):
            raise ValueError("it ends too early")
        out[:] = data

    def close(self) -> None:
        self.fetched.clear()


def read_ranges(place: Place, key: str, starts: list[int], ends: list[int]) -> Sequence[Any]:
    """Some ranges of a remote file."""
    import obstore
    from obstore.exceptions import NotSupportedError

    from ..bucket import ERRORS, Bucket, translated

    assert isinstance(place, Bucket)
    try:
        return obstore.get_ranges(place.store, key, starts=starts, ends=ends)
    except NotSupportedError as error:
        raise StoreError(
            f"{place}: this web server does not serve parts of files: use tier ram, or `bmla store pull` the store first"
        ) from error
    except ERRORS as error:
        raise translated(place, key, error) from error


class FetchedFile:
    """A file whose bytes are here already."""

    def __init__(self, data: bytes):
        self.data = np.frombuffer(data, np.uint8)
        self.size = len(data)

    def expect(self, ranges: list[tuple[int, int]]) -> None:
        """Nothing to prepare."""

    def read_into(self, start: int, out: np.ndarray) -> None:
        out[:] = self.data[start : start + len(out)]

    def close(self) -> None:
        """Nothing is held."""


ShardFile = LocalFile | RemoteFile | FetchedFile
