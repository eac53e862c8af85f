"""Where a reader takes its features from: memory, mapped shard files, or shard files read piece by piece.

Each tier fills a batch for the clips that it is asked for; what the batch is, `reader.Reader` knows.

Shape legend: n clips of the reader, b clips of a batch, T steps of its longest clip, F the shape of one step's feature.
"""

import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from math import prod
from os import cpu_count
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from .files import LocalFile, StreamFiles, keep_last
from .layout import Chunks, read_index
from .memory import SharedBlock, zeros

THREADS = 4
COPY_S, COPY_BYTES_PER_S = 2e-5, 1.5e9  # a chunk that is in memory is copied faster than this


@dataclass(frozen=True)
class Rows:
    """The clips of a reader, in the order of the store.

    Attributes:
        clips: (n,) int64 row numbers in the clip table, ascending.
        lengths: (n,) int64 steps of each, at least 1.
        starts: (n,) int64 first step of each where all are laid end to end.
    """

    clips: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, files: StreamFiles, wanted: np.ndarray) -> "Rows":
        """The clips among `wanted` (row numbers) that have features."""
        clips = wanted[files.lengths[wanted] > 0]
        lengths = files.lengths[clips]
        return cls(clips, lengths, np.cumsum(lengths) - lengths)

    @property
    def steps(self) -> int:
        return int(self.lengths.sum())

    def of_shards(self, shard_clips: int) -> list[tuple[int, slice]]:
        """The shards that hold these clips, and which of the rows lie in each."""
        shards, first = np.unique(self.clips // shard_clips, return_index=True)
        last = np.append(first, len(self.clips))[1:]
        return [(s, slice(a, b)) for s, a, b in zip(shards.tolist(), first.tolist(), last.tolist(), strict=True)]


class Tier(Protocol):
    """Where the values come from."""

    name: str

    def fill(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Values of some clips.

        Args:
            rows: (b,) positions in the reader, in any order, with repeats.
            out: (b, T, *F) is written up to each clip's length; what stands behind it stays or becomes anything.
        """


def load_values(files: StreamFiles, rows: Rows, out: np.ndarray) -> None:
    """All values, end to end, by whole shards in several threads; out is (steps, *F)."""
    flat, layout = as_steps(out), files.layout

    def read(shard: slice) -> None:
        clips, lengths, at = rows.clips[shard], rows.lengths[shard], rows.starts[shard]
        files.copy(layout.chunks_of(clips, lengths, at), flat, whole=True)

    in_threads(read, [part for _, part in rows.of_shards(layout.shard_clips)])


def load_valid(files: StreamFiles, rows: Rows, out: np.ndarray) -> None:
    """Validity of all steps, end to end; out is (steps,) bool."""

    def read(item: tuple[int, slice]) -> None:
        valid_of_shard(files, rows, *item, out)

    in_threads(read, rows.of_shards(files.layout.shard_clips))


def valid_of_shard(files: StreamFiles, rows: Rows, shard: int, part: slice, out: np.ndarray) -> None:
    """One shard's part of `load_valid`."""
    lengths, first = rows.lengths[part], int(rows.starts[part][0])
    block = files.valid(shard)[rows.clips[part] % files.layout.shard_clips]
    out[first : first + int(lengths.sum())] = block[np.arange(block.shape[1]) < lengths[:, None]]


def in_threads(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """work(item) of each; the first error is raised once the threads have ended."""
    with ThreadPoolExecutor(min(THREADS, cpu_count() or 1)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Ram:
    """Everything in memory. Forked workers share it as it is; for spawned ones it is moved, once, to where they can share it:
    memory of one process alone is the faster one, because the system keeps it in large pages."""

    name = "ram"

    def __init__(self, files: StreamFiles, rows: Rows):
        self.rows = rows
        spec = files.head.spec
        values = zeros((rows.steps, *spec.feature_shape), spec.dtype, f"{files.place}: stream {spec.name}")
        load_values(files, rows, values)
        self.values, self.unit = as_flat(values), files.layout.step_bytes
        self.block: SharedBlock | None = None

    def fill(self, rows: np.ndarray, out: np.ndarray) -> None:
        starts, sizes = self.rows.starts[rows] * self.unit, self.rows.lengths[rows] * self.unit
        flat, values, row = as_flat(out).data, self.values.data, out.shape[1] * self.unit
        for i, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
            flat[i * row : i * row + size] = values[start : start + size]

    def __getstate__(self) -> dict[str, Any]:
        if self.block is None:
            self.block = SharedBlock.of(self.values)
            self.values = self.block.array
        return {"rows": self.rows, "unit": self.unit, "block": self.block}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.values = state["block"].array


class Shards:
    """Nothing is kept: the wanted ranges of the shard files are read, neighbours together, and checked."""

    name = "shard"

    def __init__(self, files: StreamFiles, rows: Rows):
        self.files, self.rows = files, rows

    def fill(self, rows: np.ndarray, out: np.ndarray) -> None:
        once, at, again = each_once(rows)
        clips, lengths = self.rows.clips[once], self.rows.lengths[once]
        self.files.copy(self.files.layout.chunks_of(clips, lengths, at * out.shape[1]), as_steps(out, 2))
        copy_again(out, again)


class Mapped:
    """Uncompressed shard files mapped into memory. An index is checked when its file is mapped; values are not, as with any
    memory map: `bmla store verify --deep` does that."""

    name = "mmap"

    def __init__(self, files: StreamFiles, rows: Rows):
        self.files, self.rows = files, rows
        self.maps: dict[int, tuple[memoryview, memoryview]] = {}
        self.waited = True  # the last batch came from the disk, at least in part

    def fill(self, rows: np.ndarray, out: np.ndarray) -> None:
        at = np.arange(0, len(rows) * out.shape[1], out.shape[1])
        chunks = self.files.layout.chunks_of(self.rows.clips[rows], self.rows.lengths[rows], at)
        flat: Any = as_flat(out)
        began, read = time.perf_counter(), blocks_read()
        if self.waited:
            self.announce(chunks)
        else:  # a plain buffer is copied faster, but no other thread runs meanwhile: not where a disk is waited for
            flat = flat.data
        unit, maps = self.files.layout.step_bytes, self.maps
        firsts, sizes = (chunks.at * unit).tolist(), (chunks.steps * unit).tolist()
        for shard, number, to, size in zip(chunks.shard.tolist(), chunks.number.tolist(), firsts, sizes, strict=True):
            body, offsets = maps.get(shard) or self.map(shard)
            start = offsets[number]
            flat[to : to + size] = body[start : start + size] if start >= 0 else memoryview(bytes(size))
        slow = time.perf_counter() - began > len(firsts) * COPY_S + out.nbytes / COPY_BYTES_PER_S
        self.waited = slow or blocks_read() > read  # slow: not every file system counts what it reads

    def map(self, shard: int) -> tuple[memoryview, memoryview]:
        """A shard's bytes and the offset of each of its chunks, -1 where it is all zero. No file stays open."""
        layout = self.files.layout
        body, offsets = np.empty(0, np.uint8), np.broadcast_to(np.int64(-1), layout.shard_clips * layout.clip_chunks)
        with self.files.naming("values", shard):
            if (file := self.files.open("values", shard)) is not None:
                with closing(file):
                    offsets = np.ascontiguousarray(read_index(file, layout)[:, 0])
                with pa.memory_map(self.files.path("values", shard)) as opened:
                    # the parent of a read buffer is the whole mapping: it outlives the file's handle, so that no number
                    # of shards runs into the limit of open files; reading all of it would fetch it from the disk
                    body = np.frombuffer(opened.read_buffer(1).parent, np.uint8)
                if len(body) != file.size:
                    raise ValueError("it changed while it was opened")
        mapped = self.maps[shard] = body.data, offsets.data
        keep_last(self.maps, offsets.nbytes)
        return mapped

    def announce(self, chunks: Chunks) -> None:
        """Asks the disk for all chunks of a batch at once: page faults alone would wait for one after the other."""
        chunks, shards, bounds = chunks.by_shard()
        for shard, first, last in zip(shards, bounds, bounds[1:], strict=False):
            _, offsets = self.maps.get(shard) or self.map(shard)
            start = np.asarray(offsets)[chunks.number[first:last]]
            stop = start + chunks.steps[first:last] * self.files.layout.step_bytes
            stored = start >= 0
            if stored.any():
                with self.files.naming("values", shard), closing(LocalFile(self.files.path("values", shard))) as file:
                    file.expect(list(zip(start[stored].tolist(), stop[stored].tolist(), strict=True)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "maps": {}, "waited": True}


class Validity:
    """Which steps are valid, read shard by shard when they are first asked for."""

    def __init__(self, files: StreamFiles, rows: Rows):
        self.files, self.rows = files, rows
        self.forget()

    def forget(self) -> None:
        self.flat = np.zeros(self.rows.steps, bool)
        self.parts: dict[int, slice] = dict(self.rows.of_shards(self.files.layout.shard_clips))

    def fill(self, rows: np.ndarray, out: np.ndarray) -> None:
        """As `Tier.fill`, with out (b, T) bool."""
        if self.parts:
            shards = np.unique(self.rows.clips[rows] // self.files.layout.shard_clips)
            for shard in shards.tolist():
                if part := self.parts.get(shard):
                    valid_of_shard(self.files, self.rows, shard, part, self.flat)
                    self.parts.pop(shard, None)  # only now: another thread must not see it as read before it is
        steps = self.rows.starts[rows][:, None] + np.arange(out.shape[1])
        np.take(self.flat, steps, out=out, mode="clip")

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "rows": self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.forget()


def blocks_read() -> int:
    """What this thread has read from disks so far (elsewhere than on Linux: this process)."""
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_inblock


def each_once(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that may repeat, sorted and each once.

    Returns:
        (c,) the rows, ascending; (c,) where in the batch each is first; (b - c, 2) where it is again, and where it was first.
    """
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    new = np.ones(len(rows), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=new[1:])
    at = order[new]
    if len(at) == len(rows):
        return ascending, at, np.empty((0, 2), np.int64)
    return ascending[new], at, np.stack([order[~new], at[np.cumsum(new) - 1][~new]], axis=1)


def copy_again(out: np.ndarray, again: np.ndarray) -> None:
    if len(again):
        out[again[:, 0]] = out[again[:, 1]]


def as_flat(out: np.ndarray) -> np.ndarray:
    """The same memory as (bytes,) uint8."""
    return out.reshape(-1).view(np.uint8)


def as_steps(out: np.ndarray, leading: int = 1) -> np.ndarray:
    """The same memory as (steps,) items of one step each, where the first `leading` axes count steps."""
    steps, size = prod(out.shape[:leading]), prod(out.shape[leading:])
    return out.reshape(steps, size).view(f"V{size * out.itemsize}")[:, 0]
