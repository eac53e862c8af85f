"""What an adapter of a data set gives: the clips it found, the classes, and every item that it left out with its reason."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...store.clips import Clip


@dataclass(frozen=True)
class Dropped:
    """An item of the data set that is no clip, and why."""

    item: str
    reason: str


@dataclass(frozen=True)
class Incomplete:
    """A clip that is kept without one of its parts (picture, sound), and why."""

    clip: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """A data set as found on disk.

    Attributes:
        name: the adapter's name, such as "grid".
        task: "lip reading", "emotion" or "classification".
        root: the folder that the clips' sources are relative to (never stored).
        classes: class names; the index is the position.
        clips: sorted by id within the adapter's own order; the same on every machine.
        options: every choice that shaped the list (target, margin, split rule and seed): stored with the clips.
        dropped: what was left out.
        incomplete: clips that lack their picture or sound: streams made from it get a failure record for them.
        notes: one line each: what a user should know (split rule used, missing splits, leakage).
    """

    name: str
    task: str
    root: Path
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    options: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()
    notes: tuple[str, ...] = ()


class Adapter(Protocol):
    """Reads one data set's layout. `options` holds the adapter's own choices; unknown ones raise UsageError."""

    def __call__(self, root: Path, **options: Any) -> DataSet: ...


def seeded_split(group: str, seed: int = 0, dev: float = 0.1, test: float = 0.2) -> str:
    """The split of a group of clips by the hash of its name: stable whatever other groups there are."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if u < test else "dev" if u < test + dev else "train"


def ranked_split(groups: Iterable[str], seed: int = 0, dev: float = 0.1, test: float = 0.2) -> dict[str, str]:
    """The split of each of some groups (speakers) that are known beforehand, with exact shares of them: by the rank of hashes.

    Give all groups that the data set has, not those found: an incomplete copy is then split like the whole one.
    """
    ranked = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    tests, devs = round(test * len(ranked)), round(dev * len(ranked))
    return {g: "test" if k < tests else "dev" if k < tests + devs else "train" for k, g in enumerate(ranked)}


def counted(incomplete: Iterable[Incomplete]) -> tuple[str, ...]:
    """A line for the notes where some clips are incomplete."""
    names = [i.clip for i in incomplete]
    return (f"{len(names)} clips lack picture or sound, such as {names[0]}",) if names else ()
