"""What the making of a stream has seen of the clips that a run chooses and tests with.

    bmla extract --from-run      a trained run's features: it knew the labels of the clips that it was trained on, and chose its
                                 epoch by others
    bmla extract --derive        statistics of the training split: without labels, but in a cross-validation of test clips too

Which clips these are stands in the stream's specification, as one bit for each row of the clip table, so that clips are compared
and not the names of splits. Where a derived stream was derived once more, all that lies within counts.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..store.clips import ClipTable
from ..store.spec import StreamSpec

TRAINED, CHOSEN, COMPUTED, UNKNOWN = "trained on", "chosen by", "computed from", "unknown"
# Which splits of a run must not be among them.
FORBIDDEN = {TRAINED: ("test", "dev"), CHOSEN: ("test",), COMPUTED: ("test",)}
DEEPEST = 16  # streams derived from derived ones


@dataclass(frozen=True)
class Seen:
    """Attributes:
    stream: whose making it was.
    how: TRAINED, CHOSEN, COMPUTED, or UNKNOWN where the specification can't tell.
    clips: (n,) bool.
    """

    stream: str
    how: str
    clips: np.ndarray


@dataclass(frozen=True)
class Leak:
    """So many of a split's clips were seen. of: all clips of the split."""

    stream: str
    how: str
    split: str
    clips: int
    of: int


def to_bits(clips: np.ndarray) -> str:
    """(n,) bool as text: eight to a byte, the first the most significant, in base64."""
    return base64.b64encode(np.packbits(clips).tobytes()).decode()


def from_bits(text: Any, count: int) -> np.ndarray | None:
    """The reverse; None for what is not so many bits."""
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (TypeError, ValueError, binascii.Error):
        return None
    return np.unpackbits(packed, count=count).astype(bool) if len(packed) == -(-count // 8) else None


def seen_by(spec: StreamSpec, table: ClipTable, dataset: str) -> tuple[Seen, ...]:
    """What the making of a stream has seen of a store's clips; empty for a stream that is not derived."""
    found: list[Seen] = []
    source: Any = spec.source
    for _ in range(DEEPEST):
        if not isinstance(source, Mapping):
            break
        if "run" in source:
            found += seen_by_run(spec.name, source["run"], table, dataset)
        if "statistics" in source:
            found.append(seen_by_statistics(spec.name, source["statistics"], table))
        within = source.get("specification")
        source = within.get("source") if isinstance(within, Mapping) else None
    return tuple(found)


def seen_by_run(stream: str, run: Any, table: ClipTable, dataset: str) -> Iterator[Seen]:
    """What a run was trained on and chosen by. A run of another data set has seen none of these clips."""
    about = run.get("clips") if isinstance(run, Mapping) else None
    if isinstance(run, Mapping) and isinstance(run.get("dataset"), str) and run["dataset"] != dataset:
        return
    for how, split in ((TRAINED, "train"), (CHOSEN, "dev")):
        bits = None
        if isinstance(about, Mapping) and about.get("table") == table.digest():
            bits = from_bits(about.get(split), len(table))
        yield Seen(stream, how, bits) if bits is not None else Seen(stream, UNKNOWN, np.zeros(len(table), bool))


def seen_by_statistics(stream: str, about: Any, table: ClipTable) -> Seen:
    """The store's training split, or the clips that are named."""
    if not isinstance(about, Mapping) or "rows" not in about:
        return Seen(stream, COMPUTED, table.column("split") == "train")
    bits = from_bits(about["rows"], len(table))
    return Seen(stream, UNKNOWN, np.zeros(len(table), bool)) if bits is None else Seen(stream, COMPUTED, bits)


def leaks_into(splits: np.ndarray, seen: Iterable[Seen]) -> tuple[Leak, ...]:
    """Args: splits: (n,) "train", "dev" or "test" of the same clips."""
    found = []
    for one in seen:
        if one.how == UNKNOWN:
            found.append(Leak(one.stream, UNKNOWN, "", 0, 0))
        for split in FORBIDDEN.get(one.how, ()):
            inside = splits == split
            if (count := int((one.clips & inside).sum())) > 0:
                found.append(Leak(one.stream, one.how, split, count, int(inside.sum())))
    return tuple(found)


def leak_lines(leaks: Iterable[Leak]) -> tuple[str, ...]:
    """A line for each stream, over all folds."""
    of_stream: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
    for leak in leaks:
        counts = of_stream.setdefault(leak.stream, {})
        clips, of = counts.get((leak.how, leak.split), (0, 0))
        counts[leak.how, leak.split] = clips + leak.clips, of + leak.of
    return tuple(line(stream, counts) for stream, counts in of_stream.items())


def line(stream: str, counts: Mapping[tuple[str, str], tuple[int, int]]) -> str:
    if any(how == UNKNOWN for how, _ in counts):
        return f"{stream}: it can't be told which clips it was made with: scores may be too good"
    parts = [f"{how} {clips} of the {of} {split} clips" for (how, split), (clips, of) in counts.items()]
    if all(how == COMPUTED for how, _ in counts):
        return f"{stream}: its statistics were {', '.join(parts)} (features, no labels)"
    return (
        f"{stream}: what made it was {', '.join(parts)}: scores are too good; derive it from a run with this very split "
        "(a stream a fold: docs/extraction.md)"
    )
