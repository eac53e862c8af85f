"""MELD, dialogues from a television series: train_sent_emo.csv + train_splits/dia0_utt0.mp4. Seven emotions.

*Source:* S. Poria et al., "MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations", ACL 2019, and
github.com/declare-lab/MELD. The tables and the files join on (split, Dialogue_ID, Utterance_ID). Some files go on far
beyond their utterance, so a clip ends EndTime - StartTime after its start at the latest.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...store.clips import Clip
from ...store.errors import UsageError
from .base import DataSet, Dropped, Incomplete, counted
from .folders import entries, fault, find_root, nested
from .lengths import ends_of_many, longest_cut_s
from .options import options_from

FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
CLASSES = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
NAME = re.compile(r"(dia\d+_utt\d+)\.mp4", re.ASCII)
TIME = re.compile(r"(\d{1,2}):(\d\d):(\d\d)[,.](\d{1,3})", re.ASCII)
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")
KNOWN_FAULTS = {"train/dia125_utt3": "known to be corrupt", "dev/dia110_utt7": "known to be missing"}
LAYOUT = "train_sent_emo.csv with train_splits/dia0_utt0.mp4, and the same for dev and test"


@dataclass(frozen=True)
class MeldOptions:
    """cap: end each clip EndTime - StartTime after its start at the latest; without it clips are whole files."""

    cap: bool = True


class Utterance(NamedTuple):
    """One row of a table. length_s: EndTime - StartTime; None where that is no length."""

    id: str
    dialog: str
    emotion: str
    speaker: str | None
    text: str
    length_s: float | None


def meld(root: Path, **options: Any) -> DataSet:
    """One clip a row that has its file.

    Raises:
        UsageError: no table under `root`, or one without its columns; unknown options.
    """
    chosen = options_from(MeldOptions, options, "meld")
    folder = find_root(root, lambda f: any(_table(f, split) for split in FOLDERS), "meld", LAYOUT)
    dropped: list[Dropped] = []
    incomplete: list[Incomplete] = []
    notes: list[str] = []
    uncapped: list[str] = []
    clips: list[Clip] = []
    for split in FOLDERS:
        table = _table(folder, split)
        if table is None:
            notes.append(f"no {split}_sent_emo.csv: no clip in the {split} split")
            continue
        rows = list(_rows(table, split, dropped))
        files = _files(folder, split, {row.id for row in rows}, dropped)
        paths = {row.id: path for row in rows if isinstance(path := files.get(row.id), Path)}
        ends = dict(zip(paths, ends_of_many(list(paths.values())), strict=True))
        for row in rows:
            held = ends.get(row.id) or files.get(row.id, "no video file")
            if not isinstance(held, dict):
                dropped.append(Dropped(row.id, _known(str(held), row.id)))
                continue
            clips.append(_clip(row, split, paths[row.id].relative_to(folder).as_posix(), held, chosen.cap))
            lacking = [kind for kind in ("video", "audio") if kind not in held]
            incomplete += [Incomplete(row.id, f"no {kind} stream in its file") for kind in lacking]
            if chosen.cap and row.length_s is None:
                uncapped.append(row.id)
    return DataSet(
        name="meld",
        task="emotion",
        root=folder,
        classes=CLASSES,
        clips=tuple(clips),
        options=asdict(chosen),
        dropped=tuple(dropped),
        incomplete=tuple(incomplete),
        notes=(
            "official splits, not disjoint in speakers: the six main characters are in all of them",
            "several faces are in most pictures and nobody says whose voice it is: the largest face is taken",
            *notes,
            *([f"{len(uncapped)} rows state no length, such as {uncapped[0]}: whole files"] if uncapped else ()),
            *counted(incomplete),
        ),
    )


def _known(reason: str, identity: str) -> str:
    return f"{reason} ({KNOWN_FAULTS[identity]})" if identity in KNOWN_FAULTS else reason


def _table(folder: Path, split: str) -> Path | None:
    """split_sent_emo.csv in the folder, or in one named after the split."""
    name = f"{split}_sent_emo.csv"
    return next((p for p in (folder / name, nested(folder, split) / name) if p.is_file()), None)


def _rows(table: Path, split: str, dropped: list[Dropped]) -> Iterator[Utterance]:
    """The well-formed rows in order of dialogue and utterance."""
    if reason := fault(table):
        raise UsageError(f"meld: {table.name}: {reason}")
    data = table.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:  # copies saved by a spreadsheet: curly quotes in Windows' own code
        text = data.decode("cp1252", errors="replace")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
        raise UsageError(f"meld: {table.name} lacks the columns {', '.join(missing)}")
    found: dict[tuple[int, int], Utterance] = {}
    for row in rows:
        where = f"{table.name} line {rows.line_num}"
        numbers = [(row[name] or "").strip() for name in ("Dialogue_ID", "Utterance_ID")]
        emotion = (row["Emotion"] or "").strip().lower()
        if not all(n.isascii() and n.isdigit() for n in numbers):
            dropped.append(Dropped(where, f"Dialogue_ID and Utterance_ID are {' and '.join(numbers)}: no numbers"))
            continue
        key = int(numbers[0]), int(numbers[1])
        identity = f"{split}/dia{key[0]}_utt{key[1]}"
        if emotion not in CLASSES:
            dropped.append(Dropped(where, f"unknown emotion {emotion!r}"))
        elif key in found:
            dropped.append(Dropped(where, f"{identity} stands in the table already"))
        else:
            length_s = _length_s(row["StartTime"], row["EndTime"])
            speaker = (row["Speaker"] or "").strip() or None
            said = row["Utterance"] or ""
            found[key] = Utterance(identity, f"{split}/dia{key[0]}", emotion, speaker, said, length_s)
    for key in sorted(found):
        yield found[key]


def _length_s(start: str | None, end: str | None) -> float | None:
    """Seconds from one time such as 0:16:16,059 to the other; None where either is none or they go back."""
    seconds = []
    for text in (start, end):
        match = TIME.fullmatch((text or "").strip())
        if not match:
            return None
        hours, minutes, whole = int(match[1]), int(match[2]), int(match[3])
        seconds.append(3600 * hours + 60 * minutes + whole + int(match[4]) / 10 ** len(match[4]))
    length_s = round(seconds[1] - seconds[0], 3)
    return length_s if length_s > 0 else None


def _files(folder: Path, split: str, rows: set[str], dropped: list[Dropped]) -> dict[str, Path | str]:
    """The rows' files by id, a path or why it is none; what belongs to no row goes to `dropped`."""
    places = (nested(folder, FOLDERS[split]), nested(nested(folder, split), FOLDERS[split]))
    place = next((p for p in places if p.is_dir()), None)
    found: dict[str, Path | str] = {}
    for entry in entries(place) if place else ():
        if not entry.name.endswith(".mp4"):
            continue
        source, match = f"{FOLDERS[split]}/{entry.name}", NAME.fullmatch(entry.name)
        identity = f"{split}/{match[1]}" if match else None
        if identity not in rows:
            dropped.append(Dropped(source, f"no row in {split}_sent_emo.csv: no label"))
        else:
            found[str(identity)] = fault(entry) or Path(entry.path)
    return found


def _clip(row: Utterance, split: str, source: str, ends: dict[str, float], cap: bool) -> Clip:
    end_s = longest_cut_s(ends.get("video"), ends.get("audio"))
    return Clip(
        id=row.id,
        start_s=0.0,
        end_s=round(min(end_s, row.length_s or end_s) if cap else end_s, 6),
        label=row.emotion,
        split=split,
        speaker=row.speaker,
        group=row.dialog,
        video=source if "video" in ends else None,
        audio=source if "audio" in ends else None,
        text=row.text,
    )
