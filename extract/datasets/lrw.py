"""LRW, Lip Reading in the Wild: lipread_mp4/ABOUT/{train,val,test}/ABOUT_00001.mp4 + .txt, 500 words.

Every clip has 29 frames at 25 fps (1.16 s) with its word in the middle, so the cut is known without opening the file;
the word's own length stands in the .txt (`Duration: 0.27 seconds`).

*Source:* J. S. Chung and A. Zisserman, "Lip Reading in the Wild", ACCV 2016. Numbering restarts in every split, so the
split is part of the id. There are no speaker ids; the splits were made by the date of broadcast.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...store.clips import Clip
from .base import DataSet, Dropped
from .folders import entries, fault, find_root
from .options import options_from

FRAMES = 29
CLIP_S = FRAMES / 25
WORD_CENTRE_S = 14.5 / 25  # the convention: the middle of frame 14 (from 0) of 29, half the word on either side
SPLITS = {"train": "train", "val": "dev", "test": "test"}
WORD = re.compile(r"[A-Z]{5,12}")  # all 500 labels
CLIP_NAME = re.compile(r"([A-Z]{5,12})_\d{5}\.mp4")  # not ABOUT_00001_mouth.mp4 and other derived files
DURATION = re.compile(rb"^Duration:\s*(\d+(?:\.\d+)?)", re.MULTILINE)
LAYOUT = "word folders such as ABOUT/ with train/, val/ and test/ that hold ABOUT_00001.mp4 and ABOUT_00001.txt"
TWINS = ("test/WOMEN_00011", "test/WOMEN_00014")


@dataclass(frozen=True)
class LrwOptions:
    """word_boundary: read every .txt for the word's place in the clip (about 20 s for all of LRW)."""

    word_boundary: bool = True


def lrw(root: Path, **options: Any) -> DataSet:
    """All clips under `root`, which is lipread_mp4 itself or a folder above it.

    Raises:
        UsageError: no word folder found; unknown options.
    """
    notes = ("no speaker ids; the splits follow the date of broadcast: do not claim speaker-disjointness",)
    return read_words("lrw", root, options_from(LrwOptions, options, "lrw"), notes)


def read_words(name: str, root: Path, options: LrwOptions, notes: tuple[str, ...]) -> DataSet:
    """The clips of any data set of LRW's layout."""
    folder = find_root(root, _is_words_folder, name, LAYOUT)
    dropped: list[Dropped] = []
    words = []
    for entry in entries(folder):
        if entry.is_dir() and WORD.fullmatch(entry.name):
            words.append(entry.name)
        elif entry.is_dir():
            dropped.append(Dropped(entry.name, "the folder's name is no word of 5 to 12 capital letters"))
    clips: list[Clip] = []
    for split in SPLITS:
        for word in words:
            clips += _clips_of(folder, word, split, options, dropped)
    for word in words:
        for entry in entries(folder / word):
            if entry.name not in SPLITS:
                dropped.append(Dropped(f"{word}/{entry.name}", "neither train, val nor test"))
    return DataSet(
        name=name,
        task="lip reading",
        root=folder,
        classes=tuple(words),
        clips=tuple(clips),
        options=asdict(options),
        dropped=tuple(dropped),
        notes=(*notes, *_notes(clips, words, options)),
    )


def _is_words_folder(folder: Path) -> bool:
    return any(
        WORD.fullmatch(word.name) and word.is_dir() and any((Path(word.path) / split).is_dir() for split in SPLITS)
        for word in entries(folder)
    )


def _clips_of(folder: Path, word: str, split: str, options: LrwOptions, dropped: list[Dropped]) -> Iterator[Clip]:
    place = f"{word}/{split}"
    if not (folder / place).is_dir():
        return
    for entry in entries(folder / place):
        if not entry.name.endswith(".mp4"):
            continue
        source = f"{place}/{entry.name}"
        match = CLIP_NAME.fullmatch(entry.name)
        if not match or match[1] != word:
            dropped.append(Dropped(source, f"the file's name is not {word}_ and five digits"))
        elif reason := fault(entry):
            dropped.append(Dropped(source, reason))
        else:
            identity = f"{split}/{entry.name[:-4]}"
            begin_s, over_s = _word_place(f"{entry.path[:-4]}.txt") if options.word_boundary else (None, None)
            yield Clip(
                id=identity,
                start_s=0.0,
                end_s=CLIP_S,
                label=word,
                split=SPLITS[split],
                group=identity,
                video=source,
                audio=source,
                word_start_s=begin_s,
                word_end_s=over_s,
            )


def _word_place(text_file: str) -> tuple[float | None, float | None]:
    """Start and end of the word in the clip, in seconds; None where the file or its Duration is missing."""
    try:
        with open(text_file, "rb") as file:  # noqa: PTH123  a Path object a clip costs as much as the reading
            found = DURATION.search(file.read(4096))
    except FileNotFoundError:
        return None, None
    if not found or not (length_s := float(found[1])) > 0:
        return None, None
    return max(0.0, WORD_CENTRE_S - length_s / 2), min(CLIP_S, WORD_CENTRE_S + length_s / 2)


def _notes(clips: list[Clip], words: list[str], options: LrwOptions) -> Iterator[str]:
    counts = Counter(c.split for c in clips)
    for split in SPLITS.values():
        if not counts[split]:
            yield f"no clip in the {split} split"
    labels = {c.label for c in clips}
    if empty := [w for w in words if w not in labels]:
        yield f"{len(empty)} words without any clip, such as {empty[0]}"
    if options.word_boundary and (unknown := sum(c.word_start_s is None for c in clips)):
        yield f"{unknown} clips without a readable .txt: the word's place in them is unknown"
    if sum(c.id in TWINS for c in clips) == len(TWINS):
        yield f"known duplicate: {TWINS[0]} and {TWINS[1]} are the same clip (both kept, as in published results)"
