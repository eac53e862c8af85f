"""How much memory is free, and memory that worker processes share without a copy."""

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from math import prod
from multiprocessing import context, reduction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
SMALL_BYTES = 256 << 20  # not worth a look at how much is free


def available_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Memory that can be used without pushing anything else out: what the machine has free, or the job's limit leaves."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        free = kilobytes["MemAvailable"] * 1024
    except (OSError, KeyError, ValueError, IndexError):  # no Linux: half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return max(0, min([free, *left_in_groups(proc, cgroups)]))


def left_in_groups(proc: Path, cgroups: Path) -> list[int]:
    """What the memory limits of this process's control group (version 2) and the groups above it leave; none without limits."""
    try:
        group = next(x[3:] for x in (proc / "self/cgroup").read_text().splitlines() if x.startswith("0::"))
    except (OSError, StopIteration):
        return []
    left = []
    folder = cgroups / group.strip().lstrip("/")
    for at in (folder, *folder.parents):
        try:
            limit = int((at / "memory.max").read_text())
            used = dict(line.split() for line in (at / "memory.stat").read_text().splitlines())
            left.append(limit - sum(int(used[k]) for k in ("anon", "shmem")))  # the page cache gives way
        except (OSError, KeyError, ValueError):  # "max" is no number
            continue
    return left


def zeros(shape: tuple[int, ...], dtype: str | np.dtype, what: str) -> np.ndarray:
    """A new array, untouched by memory until it is written. Raises StoreError where it is more than there is."""
    size, free = prod(shape) * np.dtype(dtype).itemsize, available_bytes()
    try:
        if size > free:
            raise MemoryError
        return np.zeros(shape, dtype)
    except (MemoryError, ValueError) as error:  # ValueError: more than numpy can count
        raise StoreError(
            f"{what}: {size / 1e9:.2f} GB in memory, but {free / 1e9:.2f} GB are free: "
            "load one split, or read it through a reader (tier mmap or shard)"
        ) from error


def empty(shape: tuple[int, ...], dtype: str | np.dtype, what: str) -> np.ndarray:
    """A new array with any content; as `zeros`, and quick where it is small."""
    small = prod(shape) * np.dtype(dtype).itemsize < SMALL_BYTES
    return np.empty(shape, dtype) if small else zeros(shape, dtype, what)


class SharedBlock:
    """Memory without a name, kept by whoever has it open; the system frees it with its last owner.

    Forked workers have it at once; spawned ones get it as an argument of their process.
    """

    def __init__(self, size: int, fd: int | None = None):
        self.size = size
        self.fd = unnamed_file(size) if fd is None else fd
        weakref.finalize(self, os.close, self.fd)
        self.map = mmap.mmap(self.fd, max(size, 1))
        self.array = np.frombuffer(self.map, np.uint8, size)

    @classmethod
    def of(cls, array: np.ndarray) -> "SharedBlock":
        """A copy of (b,) uint8. Raises TypeError where no process is being started that could get it."""
        must_be_spawning()
        block = cls(len(array))
        block.array[:] = array
        return block

    def __reduce__(self) -> tuple[Callable, tuple[Any, ...]]:
        must_be_spawning()
        return attached, (self.size, reduction.DupFd(self.fd))


def must_be_spawning() -> None:
    """Raises TypeError where something that processes share is pickled, but not for a process that is being started."""
    if context.get_spawning_popen() is None:
        raise TypeError(
            "a reader in memory goes to worker processes when they are started (as an argument of the process, or in the "
            "DataLoader's data set), not through a queue or a file: open the store there instead"
        )


def attached(size: int, handle: Any) -> SharedBlock:
    return SharedBlock(size, handle.detach())


def unnamed_file(size: int) -> int:
    """A file in memory where the system has such (its size is not limited by /dev/shm), else an unlinked temporary one."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("bmla", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, max(size, 1))
    return fd
