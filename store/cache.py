"""A remote store's shards on the local disk: pulled once, verified, shared by processes, bounded in size.

The cache of a store is itself a store (a pulled part), so everything that reads stores reads it.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import StoreError
from .folder import Folder
from .lock import in_use, reader_lock, writer_lock
from .sealing import digest_json
from .store import Store, open_store
from .transfer import Selection, plan_transfer, run_transfer

DEFAULT_LIMIT_BYTES = 200 * 10**9


def cached(
    remote: Store,
    streams: Sequence[str],
    folder: Path,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    begin: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda n: None,
) -> Store:
    """The local copy of some streams of a remote store; makes or completes it.

    Args:
        folder: holds all caches.
        limit_bytes: of the folder; the caches that were not used for longest make room.
        begin: called with the bytes that are to be fetched; advance: with bytes as they arrive.

    Raises:
        StoreError: these streams alone are larger than the limit; or see `run_transfer`.
    """
    place = folder / f"{digest_json(remote.identity.to_dict())[:16]}.zarr"
    place.mkdir(parents=True, exist_ok=True)
    with writer_lock(place, wait=True):  # another process may be fetching the same shards
        plan = plan_transfer(remote, Folder(place, read_only=False), Selection(tuple(streams)))
        make_room(folder, place, plan.bytes, limit_bytes)
        begin(plan.bytes)
        run_transfer(plan, advance)
    os.utime(place)  # the time of its last use
    store = open_store(place)
    reader_lock(place, store)  # as long as the store is open it is not thrown away under its reader
    return store


def make_room(folder: Path, keep: Path, needed: int, limit_bytes: int) -> None:
    """Removes whole caches, the longest unused first, until `needed` bytes more fit."""
    sizes = {p: sum(Folder(p).sizes("").values()) for p in folder.glob("*.zarr")}
    free = limit_bytes - sum(sizes.values()) - needed
    for path in sorted(sizes.keys() - {keep}, key=lambda p: p.stat().st_mtime):
        if free >= 0:
            return
        if not in_use(path):
            shutil.rmtree(path)
            free += sizes[path]
    if free < 0:
        raise StoreError(
            f"{folder}: these streams need {(needed + sizes.get(keep, 0)) / 1e9:.1f} GB, the cache may hold "
            f"{limit_bytes / 1e9:.1f} GB: raise --cache-limit, or `bmla store pull` them to a path"
        )
