"""One writer at a time, by an advisory lock that the system gives back by itself when its owner is killed."""

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreBusy, StoreError

NAME = ".writer.lock"
READERS = ".readers.lock"  # only caches have it: a cache is not thrown away while it is read


@contextmanager
def writer_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Holds the store at `path` for writing.

    Args:
        wait: until another process is done with it.

    Raises:
        StoreBusy: another process holds it, and `wait` is not set.
        StoreError: the store can't be written at all.
    """
    try:
        file = (path / NAME).open("a")
    except OSError as error:
        raise StoreError(f"{path}: cannot write the store here: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise StoreBusy(f"{path}: another bmla process is writing this store: wait for it, or stop it") from error
        yield


def reader_lock(path: Path, reader: object) -> None:
    """Marks the store at `path` as being read as long as `reader` and its process live."""
    file = os.open(path / READERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(file, fcntl.LOCK_SH)
    weakref.finalize(reader, os.close, file)


def in_use(path: Path) -> bool:
    """Whether a process reads or writes the store at `path`."""
    for name in (READERS, NAME):
        with (path / name).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False
