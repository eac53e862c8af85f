"""A store in object storage (S3, Google Cloud Storage, Azure) or behind a web server, by obstore.

Credentials come the standard ways: environment variables, profiles, instance roles. `place.REMOTE` adds what they do
not say. A web server cannot list its files, so there the listing that `bmla store push` wrote is read instead.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import HTTPStore, from_url
from zarr.storage import ObjectStore

from .errors import StoreError, UsageError
from .listing import KEY as LISTING
from .place import REMOTE, TEMPORARY, digest_bytes

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

TIMEOUT_S = "30s"
ERRORS = (BaseError, OSError)  # obstore raises Python's own FileNotFoundError and PermissionError too


def open_bucket(url: str, read_only: bool) -> "Bucket":
    """Raises UsageError for a URL that can't be one, or a web server that is to be written."""
    web = url.startswith(("http://", "https://"))
    if web and not read_only:
        raise UsageError(f"{url}: a web server can only be read; push to a path, s3://, gs:// or az://")
    plain = url.startswith("http://") or (REMOTE.endpoint or "").startswith("http://")
    config: dict[str, Any] = {"client_options": {"timeout": TIMEOUT_S, **({"allow_http": True} if plain else {})}}
    if REMOTE.anonymous and not web:
        config["skip_signature"] = True
    if REMOTE.endpoint and url.startswith("s3://"):
        config["endpoint"] = REMOTE.endpoint
    try:
        return Bucket(url, from_url(url.rstrip("/"), **config), read_only)
    except (BaseError, ValueError) as error:
        raise UsageError(f"{url}: cannot be opened ({first_line(error)})") from error


class Bucket:
    """See `place.Place`."""

    remote = True

    def __init__(self, url: str, store: Any, read_only: bool):
        self.url, self.store, self.read_only = url.rstrip("/"), store, read_only

    def __str__(self) -> str:
        return self.url

    def zarr(self) -> "ZarrStore":
        return ObjectStore(self.store, read_only=self.read_only)

    def read(self, key: str) -> bytes:
        try:
            return bytes(obstore.get(self.store, key).bytes())
        except ERRORS as error:
            raise translated(self, key, error) from error

    def write(self, key: str, data: bytes) -> None:
        try:
            obstore.put(self.store, key, data)
        except ERRORS as error:
            raise translated(self, key, error) from error

    def remove(self, key: str) -> None:
        try:
            obstore.delete(self.store, key)
        except FileNotFoundError:
            return
        except ERRORS as error:
            raise translated(self, key, error) from error

    def exists(self, key: str) -> bool:
        try:
            obstore.head(self.store, key)
        except ERRORS as error:
            problem = translated(self, key, error)
            if isinstance(problem, FileNotFoundError):
                return False
            raise problem from error
        return True

    def names(self, key: str) -> list[str]:
        return sorted({k for k in self._below(key) if "/" not in k and not k.startswith((".", TEMPORARY))})

    def folders(self, key: str) -> list[str]:
        return sorted({k.split("/", 1)[0] for k in self._below(key) if "/" in k and not k.startswith(".")})

    def sizes(self, key: str) -> dict[str, int]:
        if isinstance(self.store, HTTPStore):
            prefix = f"{key}/" if key else ""
            return {k: n for k, n in self._listing.items() if k.startswith(prefix)}
        try:
            pages = obstore.list(self.store, prefix=f"{key}/" if key else None)
            return dict(sorted((meta["path"], meta["size"]) for page in pages for meta in page))
        except ERRORS as error:
            raise translated(self, key, error) from error

    def modified_s(self, key: str) -> float:
        try:
            return obstore.head(self.store, key)["last_modified"].timestamp()
        except ERRORS as error:
            raise translated(self, key, error) from error

    def digest(self, key: str) -> dict[str, Any] | None:
        try:
            return digest_bytes(self.read(key))
        except FileNotFoundError:
            return None

    def _below(self, key: str) -> list[str]:
        """Keys below a folder, relative to it."""
        start = len(key) + 1 if key else 0
        return [k[start:] for k in self.sizes(key)]

    @cached_property
    def _listing(self) -> dict[str, int]:
        from .sealing import read_json, unsealed

        try:
            content = unsealed(read_json(self, LISTING), f"{self}/{LISTING}")["files"]
        except FileNotFoundError as error:
            raise StoreError(
                f"{self}: no {LISTING} here, which a store on a web server needs: `bmla store push` writes it"
            ) from error
        if not isinstance(content, dict) or not all(type(n) is int and n >= 0 for n in content.values()):
            raise StoreError(f"{self}/{LISTING}: damaged")
        return content


def translated(bucket: Bucket, key: str, error: Exception) -> Exception:
    """obstore's error in bmla's words."""
    where = f"{bucket}/{key}".rstrip("/")
    if isinstance(error, NotFoundError | FileNotFoundError):
        return FileNotFoundError(f"{where}: not there")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return StoreError(f"{where}: access denied: check the credentials, or give --anonymous for public data")
    return StoreError(f"{where}: {first_line(error)}")


def first_line(error: Exception, limit: int = 200) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:limit]
