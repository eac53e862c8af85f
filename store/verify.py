"""Is the store what its ledger says? Finds what is damaged, missing or foreign, and can mark bad shards for another go.

Shallow: everything that listing files and reading the small ones shows. Deep: every byte of every shard as well.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from . import shard
from .arrays import ARRAYS, array_key, check_metadata, file_key
from .errors import StoreError
from .groups import read_attributes
from .ledger import Entry, finished_shards, key_of, read_entry
from .listing import KEY as LISTING
from .origin import KEY as ORIGIN
from .origin import read_origin
from .place import TEMPORARY
from .store import CLIPS_KEY, Store

ZARR_TEMPORARY = ".partial"  # how zarr names a file that it is still writing
LOCKS = (".writer.lock", ".readers.lock")


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be.

    Attributes:
        where: the key in the store.
        text: what is wrong.
        stream, shard: which shard it makes useless; None where it is not about one.
        harmless: True for leftovers that no reader looks at.
    """

    where: str
    text: str
    stream: str | None = None
    shard: int | None = None
    harmless: bool = False


def verify(store: Store, deep: bool = False, advance: Callable[[int], None] = lambda n: None) -> list[Problem]:
    """Looks at everything, changes nothing.

    Args:
        deep: read all values; shallow, the work is bounded by the number of files.
        advance: called with a number of bytes as they are checked (deep only).
    """
    problems = list(check_root(store))
    known = {"zarr.json", CLIPS_KEY, "streams/zarr.json", ORIGIN, LISTING}
    sizes = store.place.sizes("")
    for stream in store.streams():
        checker = StreamChecker(store, stream, sizes)
        problems += list(checker.check_head())
        if checker.usable:
            for number in finished_shards(store.place, stream):
                problems += checker.check_shard(number, deep, advance)
        known |= checker.known
    return problems + [foreign(key) for key in sizes if key not in known and key not in LOCKS]


def total_bytes(store: Store) -> int:
    """How much a deep look reads: what lies in the store, whatever the ledger says of it."""
    return sum(store.place.sizes("streams").values())


def repair(store: Store, problems: list[Problem]) -> list[tuple[str, int]]:
    """Takes the ledger entries of bad shards away, and nothing else: `extract` will do these shards again.

    Returns:
        (stream, shard) of what was marked.
    """
    bad = sorted({(p.stream, p.shard) for p in problems if p.stream is not None and p.shard is not None})
    for stream, number in bad:
        store.place.remove(key_of(stream, number))
    return bad


def leftovers(store: Store) -> list[str]:
    """Keys of what killed writers left: half-written files, shards that the ledger does not name, streams without a head."""
    keep: set[str] = set()
    for stream in store.streams():
        head = store.head(stream)
        keep |= {array_key(stream, name) for name in ARRAYS}
        keep |= {file_key(head, name, number) for number in store.finished(stream) for name in ARRAYS}
    return [key for key in store.place.sizes("") if is_temporary(key) or (is_of_array(key) and key not in keep)]


def collect(store: Store) -> list[str]:
    """Removes the leftovers of killed writers; the caller holds the writer's lock. Returns their keys."""
    keys = leftovers(store)
    for key in keys:
        store.place.remove(key)
    return keys


class StreamChecker:
    """Checks one stream against a listing of the store's files (key -> bytes). `known` collects the keys that belong to it."""

    def __init__(self, store: Store, stream: str, sizes: dict[str, int]):
        self.store, self.stream, self.sizes = store, stream, sizes
        self.head_key = f"streams/{stream}/zarr.json"
        self.known = {self.head_key}
        self.usable = True  # False: nothing more can be said of its shards

    def check_head(self) -> Iterator[Problem]:
        """The head and the metadata of the four arrays."""
        problems = list(self._head_problems())
        if problems:
            self.usable = False
            self.known |= {k for k in self.sizes if k.startswith((f"streams/{self.stream}/", f"ledger/{self.stream}/"))}
        yield from problems

    def _head_problems(self) -> Iterator[Problem]:
        try:
            self.head = self.store.head(self.stream)
        except StoreError as error:
            yield Problem(self.head_key, str(error))
            return
        for name in ARRAYS:
            key = array_key(self.stream, name)
            self.known.add(key)
            if problem := check_metadata(self.store.place, self.head, self.store.identity, name):
                yield Problem(key, problem)

    def check_shard(self, number: int, deep: bool, advance: Callable[[int], None]) -> Iterator[Problem]:
        """One finished shard: its entry, its files, and with `deep` their content."""
        key = key_of(self.stream, number)
        files = {name: file_key(self.head, name, number) for name in ARRAYS}
        self.known |= {key, *files.values()}
        try:
            if number >= self.store.shards:
                raise StoreError(f"a shard beyond the last ({self.store.shards - 1})")
            entry = read_entry(self.store.place, self.stream, number, self.store.extent(number), self.head.steps)
        except StoreError as error:
            yield Problem(key, str(error), self.stream, number)
            return
        sound = True
        for name, file in files.items():
            advance(self.sizes.get(file, 0))
            if text := self.check_file(file, entry.files[name], deep):
                sound = False
                yield Problem(file, text, self.stream, number)
        if deep and sound:
            yield from (Problem(files[name], text, self.stream, number) for name, text in self.check_content(entry))

    def check_file(self, key: str, expected: dict | None, deep: bool) -> str:
        """What is wrong with a file; "" where nothing is."""
        size = self.sizes.get(key)
        if expected is None:
            return "" if size is None else "a file where the ledger knows none"
        if size is None:
            return f"missing: expected {expected['bytes']} bytes"
        if size != expected["bytes"]:
            return f"{size} bytes, expected {expected['bytes']}"
        if deep and self.store.place.digest(key) != expected:
            return "damaged: its SHA-256 is not the ledger's"
        return ""

    def check_content(self, entry: Entry) -> Iterator[tuple[str, str]]:
        """Lengths, validity and status against the ledger and the values. Digests are right already: this finds wrong writers."""
        try:
            block = {name: shard.read_part(self.store.array(self.stream, name), entry) for name in ARRAYS}
        except StoreError as error:
            yield "values", str(error)
            return
        lengths = np.asarray(entry.lengths)
        outside = np.arange(self.head.steps) >= lengths[:, None]
        failed = {f.clip for f in entry.failures}
        status = np.where(lengths > 0, shard.DONE, shard.FAILED)
        if not np.array_equal(block["length"], lengths):
            yield "length", "lengths are not the ledger's"
        if not np.array_equal(block["status"], status) or len(failed) != int((lengths == 0).sum()):
            yield "status", "status does not agree with lengths and failures"
        if block["valid"][outside].any():
            yield "valid", "steps past a clip's length are marked valid"
        if block["values"][outside].any():
            yield "values", "values past a clip's length are not zero"
        if block["values"].dtype.kind == "f" and not np.isfinite(block["values"]).all():
            yield "values", "values are not finite"


def check_root(store: Store) -> Iterator[Problem]:
    """The clip table and the group of the streams; the root itself was checked when the store was opened."""
    try:
        if store.clips.digest() != store.identity.clips_digest:
            yield Problem(CLIPS_KEY, "its values do not match the digest of the clip table")
    except StoreError as error:
        yield Problem(CLIPS_KEY, str(error))
    try:
        read_origin(store.place)
    except StoreError as error:
        yield Problem(ORIGIN, str(error))
    try:
        read_attributes(store.place, "streams")
    except FileNotFoundError:
        yield Problem("streams/zarr.json", "missing")
    except StoreError as error:
        yield Problem("streams/zarr.json", str(error))


def foreign(key: str) -> Problem:
    """A file that nothing in the store names."""
    if is_temporary(key):
        return Problem(key, "left by a killed writer: `bmla store gc` removes it", harmless=True)
    if is_of_array(key):
        return Problem(key, "not named by the ledger: not done yet, or left by a killed writer", harmless=True)
    return Problem(key, "foreign: no part of a store")


def is_temporary(key: str) -> bool:
    return key.endswith(ZARR_TEMPORARY) or any(part.startswith(TEMPORARY) for part in key.split("/"))


def is_of_array(key: str) -> bool:
    """A chunk or the metadata of a stream's array."""
    parts = key.split("/")
    return len(parts) > 3 and parts[0] == "streams" and parts[2] in ARRAYS and parts[3] in ("c", "zarr.json")
