"""LRW-1000, Mandarin words: images/FOLDER/N.jpg + audio/NAME.wav, cut as info/{trn,val,tst}_1000.txt say. 1000 classes.

Picture n of a folder (from 1) shows from (n - 1) / 25 s. The pictures are crops of the mouth and the lower face already.
A word's sound is a file of its own that begins `audio_lead_s` before the word; `Clip.audio_offset_s` keeps the two together.

*Source:* S. Yang et al., "LRW-1000: A naturally-distributed large-scale benchmark for lip reading in the wild", FG 2019,
and its public loaders. Lines: `folder,hanzi,pinyin,start,end`, and `folder,audio,hanzi,pinyin,start,end` in
all_audio_video.txt, whose decimals are written otherwise (1.5 and 1.50): joined on two decimals. Frames are counted in
exact decimals, so 1.16 s is frame 29 + 1 (in floats 1.16 * 25 is less than 29).
"""

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...store.clips import Clip
from ...store.errors import UsageError
from ..media import PICTURE
from .base import DataSet, Dropped, Incomplete, counted
from .folders import entries, fault, find_root, is_plain_name, nested
from .options import options_from

FPS = 25
SPLITS = {"trn": "train", "val": "dev", "tst": "test"}
IMAGES = ("images", "lip_images")  # newer copies have the second name
JOIN = "all_audio_video.txt"
SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
LAYOUT = "info/trn_1000.txt, images/ (or lip_images/) with FOLDER/1.jpg, and audio/ with NAME.wav"
NOTES = (
    "no speaker ids: do not claim speaker-disjointness",
    "the pictures are crops of the mouth already: extract sight with --mouth-box picture (no face detector)",
)


@dataclass(frozen=True)
class Lrw1000Options:
    """audio_lead_s: how long before its word a sound file begins (0.2 s as distributed)."""

    audio_lead_s: float = 0.2

    def __post_init__(self) -> None:
        if not 0.04 <= self.audio_lead_s <= 5:  # the first frame begins up to 0.04 s before the word
            raise UsageError(f"lrw1000: audio_lead_s is {self.audio_lead_s}, expected 0.04 to 5 seconds")


class Word(NamedTuple):
    """One line of a label file. start_s, end_s: exact, on the timeline of the folder's pictures."""

    folder: str
    hanzi: str
    pinyin: str
    start_s: Decimal
    end_s: Decimal

    @property
    def key(self) -> str:
        return f"{self.folder},{self.pinyin},{self.start_s:.2f},{self.end_s:.2f}"

    @property
    def frames(self) -> tuple[int, int]:
        """Numbers of the first picture, and of the one after the last."""
        return int(self.start_s * FPS) + 1, int(self.end_s * FPS) + 1


def lrw1000(root: Path, **options: Any) -> DataSet:
    """One clip a line of the label files. A word whose pictures or sound are not there is kept without them.

    Raises:
        UsageError: no info/trn_1000.txt (the labels' order comes from it) under `root`; unknown options.
    """
    chosen = options_from(Lrw1000Options, options, "lrw1000")
    folder = find_root(root, _is_lrw1000, "lrw1000", LAYOUT)
    dropped: list[Dropped] = []
    incomplete: list[Incomplete] = []
    words = {name: list(_words(folder, f"info/{name}_1000.txt", dropped)) for name in SPLITS}
    labels = frozenset(word.pinyin for _, word in words["trn"])
    finder = _Finder(folder, dropped)
    clips: dict[str, Clip] = {}
    for name, rows in words.items():
        for where, word in rows:
            identity = _identity(name, word)
            if reason := _unusable(word, labels):
                dropped.append(Dropped(where, reason))
            elif identity in clips:
                dropped.append(Dropped(where, f"the same word as {identity}"))
            else:
                video, audio, lacking = finder.sources(word)
                if video is None and audio is None:
                    dropped.append(Dropped(where, "; ".join(lacking)))
                    continue
                zero_s = finder.zero_s(word.folder) if video else 0.0
                clips[identity] = _clip(identity, SPLITS[name], word, video, audio, zero_s, chosen.audio_lead_s)
                incomplete += [Incomplete(identity, reason) for reason in lacking]
    listed, shared = _apart(list(clips.values()))
    missing = tuple(f"no clip in the {s} split" for n, s in SPLITS.items() if not any(c.split == s for c in listed))
    return DataSet(
        name="lrw1000",
        task="lip reading",
        root=folder,
        classes=tuple(sorted(labels)),
        clips=tuple(listed),
        options=asdict(chosen),
        dropped=tuple(dropped),
        incomplete=tuple(incomplete),
        notes=(*NOTES, *shared, *missing, *counted(incomplete)),
    )


def _is_lrw1000(folder: Path) -> bool:
    return (nested(folder, "info") / "trn_1000.txt").is_file()


def _lines(folder: Path, name: str, fields: int, dropped: list[Dropped]) -> Iterator[tuple[str, list[str]]]:
    """The well-formed lines of a label file, each with its place."""
    path = nested(folder, "info") / Path(name).name
    if reason := fault(path) if path.is_file() else "missing":
        dropped.append(Dropped(name, reason))
        return
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            parts = [part.strip() for part in line.split(",")]
            where = f"{name} line {number}"
            if parts == [""]:
                continue
            if len(parts) != fields or not all(SECONDS.fullmatch(t) for t in parts[-2:]):
                dropped.append(Dropped(where, f"is not {fields} fields that end in start,end: {line.strip()[:60]!r}"))
            elif not all(map(is_plain_name, parts[: fields - 4])):
                dropped.append(Dropped(where, f"a name leads out of its folder: {line.strip()[:60]!r}"))
            else:
                yield where, parts


def _words(folder: Path, name: str, dropped: list[Dropped]) -> Iterator[tuple[str, Word]]:
    for where, (place, hanzi, pinyin, start, end) in _lines(folder, name, 5, dropped):
        yield where, Word(place, hanzi, pinyin, Decimal(start), Decimal(end))


def _unusable(word: Word, labels: frozenset[str]) -> str | None:
    first, over = word.frames
    if word.end_s <= word.start_s:
        return f"ends at {word.end_s} s, not after its start at {word.start_s} s"
    if over <= first:
        return f"no frame: {word.start_s} to {word.end_s} s lies within one frame"
    if word.pinyin not in labels:
        return f"the label {word.pinyin!r} is not in trn_1000.txt"
    return None


def _identity(name: str, word: Word) -> str:
    return f"{name}/{word.folder}/{word.start_s:.2f}-{word.end_s:.2f}-{word.pinyin.replace(' ', '_')}"


def _clip(
    identity: str, split: str, word: Word, video: str | None, audio: str | None, zero_s: float, lead_s: float
) -> Clip:
    """The clip, on the timeline of a reader of its pictures, which begins at `zero_s` of the label file's."""
    first, over = word.frames
    start_s, end_s = (first - 1) / FPS, (over - 1) / FPS
    spoken_s, over_s = float(word.start_s), float(word.end_s)
    return Clip(
        id=identity,
        start_s=round(start_s - zero_s, 6),
        end_s=round(end_s - zero_s, 6),
        label=word.pinyin,
        split=split,
        group=word.folder,
        video=video,
        audio=audio,
        fps=float(FPS) if video else None,
        word_start_s=round(spoken_s - start_s, 6),
        word_end_s=round(min(end_s, over_s) - start_s, 6),
        text=word.hanzi,
        audio_offset_s=round(spoken_s - lead_s - zero_s, 6) if audio else None,
    )


class _Finder:
    """Which pictures and sound files there are; each folder is listed once."""

    def __init__(self, folder: Path, dropped: list[Dropped]):
        named = [nested(folder, name) for name in IMAGES]
        images = next((path for path in named if path.is_dir()), named[0])
        # Joined as text: there are 700,000 words, and a Path object costs as much as a look at the disk.
        self.root = str(folder)
        self.images = images.relative_to(folder).as_posix()
        self.audio = nested(folder, "audio").relative_to(folder).as_posix()
        self.numbers: dict[str, np.ndarray] = {}
        self.names: dict[str, str] = {}
        for where, (place, name, _, pinyin, start, end) in _lines(folder, f"info/{JOIN}", 6, dropped):
            key = Word(place, "", pinyin, Decimal(start), Decimal(end)).key
            if self.names.setdefault(key, name) != name:
                dropped.append(Dropped(where, f"a second sound file for a word; {self.names[key]}.wav is used"))

    def sources(self, word: Word) -> tuple[str | None, str | None, list[str]]:
        """The folder of pictures and the sound file, relative to the root, and why one is not there."""
        picture_fault = self._picture_fault(word)
        name = self.names.get(word.key)
        audio = f"{self.audio}/{name}.wav"
        sound_fault = f"no sound: not in {JOIN}" if name is None else self._sound_fault(audio)
        return (
            None if picture_fault else f"{self.images}/{word.folder}",
            None if sound_fault else audio,
            [reason for reason in (picture_fault, sound_fault) if reason],
        )

    def zero_s(self, folder: str) -> float:
        """Where a reader of the folder begins to count: at its first picture, which need not be 1.jpg."""
        return (int(self._pictures(folder)[0]) - 1) / FPS

    def _picture_fault(self, word: Word) -> str | None:
        first, over = word.frames
        numbers = self._pictures(word.folder)
        if not len(numbers):
            return "no picture: its folder is missing or empty"
        low, high = np.searchsorted(numbers, (first, over))
        if low == high:
            return f"no picture: {first}.jpg to {over - 1}.jpg are missing"
        if numbers[low] != first:
            return f"no picture: the first, {first}.jpg, is missing"
        try:
            reason = fault(f"{self.root}/{self.images}/{word.folder}/{first}.jpg")
        except FileNotFoundError:  # of another suffix: read all the same
            return None
        return f"no picture: {first}.jpg: {reason}" if reason else None

    def _sound_fault(self, audio: str) -> str | None:
        name = audio.rsplit("/", 1)[1]
        try:
            reason = fault(f"{self.root}/{audio}")
        except FileNotFoundError:
            return f"no sound: {name} is missing"
        return f"no sound: {name}: {reason}" if reason else None

    def _pictures(self, folder: str) -> np.ndarray:
        """The numbers of a folder's pictures, ascending."""
        if folder not in self.numbers:
            path = f"{self.root}/{self.images}/{folder}"
            found = [PICTURE.fullmatch(e.name) for e in entries(path)] if os.path.isdir(path) else []  # noqa: PTH112
            self.numbers[folder] = np.array(sorted(int(m[1]) for m in found if m), np.int64)
        return self.numbers[folder]


def _apart(clips: list[Clip]) -> tuple[list[Clip], tuple[str, ...]]:
    """Groups never cross splits: a folder of pictures that several splits use becomes one group each, with a note."""
    places: dict[str, set[str]] = {}
    for clip in clips:
        places.setdefault(str(clip.group), set()).add(str(clip.split))
    shared = {group for group, splits in places.items() if len(splits) > 1}
    if not shared:
        return clips, ()
    note = (
        f"{len(shared)} folders of pictures are in more than one split, such as {min(shared)}: test clips may be easier"
    )
    return [replace(c, group=f"{c.group} ({c.split})") if c.group in shared else c for c in clips], (note,)
