"""The bytes of a stream's shard files: their index, their chunks and the checksums, read without zarr.

An inner chunk holds t steps of one clip, then its crc32c. At the file's end stands the index: (offset, size) of every inner
chunk in C order, as little-endian uint64, all ones where a chunk is all zero and not stored; then the index's crc32c. See
docs/store.md. An index is believed only after it was proven to stay inside its file.

Shape legend: n clips, S clips a shard, T steps the stream can hold, t steps a chunk, k chunks a clip, c chunks.
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol

import google_crc32c
import numpy as np
import pyarrow as pa

from ..arrays import CHUNK_STEPS
from ..errors import StoreError
from ..head import Head

CRC_BYTES = 4
RESIDUE = google_crc32c.value(bytes(CRC_BYTES))  # the crc32c of any bytes followed by their own crc32c
NOT_STORED = np.iinfo(np.uint64).max
PIECE_BYTES = (
    2 << 20
)  # read at a time: large enough for a disk, small enough to stay in a core's cache until it is copied
GAP_BYTES = 64 << 10  # unwanted bytes that cost less to read than another request


@dataclass(frozen=True)
class Layout:
    """What a stream's head and the store's shard size imply for its shard files.

    Attributes:
        shard_clips: S.
        chunk_steps: t.
        clip_chunks: k, so that clip i of the shard has chunks i k to (i + 1) k - 1.
        step_bytes: of one step's feature.
        compressed: chunks are zstd frames.
    """

    shard_clips: int
    chunk_steps: int
    clip_chunks: int
    step_bytes: int
    compressed: bool

    @classmethod
    def of(cls, head: Head, shard_clips: int) -> "Layout":
        t = min(head.steps, CHUNK_STEPS)
        step_bytes = prod(head.spec.feature_shape) * np.dtype(head.spec.dtype).itemsize
        return cls(shard_clips, t, -(-head.steps // t), step_bytes, head.compression != "none")

    @property
    def chunk_bytes(self) -> int:
        return self.chunk_steps * self.step_bytes

    @property
    def index_bytes(self) -> int:
        return 16 * self.shard_clips * self.clip_chunks + CRC_BYTES

    @property
    def stored_bytes(self) -> tuple[int, int]:
        """The fewest and the most bytes that a stored chunk can have."""
        if not self.compressed:
            return self.chunk_bytes + CRC_BYTES, self.chunk_bytes + CRC_BYTES
        return CRC_BYTES + 1, self.chunk_bytes + (self.chunk_bytes >> 8) + 128  # zstd's own bound, and a little

    def parse_index(self, tail: np.ndarray, body_bytes: int) -> np.ndarray:
        """The index at the end of a shard file.

        Args:
            tail: the file's last `index_bytes` bytes.
            body_bytes: how many bytes stand before them.

        Returns:
            (c, 2) int64 offset and size of each chunk; -1 where it is not stored.

        Raises:
            ValueError: the index is damaged, or points outside the file, at chunks that overlap or of a wrong size.
        """
        if google_crc32c.value(tail) != RESIDUE:
            raise ValueError("its index does not match its checksum")
        pairs = tail[:-CRC_BYTES].view("<u8").reshape(-1, 2)
        stored = (pairs != NOT_STORED).any(axis=1)
        offset, size = pairs[stored].T
        smallest, largest = self.stored_bytes
        misfits = (size < smallest) | (size > min(largest, body_bytes))
        if misfits.any():
            raise ValueError(f"its index holds a chunk of {size[misfits][0]} bytes")
        if (offset > body_bytes - size).any():
            raise ValueError("its index points behind the end of the file")
        order = np.argsort(offset)
        if (offset[order][1:] < (offset + size)[order][:-1]).any():
            raise ValueError("its index holds chunks that overlap")
        return np.where(stored[:, None], pairs, NOT_STORED).astype(np.int64)  # all ones become -1

    def chunks_of(self, clips: np.ndarray, lengths: np.ndarray, at: np.ndarray) -> "Chunks":
        """Where the steps of some clips lie.

        Args:
            clips: (n,) row numbers in the clip table.
            lengths: (n,) steps of each.
            at: (n,) where the first step of each is to go.
        """
        shard, slot = np.divmod(clips, self.shard_clips)
        if self.clip_chunks == 1:
            return Chunks(shard, slot, at, lengths)
        count = -(-lengths // self.chunk_steps)
        clip = np.repeat(np.arange(len(clips)), count)
        j = np.arange(len(clip)) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, … of each clip
        first = j * self.chunk_steps
        steps = np.minimum(lengths[clip] - first, self.chunk_steps)
        return Chunks(shard[clip], slot[clip] * self.clip_chunks + j, at[clip] + first, steps)


class Chunks(NamedTuple):
    """What is wanted: the first steps[i] steps of a shard's chunk number[i], to go to step at[i] and on; (c,) each."""

    shard: np.ndarray
    number: np.ndarray
    at: np.ndarray
    steps: np.ndarray

    def by_shard(self) -> "tuple[Chunks, list[int], list[int]]":
        """The same in the order of the shards; the shards; and where the chunks of each begin, then where the last ends."""
        order = np.argsort(self.shard, kind="stable")
        chunks = Chunks(*(column[order] for column in self))
        shards, first = np.unique(chunks.shard, return_index=True)
        return chunks, shards.tolist(), [*first.tolist(), len(order)]


class File(Protocol):
    """A shard file that is open."""

    size: int

    def expect(self, ranges: list[tuple[int, int]]) -> None:
        """Says which bytes (first, one past the last) will be read next, so that they can come side by side."""

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Fills out, (b,) uint8. Raises OSError or ValueError where the file ends before."""


def read_index(file: File, layout: Layout) -> np.ndarray:
    """See `Layout.parse_index`."""
    body_bytes = file.size - layout.index_bytes
    if body_bytes < 0:
        raise ValueError(f"{file.size} bytes, fewer than the {layout.index_bytes} of its index")
    tail = np.empty(layout.index_bytes, np.uint8)
    file.read_into(body_bytes, tail)
    return layout.parse_index(tail, body_bytes)


class Piece(NamedTuple):
    """Bytes start to stop - 1 of a shard's file, read at once. rows: (first byte in the piece, one past the last, at, steps) a chunk."""

    shard: int
    start: int
    stop: int
    rows: list[list[int]]


def pieces_of(chunks: Chunks, place: np.ndarray, out: np.ndarray) -> list[Piece]:
    """The chunks that are stored, in the order of shards and files, neighbours joined; the others are set to zero in `out`.

    Args:
        place: (c, 2) offset and size of each in its file; -1 where it is not stored.
        out: (steps,) items of one step each.
    """
    offset, size = place.T
    absent = offset < 0
    for at, steps in zip(chunks.at[absent].tolist(), chunks.steps[absent].tolist(), strict=True):
        out[at : at + steps].view(np.uint8)[:] = 0
    order = np.lexsort((offset, chunks.shard))
    order = order[~absent[order]]
    shard, start, stop = chunks.shard[order], offset[order], (offset + size)[order]
    first, last = joined(shard, start, stop)
    base = np.repeat(start[first], last - first)
    rows = np.stack([start - base, stop - base, chunks.at[order], chunks.steps[order]], axis=1).tolist()
    ranges = (x.tolist() for x in (shard[first], start[first], stop[last - 1], first, last))
    return [Piece(k, a, b, rows[i:j]) for k, a, b, i, j in zip(*ranges, strict=True)]


def copy_piece(file: File, layout: Layout, piece: Piece, scratch: np.ndarray, out: np.ndarray) -> None:
    """Reads a piece, proves the checksums of its chunks and lays their steps out.

    Args:
        scratch: uint8, as long as the piece or longer.
        out: (steps,) items of one step each.

    Raises:
        ValueError: a chunk is damaged.
    """
    buffer = scratch[: piece.stop - piece.start]
    file.read_into(piece.start, buffer)
    for a, b, at, steps in piece.rows:
        if google_crc32c.value(buffer[a:b]) != RESIDUE:
            raise ValueError("a chunk does not match its checksum")
        data = buffer[a : b - CRC_BYTES]
        if layout.compressed:
            data = decompress(data, layout)
        out[at : at + steps] = data[: steps * layout.step_bytes].view(out.dtype)


def joined(shard: np.ndarray, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges in ascending order, joined over small gaps into pieces: index of the first of each piece and one past its last."""
    new = np.ones(len(start), bool)
    new[1:] = (shard[1:] != shard[:-1]) | (start[1:] - stop[:-1] > GAP_BYTES)
    base = start[np.flatnonzero(new)][np.cumsum(new) - 1]
    part = (start - base) // PIECE_BYTES
    new[1:] |= part[1:] != part[:-1]
    first = np.flatnonzero(new)
    return first, np.append(first, len(start))[1:]


def decompress(data: np.ndarray, layout: Layout) -> np.ndarray:
    """(chunk_bytes,) uint8 of a zstd frame that holds just as many; never more memory than that."""
    try:
        return np.frombuffer(pa.Codec("zstd").decompress(data, layout.chunk_bytes), np.uint8)
    except OSError as error:
        raise ValueError("a chunk cannot be decompressed") from error


def damaged(where: str, why: object) -> StoreError:
    return StoreError(f"{where}: damaged ({why}); `bmla store verify --deep` finds all")
