"""GRID, sentences of six words: s1/bbaf2n.mpg + alignments/s1/bbaf2n.align. One clip a spoken word, cut out by its alignment.

*Source:* M. Cooke et al., "An audio-visual corpus for speech perception and automatic speech recognition", JASA 120
(2006). The name is the sentence (bbaf2n: bin blue at f two now), so it checks the alignment. Alignments count in
1/25000 s; a well-known recipe divides by 1000. The speakers held out are the ones usual for unseen-speaker tests.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...store.clips import Clip
from ...store.errors import UsageError
from .base import DataSet, Dropped, seeded_split
from .folders import entries, fault, files_below, find_root
from .options import options_from

TICKS_PER_S = 25_000
SILENCE = ("sil", "sp")
COMMANDS = {"b": "bin", "l": "lay", "p": "place", "s": "set"}
COLOURS = {"b": "blue", "g": "green", "r": "red", "w": "white"}
PREPOSITIONS = {"a": "at", "b": "by", "i": "in", "w": "with"}
LETTERS = {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"}  # no w: the only name of three syllables
DIGITS = dict(
    zip("z123456789", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), strict=True)
)
ADVERBS = {"a": "again", "n": "now", "p": "please", "s": "soon"}
SLOTS = ("command", "colour", "preposition", "letter", "digit", "adverb")
GRAMMAR = (COMMANDS, COLOURS, PREPOSITIONS, LETTERS, DIGITS, ADVERBS)
TEST_SPEAKERS = ("s1", "s2", "s20", "s22")
DEV_SHARE = 0.1
SPEAKER = re.compile(r"s\d{1,2}")
LAYOUT = "speaker folders such as s1/ with bbaf2n.mpg, and alignments/s1/bbaf2n.align"


@dataclass(frozen=True)
class GridOptions:
    """How the clips are cut and split.

    Attributes:
        target: every word of a sentence (51 classes), or the word of one slot.
        margin_s: kept on either side of the aligned word. One frame by default: the shortest words ("at", 0.04 s) then
            have three frames. More only brings in the neighbours: with a linear classifier on 300 sentences, letters
            fell from 0.69 (0.04 s) to 0.55 (0.1 s) by sound and from 0.36 to 0.31 by sight; the 51 words lost 0.02 and 0.
        split: by the hash of the sentence; by speaker, s1 s2 s20 s22 for test; auto: by speaker where the root holds
            both kinds of speakers.
        seed: of the hashes.
    """

    target: Literal["word", "command", "colour", "preposition", "letter", "digit", "adverb"] = "word"
    margin_s: float = 0.04
    split: Literal["auto", "sentence", "speaker"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.margin_s <= 1:
            raise UsageError(f"grid: margin_s is {self.margin_s}, expected 0 to 1 second")


@dataclass(frozen=True)
class Word:
    """A spoken word and where the alignment puts it in the recording."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Sentence:
    """One recording: its file relative to the root, its six words, and where the alignment (hence the recording) ends."""

    speaker: str
    name: str
    source: str
    words: tuple[Word, ...]
    end_s: float


def grid(root: Path, **options: Any) -> DataSet:
    """One clip a word of every recording that has a fitting alignment.

    Raises:
        UsageError: nothing recognised under `root`; unknown options; split=speaker without both kinds of speakers.
    """
    chosen = options_from(GridOptions, options, "grid")
    folder = find_root(root, _is_grid_folder, "grid", LAYOUT)
    dropped: list[Dropped] = []
    sentences = list(_sentences(folder, dropped))
    rule, splits, notes = _splits(sentences, chosen)
    slots = range(len(SLOTS)) if chosen.target == "word" else [SLOTS.index(chosen.target)]
    clips = [_clip(sentence, slot, splits, chosen.margin_s) for sentence in sentences for slot in slots]
    return DataSet(
        name="grid",
        task="lip reading",
        root=folder,
        classes=tuple(sorted(word for slot in slots for word in GRAMMAR[slot].values())),
        clips=tuple(clips),
        options={**asdict(chosen), "split": rule},
        dropped=tuple(dropped),
        notes=notes,
    )


def words_of_name(name: str) -> tuple[str, ...] | None:
    """The six words that a recording's name stands for; None where it is no sentence of the grammar."""
    if len(name) != len(GRAMMAR) or any(letter not in slot for letter, slot in zip(name, GRAMMAR, strict=True)):
        return None
    return tuple(slot[letter] for letter, slot in zip(name, GRAMMAR, strict=True))


def read_alignment(path: Path) -> tuple[tuple[Word, ...], float]:
    """The spoken words in order, without silences, and the end of the last line in seconds.

    Raises:
        ValueError: a line that is not `start end word`, or that goes back in time; says which.
    """
    words: list[Word] = []
    end = 0
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*", line)
        if not match or not end <= int(match[1]) < int(match[2]):
            raise ValueError(
                f"alignment line {number} is {line.strip()[:40]!r}, expected START END WORD in order of time"
            )
        start, end, text = int(match[1]), int(match[2]), match[3].lower()
        if text not in SILENCE:
            words.append(Word(text, start / TICKS_PER_S, end / TICKS_PER_S))
    return tuple(words), end / TICKS_PER_S


def _is_grid_folder(folder: Path) -> bool:
    return any(SPEAKER.fullmatch(e.name) and e.is_dir() for e in entries(folder))


def _sentences(folder: Path, dropped: list[Dropped]) -> Iterator[Sentence]:
    """The recordings, by speaker (s2 before s10) and name; adds to `dropped` what has no fitting alignment or no video."""
    videos: dict[tuple[str, str], str] = {}
    alignments: dict[tuple[str, str], Path] = {}
    for entry in files_below(folder):
        path = Path(entry.path)
        source = path.relative_to(folder).as_posix()
        key = _speaker_of(path.relative_to(folder)), path.stem
        if path.suffix == ".align":
            alignments[key] = path
        elif path.suffix == ".mpg" and key in videos:
            dropped.append(Dropped(source, f"the same recording as {videos[key]}"))
        elif path.suffix == ".mpg" and (reason := fault(entry)):
            dropped.append(Dropped(source, reason))
            alignments.setdefault(key, path)  # it is not the alignment that lacks its video
            alignments.pop(key)
        elif path.suffix == ".mpg":
            videos[key] = source
    for key in sorted(alignments.keys() - videos.keys()):
        dropped.append(Dropped(alignments[key].relative_to(folder).as_posix(), "no video"))
    for key in sorted(videos, key=lambda k: (_number(k[0]), k)):
        if key not in alignments:
            dropped.append(Dropped(videos[key], "no alignment"))
            continue
        try:
            yield _sentence(*key, videos[key], alignments[key])
        except ValueError as error:
            dropped.append(Dropped(videos[key], str(error)))


def _sentence(speaker: str, name: str, source: str, alignment: Path) -> Sentence:
    """Raises ValueError with the reason where name and alignment do not agree."""
    if reason := fault(alignment):
        raise ValueError(f"alignment: {reason}")
    expected = words_of_name(name)
    if expected is None:
        raise ValueError("the file's name is no sentence of GRID's grammar")
    words, end_s = read_alignment(alignment)
    if tuple(w.text for w in words) != expected:
        spoken = " ".join(w.text for w in words) or "nothing"
        raise ValueError(f"the alignment says {spoken!r}, the name {' '.join(expected)!r}")
    return Sentence(speaker, name, source, words, end_s)


def _speaker_of(relative: Path) -> str:
    """The nearest folder that is named like a speaker (s1/video/mpg_6000/x.mpg), else the file's own folder."""
    return next((f for f in reversed(relative.parts[:-1]) if SPEAKER.fullmatch(f)), relative.parent.name)


def _number(speaker: str) -> int:
    return int(speaker[1:]) if SPEAKER.fullmatch(speaker) else 1000


def _clip(sentence: Sentence, slot: int, splits: dict[str, str], margin_s: float) -> Clip:
    word = sentence.words[slot]
    start_s = max(0.0, round(word.start_s - margin_s, 6))
    group = f"{sentence.speaker}/{sentence.name}"
    return Clip(
        id=f"{group}/{slot}-{word.text}",
        start_s=start_s,
        end_s=min(sentence.end_s, round(word.end_s + margin_s, 6)),
        label=word.text,
        split=splits[group],
        speaker=sentence.speaker,
        group=group,
        video=sentence.source,
        audio=sentence.source,
        word_start_s=round(word.start_s - start_s, 6),
        word_end_s=round(word.end_s - start_s, 6),
        text=" ".join(w.text for w in sentence.words),
    )


def _splits(sentences: list[Sentence], options: GridOptions) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """The rule used, the split of each group, and what to tell the user about it."""
    speakers = sorted({s.speaker for s in sentences}, key=lambda s: (_number(s), s))
    others = [s for s in speakers if s not in TEST_SPEAKERS]
    held_out = [s for s in speakers if s in TEST_SPEAKERS]
    rule = options.split
    if rule == "auto":
        rule = "speaker" if held_out and len(others) > 1 else "sentence"
    if rule == "sentence":
        splits = {f"{s.speaker}/{s.name}": seeded_split(f"{s.speaker}/{s.name}", options.seed) for s in sentences}
        note = f"split by the hash of the sentence (seed {options.seed}): every speaker is in every split"
        return rule, splits, (note, *_count_note(splits))
    if not held_out or len(others) < 2:
        raise UsageError(
            f"grid: split=speaker needs one of {' '.join(TEST_SPEAKERS)} for test and two others for train and dev; "
            f"found {' '.join(speakers) or 'no speaker'}; use split=sentence"
        )
    ranked = sorted(others, key=lambda s: hashlib.sha256(f"{options.seed}:{s}".encode()).digest())
    dev = sorted(ranked[: max(1, round(DEV_SHARE * len(others)))], key=_number)
    of_speaker = {s: "test" if s in held_out else "dev" if s in dev else "train" for s in speakers}
    splits = {f"{s.speaker}/{s.name}": of_speaker[s.speaker] for s in sentences}
    note = (
        f"split by speaker (seed {options.seed}): test {' '.join(held_out)}, dev {' '.join(dev)}, "
        f"train the other {len(others) - len(dev)}"
    )
    return rule, splits, (note, *_count_note(splits))


def _count_note(splits: dict[str, str]) -> Iterator[str]:
    counts = Counter(splits.values())
    for split in ("train", "dev", "test"):
        if splits and not counts[split]:
            yield f"no recording in the {split} split"
