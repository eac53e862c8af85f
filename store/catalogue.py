"""Which stores lie in a folder or a bucket."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import StoreError
from .place import is_url, open_place
from .store import Store, open_store


@dataclass(frozen=True)
class Shelf:
    """One store in a line.

    Attributes:
        modified_s: when it last got a shard, in seconds since 1970.
        streams: done clips of each stream.
        problem: why it can't be read; "" otherwise.
    """

    path: str
    dataset: str = ""
    task: str = ""
    clips: int = 0
    bytes: int = 0
    modified_s: float = 0.0
    streams: dict[str, int] | None = None
    provenance: dict[str, str] | None = None
    problem: str = ""


def catalogue(path: str | Path) -> Iterator[Shelf]:
    """The store at this place, or those directly in it, sorted by name; a damaged one is listed with its problem."""
    place = open_place(path)
    if place.exists("zarr.json"):
        yield shelf(path)
        return
    for name in place.folders(""):
        if place.exists(f"{name}/zarr.json"):
            yield shelf(f"{str(path).rstrip('/')}/{name}" if is_url(path) else Path(path) / name)


def shelf(path: str | Path) -> Shelf:
    try:
        return describe(open_store(path))
    except StoreError as error:
        return Shelf(str(path), problem=str(error))


def describe(store: Store) -> Shelf:
    """Counts by the ledger."""
    done, size, newest = {}, 0, 0.0
    for stream in store.streams():
        entries = list(store.entries(stream))
        done[stream] = sum(e.stop - e.start - len(e.failures) for e in entries)
        size += sum(e.bytes for e in entries)
        if entries:
            newest = max(newest, store.place.modified_s(f"ledger/{stream}/{entries[-1].shard:06d}.json"))
    return Shelf(
        path=str(store.place),
        dataset=store.dataset,
        task=store.task,
        clips=store.identity.clips,
        bytes=size,
        modified_s=newest or store.place.modified_s("zarr.json"),
        streams=done,
        provenance={stream: store.spec(stream).digest() for stream in done},
    )
