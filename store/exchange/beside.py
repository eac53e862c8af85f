"""A file or folder that is there whole or not at all: made beside its place, kept on the disk, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BmlaError, StoreError, UsageError
from ..place import TEMPORARY


@contextmanager
def written_beside(out: Path) -> Iterator[Path]:
    """Gives a path beside `out`; what the block makes there becomes `out` where the block ends well, else it goes.

    Raises:
        UsageError: there is something at `out`.
        StoreError: the disk is full, or nothing can be written here.
    """
    refuse_existing(out)
    beside = out.with_name(f"{TEMPORARY}{os.getpid()}-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        for path in (*sorted(beside.rglob("*")), beside):
            sync(path)
        refuse_existing(out)  # it may have come in the meantime
        beside.rename(out)
        sync(out.parent)
    except BmlaError:
        raise
    except OSError as error:
        raise StoreError(f"{out}: the export failed ({error.strerror or error}); nothing of it was left") from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: there is something here already: give another --out, or take it away")


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
