"""Your own clips: a table (CSV or Parquet) with one row a clip, or folders named after the labels."""

import csv
import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from ...store.clips import Clip
from ...store.errors import MediaError, UsageError
from .base import DataSet, Dropped, seeded_split
from .folders import fault
from .options import options_from
from .whole_files import LAYOUT, SPLIT_NAMES, labelled_folders, to_the_end

COLUMNS = (
    "id", "video", "audio", "label", "split", "speaker", "start", "end", "fps", "crop_x", "crop_y", "crop_w", "crop_h", "text",
)  # fmt: skip
CROP = ("crop_x", "crop_y", "crop_w", "crop_h")


@dataclass(frozen=True)
class ManifestOptions:
    """seed: of the split, where the data names none (70 % train, 10 % dev, 20 % test)."""

    seed: int = 0


def manifest(root: Path, **options: Any) -> DataSet:
    """The clips of a table, or of a folder.

    Raises:
        UsageError: the table breaks a rule (a repeated id, a missing file, end <= start, ...), naming the row; nothing
            recognised; unknown options.
    """
    chosen = options_from(ManifestOptions, options, "manifest")
    if not root.is_file():
        return labelled_folders(root, chosen.seed)
    if root.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"manifest: {root.name} is no table; expected {LAYOUT}")
    return _of_table(root, chosen)


def _of_table(path: Path, options: ManifestOptions) -> DataSet:
    rows = list(_csv_rows(path) if path.suffix.lower() == ".csv" else _parquet_rows(path))
    if not rows:
        raise UsageError(f"manifest: {path.name} has no row")
    dropped: list[Dropped] = []
    clips: list[Clip] = []
    where_of: dict[str, str] = {}
    for where, row in rows:
        identity = row.get("id", "")
        if not identity:
            raise UsageError(f"{where}: no id")
        where = f'{where} (id "{identity}")'
        if identity in where_of:
            raise UsageError(f"{where}: the id stands already in {where_of[identity]}; ids must be unique")
        where_of[identity] = where
        try:
            clips.append(_clip(where, row, path.parent))
        except MediaError as error:  # only media without start and end are opened here
            dropped.append(Dropped(identity, str(error)))
    clips, notes = _with_splits(sorted(clips, key=lambda c: c.id), options)
    unused = sorted({name for _, row in rows[:1] for name in row if name not in COLUMNS})
    return DataSet(
        name="manifest",
        task="classification",
        root=path.parent,
        classes=tuple(sorted({c.label for c in clips if c.label is not None})),
        clips=tuple(clips),
        options=asdict(options),
        dropped=tuple(dropped),
        notes=(*notes, *([f"columns not used: {', '.join(unused)}"] if unused else ())),
    )


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(place for error messages, row as text) of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for row in reader:
                where = f"{path.name} line {reader.line_num}"
                if None in row or None in row.values():
                    raise UsageError(f"{where}: not as many fields as the header has ({len(reader.fieldnames or ())})")
                yield where, {key.strip(): value.strip() for key, value in row.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"manifest: {path.name} is no CSV table in UTF-8 ({error})") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"manifest: {path.name} is no Parquet table ({error})") from error
    _check_columns(path, table.column_names)
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path.name} row {number}", {k.strip(): _text(v) for k, v in row.items()}


def _text(value: object) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def _check_columns(path: Path, names: Iterable[str]) -> None:
    found = [n.strip() for n in names]
    if "id" not in found or not {"video", "audio"} & set(found):
        raise UsageError(
            f"manifest: {path.name} has the columns {', '.join(found) or 'none'}; "
            f"required are id, and video or audio; known are {', '.join(COLUMNS)}"
        )
    if len(set(found)) < len(found):
        raise UsageError(f"manifest: {path.name}: a column stands twice: {', '.join(found)}")


def _clip(where: str, row: Mapping[str, str], folder: Path) -> Clip:
    """One row as a clip. Raises UsageError naming the row; MediaError where media must be opened and cannot be."""
    video, audio = (_source(where, name, row.get(name, ""), folder) for name in ("video", "audio"))
    if video is None and audio is None:
        raise UsageError(f"{where}: neither video nor audio")
    is_folder = video is not None and (folder / video).is_dir()
    fps = _number(where, row, "fps")
    if is_folder and (fps is None or fps <= 0):
        raise UsageError(f"{where}: video is a folder of images, which needs its frame rate in the column fps")
    split = row.get("split", "").lower()
    if split and split not in SPLIT_NAMES:
        raise UsageError(f'{where}: unknown split "{split}"; expected train, dev or test')
    start_s, end_s = _number(where, row, "start"), _number(where, row, "end")
    clip = Clip(
        id=row["id"],
        start_s=start_s or 0.0,
        end_s=math.inf if end_s is None else end_s,
        label=row.get("label") or None,
        split=SPLIT_NAMES.get(split),
        speaker=row.get("speaker") or None,
        group=video or audio,
        video=video,
        audio=audio or (None if is_folder else video),
        fps=fps,
        text=row.get("text") or None,
        **_crop(where, row),
    )
    if end_s is None:
        clip = to_the_end(clip, folder)
    if not 0 <= clip.start_s < clip.end_s:
        raise UsageError(f"{where}: the cut {clip.start_s} to {clip.end_s} s: expected 0 <= start < end")
    return clip


def _crop(where: str, row: Mapping[str, str]) -> dict[str, int]:
    """The four crop columns; nothing where none is given."""
    given = {name: value for name in CROP if (value := _number(where, row, name)) is not None}
    if given and len(given) < len(CROP):
        raise UsageError(f"{where}: a crop needs all of {', '.join(CROP)}")
    crop = {name: int(value) for name, value in given.items()}
    if crop != given:
        raise UsageError(f"{where}: the crop {list(given.values())} is not in whole pixels")
    if crop and (min(crop.values()) < 0 or crop["crop_w"] < 1 or crop["crop_h"] < 1):
        raise UsageError(f"{where}: the crop {list(crop.values())} is empty or starts outside the picture")
    return crop


def _source(where: str, column: str, value: str, folder: Path) -> str | None:
    """The file relative to the table's folder, with forward slashes."""
    if not value:
        return None
    path = PurePath(value)
    if path.is_absolute():
        if not path.is_relative_to(folder.absolute()):
            raise UsageError(
                f"{where}: {column} {value} lies outside the manifest's folder; put the manifest above its media"
            )
        path = path.relative_to(folder.absolute())
    relative = posixpath.normpath(path.as_posix())
    if relative == ".." or relative.startswith("../"):
        raise UsageError(
            f"{where}: {column} {value} lies outside the manifest's folder; put the manifest above its media"
        )
    if not (folder / relative).exists():
        raise UsageError(f"{where}: {column} {value} does not exist")
    if (folder / relative).is_file() and (reason := fault(folder / relative)):
        raise UsageError(f"{where}: {column} {value}: {reason}")
    return relative


def _number(where: str, row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f'{where}: {column} is "{text}", expected a number')
    return value


def _with_splits(clips: list[Clip], options: ManifestOptions) -> tuple[list[Clip], list[str]]:
    """The clips with a split each, and what the user should know about it."""
    notes = []
    named = [c for c in clips if c.split is not None]
    if not named:
        by_speaker = all(c.speaker for c in clips)
        clips = [replace(c, split=seeded_split(str(c.speaker if by_speaker else c.group), options.seed)) for c in clips]
        notes.append(
            f"no splits given: split by the hash of the {'speaker' if by_speaker else 'recording'} (seed {options.seed}), 70/10/20"
        )
    elif len(named) < len(clips):
        notes.append(f"{len(clips) - len(named)} clips name no split: they are in none")
    for what, key in (("speaker", "speaker"), ("recording", "group")):
        places: dict[str, set[str]] = {}
        for clip in clips:
            if getattr(clip, key) is not None and clip.split is not None:
                places.setdefault(getattr(clip, key), set()).add(clip.split)
        if shared := sorted(name for name, found in places.items() if len(found) > 1):
            notes.append(
                f'{len(shared)} {what}s are in more than one split, such as "{shared[0]}": test clips may be easier for it'
            )
            if key == "group":  # groups never cross splits: readers rely on it
                clips = [replace(c, group=f"{c.group} ({c.split})") if c.group in shared else c for c in clips]
    return clips, notes
