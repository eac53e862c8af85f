"""The ledger: one entry a shard and stream, written last, that says the shard is done and what its files hold.

A shard without an entry is not done, whatever files there are; nothing is read but through the ledger's word.
"""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from .arrays import ARRAYS
from .errors import StoreError
from .place import Place
from .quality import Quality, check_packed, unpacked
from .sealing import digest_json, read_json, sealed, to_line, unsealed

NAME = re.compile(r"(\d{6,})\.json")


@dataclass(frozen=True)
class Failure:
    """One clip that gave no features, at which step, and why."""

    clip: str
    step: str
    error: str
    message: str


@dataclass(frozen=True)
class Entry:
    """What is known of one finished shard.

    Attributes:
        shard: its number; it holds clips start to stop - 1.
        lengths: valid steps of each clip; 0 for a failed one.
        files: per array {"bytes", "sha256"} of its file, or None where everything is the fill value and no file exists.
        failures: one record a failed clip.
        seconds: how long the extraction of this shard took.
        versions: of the libraries at that moment.
        facts: on the clips' material, packed; see `quality`. Not part of the digest.
    """

    shard: int
    start: int
    stop: int
    lengths: tuple[int, ...]
    files: dict[str, dict[str, Any] | None]
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def quality(self) -> Quality:
        """The facts, one number or None a clip. Raises StoreError where they are none."""
        try:
            return unpacked(self.facts, len(self.lengths))
        except ValueError as error:
            raise StoreError(f"ledger entry of shard {self.shard}: damaged: {error}") from error

    @property
    def digest(self) -> str:
        """SHA-256 over the arrays' digests: the same features give the same, however long they took."""
        return digest_json(self.files)

    @property
    def bytes(self) -> int:
        return sum(f["bytes"] for f in self.files.values() if f)


def key_of(stream: str, shard: int) -> str:
    return f"ledger/{stream}/{shard:06d}.json"


def write_entry(place: Place, stream: str, entry: Entry) -> None:
    content = asdict(entry)
    if facts := content.pop("facts"):  # newer than the first stores of format 1: written only where there are some
        content["quality"] = facts
    place.write(key_of(stream, entry.shard), to_line(sealed(content)))


def finished_shards(place: Place, stream: str) -> list[int]:
    """Numbers of the shards that have an entry, ascending."""
    return sorted(int(m[1]) for name in place.names(f"ledger/{stream}") if (m := NAME.fullmatch(name)))


def read_entry(place: Place, stream: str, shard: int, expected: tuple[int, int], steps: int) -> Entry:
    """One entry, checked against what the store says of this shard.

    Args:
        expected: first clip and one past the last.
        steps: the longest clip that the stream's arrays can hold.

    Raises:
        StoreError: where the entry is damaged or says what can't be.
    """
    key = key_of(stream, shard)
    where = f"{place}/{key}"
    raw = unsealed(read_json(place, key), where)
    try:
        entry = Entry(
            shard=raw["shard"],
            start=raw["start"],
            stop=raw["stop"],
            lengths=tuple(raw["lengths"]),
            files={name: raw["files"][name] for name in ARRAYS},
            failures=tuple(Failure(**f) for f in raw["failures"]),
            seconds=float(raw["seconds"]),
            versions=dict(raw["versions"]),
            facts=check_packed(raw.get("quality", {}), len(raw["lengths"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{where}: damaged ledger entry ({type(error).__name__}: {error})") from error
    if (entry.shard, entry.start, entry.stop) != (shard, *expected):
        raise StoreError(f"{where}: says clips {entry.start}:{entry.stop}, expected {expected[0]}:{expected[1]}")
    if len(entry.lengths) != entry.stop - entry.start:
        raise StoreError(f"{where}: {len(entry.lengths)} lengths for {entry.stop - entry.start} clips")
    if {*map(type, entry.lengths)} != {int} or min(entry.lengths) < 0 or max(entry.lengths) > steps:
        raise StoreError(f"{where}: a length is not between 0 and the stream's {steps} steps")
    for name, file in entry.files.items():
        if file is not None and not (type(file.get("bytes")) is int and isinstance(file.get("sha256"), str)):
            raise StoreError(f"{where}: the record of {name} lacks bytes or sha256")
    return entry
