"""Where a store lies: a folder, a bucket or a web server, behind the few verbs that the rest of the store is written in.

A key is a path inside the store with forward slashes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .errors import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

TEMPORARY = ".tmp-"  # how the name of a file begins that is still being written
SCHEMES = ("s3://", "gs://", "az://", "http://", "https://")


@dataclass
class RemoteOptions:
    """What a person says about remote places beside their URLs.

    Attributes:
        endpoint: of an S3-compatible server, such as http://localhost:9000; None: the provider's own.
        anonymous: read public data without credentials.
    """

    endpoint: str | None = None
    anonymous: bool = False


REMOTE = RemoteOptions()  # one for the process, as credentials are


class Place(Protocol):
    """The bytes of one store. Missing keys raise FileNotFoundError.

    Attributes:
        read_only: nothing will be written here.
        remote: reading costs a request; nothing can be mapped into memory or locked.
    """

    read_only: bool
    remote: bool

    def read(self, key: str) -> bytes: ...

    def write(self, key: str, data: bytes) -> None:
        """Whole or not at all, and kept before this returns. Raises StoreError where it can't be written."""

    def remove(self, key: str) -> None:
        """Nothing happens where there is nothing under this key."""

    def exists(self, key: str) -> bool: ...

    def names(self, key: str) -> list[str]:
        """Sorted names of the files directly below a key, without hidden ones; none where there is no such folder."""

    def folders(self, key: str) -> list[str]:
        """Sorted names of the folders directly below a key."""

    def sizes(self, key: str) -> dict[str, int]:
        """Bytes of every file below a key, hidden ones too, by key, sorted; links are not followed."""

    def digest(self, key: str) -> dict[str, Any] | None:
        """{"bytes": size, "sha256": digest} of a file as it is kept; None without one."""

    def modified_s(self, key: str) -> float:
        """When a file was last written, in seconds since 1970."""

    def zarr(self) -> "ZarrStore":
        """The same place as zarr sees it."""


def is_url(path: str | Path) -> bool:
    return str(path).startswith(SCHEMES)


def open_place(path: str | Path, read_only: bool = True) -> Place:
    """A folder for a path, a bucket or web server for a URL (s3://, gs://, az://, http://, https://)."""
    if is_url(path):
        from .bucket import open_bucket

        return open_bucket(str(path), read_only)
    from .folder import Folder

    return Folder(Path(path), read_only=read_only)


def digest_bytes(data: bytes) -> dict[str, Any]:
    """What a ledger says of a file: {"bytes": size, "sha256": digest}."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def cannot_write(place: object, error: OSError) -> StoreError:
    return StoreError(f"{place}: cannot write the store here: {error.strerror or error}")
