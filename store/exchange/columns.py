"""The clip table of foreign arrays: ids, labels, splits and durations, from columns of one value a clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..clips import Clip, ClipTable
from ..errors import StoreError, StoreMismatch
from ..spec import differences
from ..store import Store
from .arrays import ArrayFile, fetch_column, texts, whole_numbers
from .choice import SPLIT_NAMES, ArrayImport

SAME_S = 1e-6  # a duration is kept as the difference of two numbers


@dataclass(frozen=True)
class Columns:
    """What is known of N clips.

    Attributes:
        labels: class name of each clip; None: not given at all.
        classes: class names in order.
        splits: split of each clip; None: not given at all.
        durations_s: (N,) as given; None: not given.
    """

    ids: tuple[str, ...]
    labels: tuple[str | None, ...] | None
    classes: tuple[str, ...]
    splits: tuple[str | None, ...] | None
    durations_s: np.ndarray | None


def read_columns(file: ArrayFile, choice: ArrayImport, counts: dict[str, int]) -> Columns:
    """Args:
        counts: clips of each group; the only one is "" where there are no split groups.

    Raises:
        UsageError, StoreError: an array is missing, or is not one proper value a clip.
    """

    def joined(key: str, read: Callable[[np.ndarray, str], Sequence]) -> list:
        """One column over all groups."""
        names = {group: choice.path(group, key) for group in counts}
        return [
            v for g, name in names.items() for v in read(fetch_column(file, name, counts[g]), f"{file.name}: {name}")
        ]

    ids = joined(choice.ids, id_texts) if choice.ids else row_ids(counts)
    raw = joined(choice.labels, label_values) if choice.labels else None
    labels, classes = (None, ()) if raw is None else class_names(raw, choice.classes, f"{file.name}: {choice.labels}")
    splits: list[str | None] | None = joined(choice.splits, split_texts) if choice.splits else None
    if choice.split_groups:
        splits = [SPLIT_NAMES[group.rsplit("/", 1)[-1]] for group, n in counts.items() for _ in range(n)]
    durations = np.array(joined(choice.durations, seconds)) if choice.durations else None
    return Columns(
        tuple(ids),
        None if labels is None else tuple(labels),
        classes,
        None if splits is None else tuple(splits),
        durations,
    )


def row_ids(counts: dict[str, int]) -> list[str]:
    """Row numbers, in each group anew."""
    return [f"{group}/{row:06d}" if group else f"{row:06d}" for group, n in counts.items() for row in range(n)]


def id_texts(values: np.ndarray, where: str) -> list[str]:
    if values.dtype.kind in "iu":
        return [str(v) for v in values.tolist()]
    ids = texts(values, where)
    if not all(ids):
        raise StoreError(f"{where}: clip {ids.index('')} has an empty id")
    return ids


def label_values(values: np.ndarray, where: str) -> list[str | int | None]:
    """Text or whole numbers; None where the text is empty."""
    if values.dtype.kind in "iuf":
        return whole_numbers(values, where).tolist()
    return [text or None for text in texts(values, where)]


def class_names(
    raw: Sequence[str | int | None], given: Sequence[str], where: str
) -> tuple[list[str | None], tuple[str, ...]]:
    """Each clip's class name, and all names in order. Numbers are positions in `given`, or else names themselves."""
    known = sorted({v for v in raw if v is not None}, key=lambda v: (isinstance(v, str), v))
    if not given:
        return [None if v is None else str(v) for v in raw], tuple(str(v) for v in known)
    if any(isinstance(v, int) for v in known):
        if outside := [v for v in known if not (isinstance(v, int) and 0 <= v < len(given))]:
            raise StoreError(
                f"{where}: label {outside[0]} is no position in the {len(given)} classes (0 to {len(given) - 1})"
            )
        return [None if v is None else given[int(v)] for v in raw], tuple(given)
    if strange := [v for v in known if v not in given]:
        raise StoreError(f'{where}: label "{strange[0]}" is none of --classes {", ".join(given)}')
    return [None if v is None else str(v) for v in raw], tuple(given)


def split_texts(values: np.ndarray, where: str) -> list[str | None]:
    names = texts(values, where)
    if strange := sorted({n for n in names if n and n not in SPLIT_NAMES}):
        raise StoreError(f'{where}: unknown split "{strange[0]}"; expected {", ".join(SPLIT_NAMES)} or nothing')
    return [SPLIT_NAMES[n] if n else None for n in names]


def seconds(values: np.ndarray, where: str) -> list[float]:
    if values.dtype.kind not in "iuf" or not (np.isfinite(values) & (values > 0)).all():
        raise StoreError(f"{where}: durations must be seconds above 0")
    return values.astype(np.float64).tolist()


def clip_table(columns: Columns, lengths: np.ndarray, rate_hz: float) -> ClipTable:
    """Cuts from 0 to the given duration, or to steps / rate; a clip without steps gets one step's time."""
    ends = columns.durations_s if columns.durations_s is not None else np.maximum(lengths, 1) / rate_hz
    nothing = (None,) * len(columns.ids)
    rows = zip(columns.ids, ends.tolist(), columns.labels or nothing, columns.splits or nothing, strict=True)
    return ClipTable.from_clips(Clip(i, 0.0, end, label=label, split=split) for i, end, label, split in rows)


def options_of(choice: ArrayImport) -> dict[str, str]:
    """How the clip list came about, for the store."""
    times = f"0 to {choice.durations}" if choice.durations else f"0 to steps / {choice.rate_hz:g} Hz of {choice.stream}"
    splits = f"groups {','.join(choice.split_groups)}" if choice.split_groups else choice.splits or "none"
    return {"clips": "imported", "ids": choice.ids or "row numbers", "splits": splits, "times": times}


def check_agreement(store: Store, choice: ArrayImport, columns: Columns, where: str) -> None:
    """Another stream for the clips of a store. Raises StoreMismatch where these are not its clips, naming the first."""
    there = {"dataset": store.dataset, "task": store.task, "classes": list(store.classes)}
    here = {"dataset": choice.dataset, "task": choice.task, "classes": list(columns.classes)}
    if columns.labels is None:
        here["classes"] = there["classes"]
    if lines := differences(here, there):
        raise StoreMismatch(f"{store.place}: was made from another data set ({'; '.join(lines)}): give another --store")
    if len(columns.ids) != len(store.clips):
        raise StoreMismatch(f"{store.place}: holds {len(store.clips)} clips, {where} has {len(columns.ids)}")
    for name, mine in (("id", columns.ids), ("label", columns.labels), ("split", columns.splits)):
        if mine is None:
            continue
        theirs = store.clips.table[name].to_pylist()
        for row, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            if a != b:
                raise StoreMismatch(
                    f"{store.place}: {name} of clip {row} is {b!r} there and {a!r} in {where}: a stream joins a store "
                    "only where all clips are the same, in the same order"
                )
    if columns.durations_s is not None:
        theirs_s = store.clips.column("end_s") - store.clips.column("start_s")
        if len(other := np.flatnonzero(~np.isclose(columns.durations_s, theirs_s, rtol=0, atol=SAME_S))):
            row = int(other[0])
            raise StoreMismatch(
                f"{store.place}: clip {row} lasts {theirs_s[row]:g} s there and {columns.durations_s[row]:g} s in {where}"
            )
