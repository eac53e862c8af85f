"""A store in a folder of a local disk."""

import hashlib
import os
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from .errors import StoreError
from .place import TEMPORARY, cannot_write


class Folder:
    """See `place.Place`. What a killed writer leaves behind are files whose name begins with TEMPORARY."""

    remote = False

    def __init__(self, path: Path, *, read_only: bool = True):
        self.path = path
        self.read_only = read_only

    def __str__(self) -> str:
        return str(self.path)

    def zarr(self) -> LocalStore:
        return LocalStore(self.path, read_only=self.read_only)

    def path_of(self, key: str) -> Path:
        """Where a key lies. Raises StoreError for one that leads out of the store, by its name or by a link."""
        path, parts = self.path / key, key.split("/")
        outside = key.startswith("/") or ".." in parts
        below = accumulate(parts, lambda folder, name: f"{folder}/{name}", initial=str(self.path))
        if not outside and any(map(os.path.islink, below)):  # resolving all takes longer than reading a small file
            outside = not path.resolve().is_relative_to(self.path.resolve())
        if outside:
            raise StoreError(f"{self.path}/{key}: leads out of the store: a store must not hold such names or links")
        return path

    def exists(self, key: str) -> bool:
        return self.path_of(key).is_file()

    def read(self, key: str) -> bytes:
        return self.path_of(key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        target = self.path_of(key)
        beside = target.with_name(f"{TEMPORARY}{os.getpid()}-{target.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        except OSError as error:
            with suppress(OSError):  # the first error is the one to tell
                beside.unlink(missing_ok=True)
            raise cannot_write(self, error) from error

    def remove(self, key: str) -> None:
        self.path_of(key).unlink(missing_ok=True)

    def names(self, key: str) -> list[str]:
        try:
            with os.scandir(self.path_of(key)) as entries:
                return sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def folders(self, key: str) -> list[str]:
        try:
            with os.scandir(self.path_of(key)) as entries:
                return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sizes(self, key: str) -> dict[str, int]:
        found, folders = {}, [(str(self.path_of(key)), key)]
        while folders:
            folder, below = folders.pop()
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    name = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, name))
                    else:
                        found[name] = entry.stat(follow_symlinks=False).st_size
        return dict(sorted(found.items()))

    def modified_s(self, key: str) -> float:
        return self.path_of(key).stat().st_mtime

    def digest(self, key: str) -> dict[str, Any] | None:
        try:
            with self.path_of(key).open("rb") as file:
                os.fsync(file.fileno())
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                return {"bytes": file.tell(), "sha256": sha256}
        except FileNotFoundError:
            return None
