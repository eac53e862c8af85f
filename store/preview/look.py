"""A look into one stream: some of its clips as small pictures, the worst ones, and what its numbers are like."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from ..reading.files import StreamFiles
from ..store import Store
from .facts import Spread, StreamFacts
from .figures import heat_map
from .sample import (
    SEED,
    ClipSteps,
    ValueFacts,
    choose_of_classes,
    choose_rows,
    invalid_shares,
    jump_of,
    read_clips,
    readable,
    stream_files,
    value_facts,
)
from .strips import frames_shown, jpeg, strip
from .worst import Ranking, worst_by_jumps, worst_by_quality, worst_by_validity

SHOWN_CLASSES = 30
CLIPS_A_CLASS = 2
HEAT_MAPS = 3
HEAT_MAP_BYTES = 120_000
NO_CLASS = "no class"


@dataclass(frozen=True)
class Shown:
    """One clip on the page. note: why it is there; steps: those in the picture; jpeg: None where there is no picture."""

    id: str
    label: str | None
    split: str | None
    note: str
    steps: tuple[int, ...] = ()
    jpeg: bytes | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "label": self.label, "split": self.split, "note": self.note}


@dataclass(frozen=True)
class Look:
    """What was seen of one stream beyond its ledger.

    Attributes:
        invalid: (m,) share of the steps that is not valid, of m clips.
        jumps: (m,) grey levels, of a picture stream's sample; see `sample.jump_of`.
        values: of any other stream's sample.
        sheets: class -> clips shown of it; of a stream without pictures "" -> some clips as heat maps.
        worst: what they are the worst in -> clips, the worst first.
        notes: what was left out.
    """

    facts: StreamFacts
    invalid: np.ndarray
    jumps: np.ndarray
    values: ValueFacts | None
    sheets: dict[str, list[Shown]]
    worst: dict[str, list[Shown]]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the pictures."""
        invalid, jumps = Spread.of(self.invalid), Spread.of(self.jumps)
        return {
            **self.facts.to_dict(),
            "invalid_share": asdict(invalid) if invalid else None,
            "jump_grey_levels": asdict(jumps) if jumps else None,
            "values": values_dict(self.values) if self.values else None,
            "worst": {name: [clip.to_dict() for clip in clips] for name, clips in self.worst.items()},
            "notes": list(self.notes),
        }


def values_dict(values: ValueFacts) -> dict[str, Any]:
    return {
        "clips": values.clips,
        "steps": values.steps,
        "not_finite": values.not_finite,
        "least": values.least if values.steps else None,
        "most": values.most if values.steps else None,
        "constant_features": values.constant,
        "mean": values.mean.tolist(),
        "std": values.std.tolist(),
    }


def look_at(store: Store, stream: StreamFacts, quality: dict[str, np.ndarray], picture_bytes: int) -> Look:
    """Args:
        quality: facts on its clips, name -> (N,).
        picture_bytes: that a picture stream's strips may take together.

    Raises:
        StoreError: what was read is damaged.
    """
    files, can, sample = stream_files(store, stream), readable(stream), choose_rows(stream)
    rows, invalid = invalid_shares(files, stream)
    worst = worst_by_validity(rows, invalid) | worst_by_quality(stream, quality)
    jumps, values, classes_left = np.zeros(0), None, 0
    painter = Painter(store, files, can, picture_bytes if stream.is_picture else HEAT_MAP_BYTES)
    if stream.is_picture:
        jumps = np.array([jump_of(clip.values) for clip in read_clips(files, sample)])
        worst = worst_by_jumps(sample, jumps) | worst
        listed = {name: painter.strips(ranking) for name, ranking in worst.items() if ranking}
        classes, classes_left = class_sheets(store, can)
        sheets = {name: painter.strips([(row, "") for row in rows]) for name, rows in classes.items()}
    else:
        values = value_facts(read_clips(files, sample), prod(stream.head.spec.feature_shape))
        listed = {name: [painter.shown(*clip) for clip in ranking] for name, ranking in worst.items() if ranking}
        chosen = np.random.default_rng(SEED).permutation(sample)[:HEAT_MAPS]
        sheets = {"": painter.heat_maps(np.sort(chosen), values.some)} if values.steps else {}
    what = "jumps are" if stream.is_picture else "values are"
    notes = {
        f"validity is that of {len(rows)} of {stream.done} clips, in evenly spread shards": len(rows) < stream.done,
        f"{what} those of {len(sample)} of {stream.done} clips, drawn at random": len(sample) < stream.done,
        f"{int(((stream.lengths > 0) & ~can).sum())} clips are too long to be read for this page": stream.done
        > can.sum(),
        f"{classes_left} classes with clips are not shown; those that are lie evenly spread over the list": classes_left,
        f"{painter.refused} more pictures would have made this page too large": painter.refused,
    }
    return Look(stream, invalid, jumps, values, sheets, listed, tuple(note for note, holds in notes.items() if holds))


def class_sheets(store: Store, can: np.ndarray) -> tuple[dict[str, list[int]], int]:
    """Rows to be shown of each class, clips without a class last; and how many classes are left out."""
    there = np.unique(store.clips.labels(store.classes)[can])
    there = there[there >= 0]
    shown = there[np.unique(np.linspace(0, len(there) - 1, min(len(there), SHOWN_CLASSES)).round().astype(int))]
    chosen = choose_of_classes(store, can, [*shown.tolist(), -1], CLIPS_A_CLASS)
    return {store.classes[i] if i >= 0 else NO_CLASS: rows for i, rows in chosen}, len(there) - len(shown)


class Painter:
    """Makes the small pictures of one stream, as many as a number of bytes allows.

    Attributes:
        can: (N,) bool: clips that may be read.
        refused: how many pictures did not fit.
    """

    def __init__(self, store: Store, files: StreamFiles, can: np.ndarray, budget_bytes: int):
        self.store, self.files, self.can, self.left, self.refused = store, files, can, budget_bytes, 0

    def strips(self, ranking: Ranking) -> list[Shown]:
        rows = [row for row, _ in ranking if self.can[row]]
        clips = {clip.row: clip for clip in read_clips(self.files, rows)}
        return [self.shown(row, note, clips.get(row)) for row, note in ranking]

    def shown(self, row: int, note: str, clip: ClipSteps | None = None) -> Shown:
        about = self.store.clips[row]
        if clip is None:
            return Shown(about.id, about.label, about.split, note)
        picture = self.fitting(jpeg(strip(clip.values, clip.valid)))
        steps = tuple(frames_shown(len(clip.values)).tolist())
        return Shown(about.id, about.label, about.split, note, steps, picture)

    def heat_maps(self, rows: Sequence[int] | np.ndarray, some: np.ndarray) -> list[Shown]:
        """Clips' features over time, all in one scale of colours: from the 1 % to the 99 % quantile of `some` numbers."""
        low, high = np.quantile(some, (0.01, 0.99)).tolist()
        maps = []
        for clip in read_clips(self.files, rows):
            about, flat = self.store.clips[clip.row], clip.values.reshape(len(clip.values), -1)
            picture = self.fitting(jpeg(heat_map(flat, low, high)))
            maps.append(Shown(about.id, about.label, about.split, f"{len(flat)} steps", (), picture))
        return maps

    def fitting(self, picture: bytes) -> bytes | None:
        if len(picture) > self.left:
            self.refused += 1
            return None
        self.left -= len(picture)
        return picture
