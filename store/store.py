"""A feature store of format 1: create it, open it, add a stream, write a shard, see what is done.

    /zarr.json               who the store is (attribute "bmla"): written last, so a store exists once it does
    /clips.parquet           the clip table
    /streams/<stream>/       zarr.json with the stream's specification (written last) and four arrays
    /ledger/<stream>/<shard>.json   one entry a finished shard, written after its arrays

Readers need no bmla: `zarr.open_group(path)["streams/<stream>/values"]` is the N x T x L array.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr

from . import ledger, read, shard
from .arrays import ARRAYS, create_arrays, file_key, open_array
from .clips import ClipTable
from .errors import StoreError, StoreMismatch, StreamNotDone, StreamNotFound, UsageError
from .folder import Folder
from .groups import write_group
from .head import COMPRESSIONS, Head, read_head, write_head
from .identity import Identity, default_shard_size, read_identity, write_identity
from .ledger import Entry
from .origin import read_origin
from .place import TEMPORARY, Place, cannot_write, digest_bytes, open_place
from .quality import check_quality, columns_of, packed
from .reading.reader import Reader, TierChoice, choose, files_and_rows, open_reader
from .spec import StreamSpec, differences

CLIPS_KEY = "clips.parquet"


class Store:
    """An open store. Made by `create_store` and `open_store`."""

    def __init__(self, place: Place, identity: Identity):
        self.place = place
        self.identity = identity
        self.dataset, self.task, self.classes = identity.dataset, identity.task, identity.classes
        self.shard_size = identity.shard_size

    def __repr__(self) -> str:
        return f"<Store {self.place} {self.dataset}: {self.identity.clips} clips, {len(self.streams())} streams>"

    @property
    def name(self) -> str:
        """The last part of its path or URL, without .zarr."""
        where = str(self.place) if self.place.remote else str(self.path.resolve())
        return where.rstrip("/").rsplit("/", 1)[-1].removesuffix(".zarr")

    @property
    def path(self) -> Path:
        """The store's folder. Raises UsageError for a store that is not on a local disk."""
        if not isinstance(self.place, Folder):
            raise UsageError(f"{self.place}: this needs a store on a local disk: `bmla store pull` it first")
        return self.place.path

    @cached_property
    def clips(self) -> ClipTable:
        """The clip table, checked against the digest that the store was made with."""
        try:
            data = self.place.read(CLIPS_KEY)
        except FileNotFoundError as error:
            raise StoreError(f"{self.place}/{CLIPS_KEY}: missing") from error
        if digest_bytes(data) != self.identity.clips_file:
            raise StoreError(f"{self.place}/{CLIPS_KEY}: damaged or exchanged: its digest is not the store's")
        table = ClipTable.from_parquet(data)
        if len(table) != self.identity.clips:
            raise StoreError(f"{self.place}/{CLIPS_KEY}: {len(table)} clips, expected {self.identity.clips}")
        return table

    # -- streams

    def streams(self) -> list[str]:
        """Names of the streams, sorted."""
        return [n for n in self.place.folders("streams") if self.place.exists(f"streams/{n}/zarr.json")]

    def head(self, stream: str) -> Head:
        """The head of a stream. Raises StreamNotFound, or StoreError where it is damaged."""
        if stream not in self.streams():  # also keeps names that are none from becoming paths
            known = ", ".join(self.streams()) or "none"
            raise StreamNotFound(f'{self.place}: no stream "{stream}"; it has: {known}')
        return read_head(self.place, stream)

    def spec(self, stream: str) -> StreamSpec:
        """The specification of a stream. Raises as `head`."""
        return self.head(stream).spec

    def steps(self, stream: str) -> int:
        """T: the longest clip that the stream's arrays can hold. Raises as `head`."""
        return self.head(stream).steps

    def add_stream(self, spec: StreamSpec, steps: int, compression: str = "none") -> None:
        """Adds an empty stream, or finds the same one there.

        Args:
            steps: T, of the longest clip.
            compression: "none" (can be mapped into memory) or "zstd".

        Raises:
            StoreMismatch: see `check_stream`.
        """
        if steps < 1 or compression not in COMPRESSIONS:
            raise ValueError(f"steps {steps} must be positive, compression {compression!r} one of {COMPRESSIONS}")
        self.check_stream(spec, steps)
        if spec.name in self.streams():
            return
        head = Head(spec, steps, compression, {})
        write_head(self.place, replace(head, arrays=create_arrays(self.place, head, self.identity)))

    def check_stream(self, spec: StreamSpec, steps: int) -> None:
        """Raises StoreMismatch where a stream of this name is there with another specification or length."""
        if spec.name not in self.streams():
            return
        head = self.head(spec.name)
        there = {**head.spec.to_dict(), "steps": head.steps}
        if lines := differences({**spec.to_dict(), "steps": steps}, there):
            raise StoreMismatch(
                f"{self.place}: stream {spec.name} was made otherwise ({'; '.join(lines)}): "
                "extract with the same settings, or into another store"
            )

    # -- shards

    @property
    def shards(self) -> int:
        """How many shards every stream has."""
        return self.identity.shards

    def extent(self, shard: int) -> tuple[int, int]:
        """First clip of a shard and one past its last."""
        return self.identity.extent(shard)

    def finished(self, stream: str) -> list[int]:
        """Numbers of the shards that are done, ascending."""
        name = self.head(stream).spec.name
        return [n for n in ledger.finished_shards(self.place, name) if n < self.shards]

    def pending(self, stream: str) -> list[int]:
        """Numbers of the shards that are still to be done, ascending."""
        return sorted(set(range(self.shards)) - set(self.finished(stream)))

    def require(self, stream: str, clips: "np.ndarray") -> None:
        """Raises StreamNotDone where a shard that holds one of these clips (row numbers) is not finished here."""
        finished = self.finished(stream)
        lacking = np.setdiff1d(np.unique(clips // self.shard_size), finished)
        if not len(lacking):
            return
        origin = read_origin(self.place)
        there = set(origin.shards.get(stream, ())) if origin else set()
        if there.issuperset(lacking.tolist()):
            source = origin.source if origin and origin.source else "SOURCE"
            what = f"`bmla store pull {source} {self.place} --stream {stream}` fetches them"
        else:
            what = "run `bmla extract` again with the same options: it goes on where it stopped"
        raise StreamNotDone(
            f"{self.place}: stream {stream} is not done: {len(lacking)} of {self.shards} shards are missing; {what}"
        )

    def entry(self, stream: str, number: int) -> Entry:
        """The ledger's entry of a finished shard. Raises FileNotFoundError, or StoreError where it is damaged."""
        return ledger.read_entry(self.place, stream, number, self.extent(number), self.steps(stream))

    def entries(self, stream: str) -> Iterator[Entry]:
        """The ledger's entries of a stream, in the order of the shards."""
        steps = self.steps(stream)
        for number in self.finished(stream):
            yield ledger.read_entry(self.place, stream, number, self.extent(number), steps)

    def write_shard(
        self,
        stream: str,
        number: int,
        clips: Sequence[shard.ClipFeatures],
        *,
        seconds: float = 0.0,
        versions: dict[str, str] | None = None,
        quality: Mapping[str, Sequence[float | None]] | None = None,
    ) -> Entry:
        """Writes one whole shard and then its ledger entry.

        Args:
            clips: one result a clip of the shard, in order: features, or a failure in their place.
            quality: facts on the clips' material, one number or None a clip; None: those that the clips carry.

        Raises:
            ValueError: a clip's features do not fit the stream (shape, dtype, steps), there are too few or too many, or
                the quality is not one finite number a clip.
            StoreError: the store can't be written (full disk, read-only).
        """
        head = self.head(stream)
        start, stop = self.extent(number)
        if len(clips) != stop - start:
            raise ValueError(f"shard {number} holds clips {start}:{stop}, got {len(clips)} results")
        for clip in clips:
            shard.check_features(head.spec, head.steps, clip)
        facts = check_quality(columns_of([clip.quality for clip in clips]) if quality is None else quality, len(clips))
        try:
            files, lengths = shard.write_files(self.place, head, self.identity, number, clips)
        except OSError as error:
            raise cannot_write(self.place, error) from error
        failures = tuple(c.failure for c in clips if c.failure)
        entry = Entry(number, start, stop, lengths, files, failures, round(seconds, 3), versions or {}, packed(facts))
        ledger.write_entry(self.place, stream, entry)
        return entry

    def rewrite_shard(self, stream: str, number: int, clips: Sequence[shard.ClipFeatures], **words: Any) -> Entry:
        """`write_shard` in place of one that is finished.

        All is written beside the store's files first: until then a kill or a full disk leaves the shard as it was. Then the
        old entry goes, the files are renamed and the new entry follows: killed within these few renames, the shard is one
        that is still to be done.
        """
        head = self.head(stream)
        try:
            with TemporaryDirectory(prefix=TEMPORARY, dir=self.path) as folder:
                beside = Store(Folder(Path(folder), read_only=False), self.identity)
                write_head(beside.place, replace(head, arrays=create_arrays(beside.place, head, self.identity)))
                entry = beside.write_shard(stream, number, clips, **words)
                self.place.remove(ledger.key_of(stream, number))
                for key in (*(file_key(head, name, number) for name in ARRAYS), ledger.key_of(stream, number)):
                    if beside.place.exists(key):
                        (beside.path / key).replace(self.path / key)
                    else:
                        self.place.remove(key)
        except OSError as error:
            raise cannot_write(self.place, error) from error
        return entry

    # -- reading

    def load(self, stream: str, split: str | None = None) -> "read.Packed":
        """All finished clips of a stream (of one split) in memory, packed without padding.

        Raises:
            StreamNotFound, StreamNotDone, StoreError (damaged), UnknownName (split).
        """
        return read.load(self, stream, split)

    def reader(
        self,
        stream: str,
        split: str | None = None,
        tier: str = "auto",
        budget_bytes: int | None = None,
        device: Any = None,
    ) -> Reader:
        """The finished clips of a stream (of one split), to be read in batches from wherever there is room for them.

        Args:
            tier: "gpu", "ram", "mmap" or "shard"; "auto": the first of them that fits.
            budget_bytes: of memory for "auto"; None: half of what is free.
            device: torch device that batches are made on; None: numpy arrays.

        Raises:
            As `load`, and UnknownName (tier), UsageError where this stream can't be read from that tier.
        """
        return open_reader(self, stream, split, tier, budget_bytes, device)

    def choose_tier(
        self, stream: str, split: str | None, tier: str, budget_bytes: int | None, device: Any
    ) -> TierChoice:
        """Where `reader` would keep the stream; reads nothing but the ledger. Args and errors as there."""
        return choose(*files_and_rows(self, stream, split), tier, budget_bytes, device)

    def array(self, stream: str, name: str) -> "zarr.Array[Any]":
        """One of a stream's arrays (values, length, valid, status), proven to be what its head implies.

        What no ledger entry names is not data: an unwritten chunk reads back as zeros. Raises as `head`.
        """
        return open_array(self.place, self.head(stream), self.identity, name)

    def valid_steps(self, stream: str) -> int:
        """How many steps of the finished clips are valid: for pictures, those whose face was found."""
        return read.valid_steps(self, stream)

    def digest(self, streams: Sequence[str]) -> str:
        """SHA-256 that stands for the clips and for the features of these streams: equal where they are equal."""
        return read.digest(self, streams)


def create_store(
    path: str | Path,
    *,
    dataset: str,
    task: str,
    classes: Sequence[str],
    clips: ClipTable,
    options: dict[str, Any] | None = None,
    shard_size: int | None = None,
) -> Store:
    """Makes a store without streams, or opens the one that is there if it was made from the same.

    Raises:
        StoreMismatch: there is a store of another data set or plan; names the difference.
        StoreError: there is something else at this path, or it can't be written.
    """
    if len(clips) == 0:
        raise StoreError("a store needs at least one clip")
    place = open_place(path, read_only=False)
    size = shard_size or default_shard_size(len(clips))
    table = clips.to_parquet()
    identity = Identity(
        dataset, task, tuple(classes), options or {}, size, len(clips), clips.digest(), digest_bytes(table)
    )
    if place.exists("zarr.json"):
        store = open_store(path, read_only=False)
        mine, theirs = identity.to_dict(), store.identity.to_dict()
        ignored = {"clips_file"} | (set() if shard_size else {"shard_size"})
        mine, theirs = ({k: v for k, v in d.items() if k not in ignored} for d in (mine, theirs))
        if lines := differences(mine, theirs):
            raise StoreMismatch(
                f"{place}: was made from another data set or plan ({'; '.join(map(shorten, lines))}): give another --store"
            )
        return store
    refuse_foreign(place)
    place.write(CLIPS_KEY, table)
    write_group(place, "streams", None)
    write_identity(place, identity)
    return Store(place, identity)


def open_store(path: str | Path, *, read_only: bool = True) -> Store:
    """Opens a store. Raises StoreNotFound where there is none, StoreError where it is damaged."""
    place = open_place(path, read_only)
    return Store(place, read_identity(place))


def refuse_foreign(place: Place) -> None:
    """Raises StoreError where the place holds anything but what a killed `create_store` leaves."""
    ours = {CLIPS_KEY, "streams"}
    foreign = sorted({*place.names(""), *place.folders("")} - ours)
    if foreign:
        raise StoreError(
            f"{place}: holds other things ({', '.join(foreign[:3])}): give an empty or new folder as --store"
        )


def shorten(line: str, limit: int = 200) -> str:
    return line if len(line) <= limit else line[: limit - 1] + "…"
