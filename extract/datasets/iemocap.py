"""IEMOCAP, acted dialogues of two: Session1..5/dialog/avi/DivX/*.avi + sentences/wav/*/*.wav. One clip a labelled turn.

Both actors stand in one split picture, each in a half; the one who wears the markers, whose sex the dialog's name tells
(Ses01F_*), is on the left. Each turn's sound is a file of its own.

*Source:* C. Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", Language Resources and
Evaluation 42 (2008). The four classes with excited counted as happy (5531 turns) are the usual benchmark. Some loaders take
the wearer of the markers for the speaker, or F for the left half: wrong for half of the turns.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...store.clips import Clip
from ...store.errors import MediaError, UsageError
from ..container import MediaFile
from .base import DataSet, Dropped, Incomplete, counted
from .folders import entries, fault, find_root, nested
from .options import options_from

CLASSES = {
    4: {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"},
    6: {label: label for label in ("ang", "exc", "fru", "hap", "neu", "sad")},
    9: {label: label for label in ("ang", "dis", "exc", "fea", "fru", "hap", "neu", "sad", "sur")},
}
SESSIONS = (1, 2, 3, 4, 5)
TURN = re.compile(
    r"\[(\d+\.\d+)\s*-\s*(\d+\.\d+)\]\t(Ses0[1-5][FM]_\w+_[FM]\w+)\t([a-z]{3})\t\[([\d.]+),\s*([\d.]+),\s*([\d.]+)\]",
    re.ASCII,
)
SPOKEN = re.compile(r"(Ses0[1-5][FM]_\w+)\s+\[[\d.\s-]+\]:\s*(.*)", re.ASCII)
# The recording of the picture ends before these turns.
WITHOUT_VIDEO = frozenset([
    "Ses01F_impro04_M036", "Ses01F_script02_1_M044", "Ses01F_script03_1_F031", "Ses01M_impro02_F021",
    "Ses01M_impro04_M025", "Ses01M_script02_1_F024", "Ses02F_script01_1_F044", "Ses02F_script01_2_M018",
    "Ses02F_script02_2_M046", "Ses02M_script02_2_F046", "Ses03F_impro01_F011", "Ses03F_impro01_M011",
    "Ses03F_impro06_FXX1", "Ses03M_impro04_M041", "Ses03M_impro07_F023", "Ses03M_impro07_M026",
    "Ses04F_impro05_M024", "Ses04M_script02_1_F021",
])  # fmt: skip
TRAIN_SHARE, DEV_SHARE = 0.7, 0.1  # of the paper's split, each rounded down: 3871 / 553 / 1107 of 5531
LAYOUT = "Session1/ to Session5/ with dialog/EmoEvaluation/*.txt, dialog/avi/DivX/*.avi and sentences/wav/*/*.wav"


@dataclass(frozen=True)
class IemocapOptions:
    """What is classified, and how it is split.

    Attributes:
        classes: 4 (excited counts as happy), 6 or 9.
        split: "session": one session is test, the next one dev, the other three train: no speaker is in two of them.
            "paper": 70/10/20 of the turns at random, as BalanceMLA's paper did; every speaker is in every part.
        test_session: which of the five folds is test.
        seed: of split=paper.
    """

    classes: int = 4
    split: Literal["session", "paper"] = "session"
    test_session: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes not in CLASSES:
            raise UsageError(f"iemocap: classes is {self.classes}, expected one of {', '.join(map(str, CLASSES))}")
        if self.test_session not in SESSIONS:
            raise UsageError(f"iemocap: test_session is {self.test_session}, expected 1 to 5")


class Turn(NamedTuple):
    """One labelled turn. start_s, end_s: in the dialog's video."""

    id: str
    dialog: str
    start_s: float
    end_s: float
    emotion: str
    text: str | None

    @property
    def session(self) -> int:
        return int(self.id[4])

    @property
    def speaks(self) -> str:
        """F or M: the first letter of the last field."""
        return self.id.rsplit("_", 1)[1][0]

    @property
    def speaker(self) -> str:
        """Ses01M: of the ten actors. Not the one who wears the markers, whom the dialog is named after."""
        return self.id[:5] + self.speaks

    @property
    def is_left(self) -> bool:
        return self.dialog[5] == self.speaks


def iemocap(root: Path, **options: Any) -> DataSet:
    """One clip a turn whose label is one of the classes.

    Raises:
        UsageError: nothing recognised under `root`; unknown options.
    """
    chosen = options_from(IemocapOptions, options, "iemocap")
    folder = find_root(root, lambda f: any(_sessions(f)), "iemocap", LAYOUT)
    labels = CLASSES[chosen.classes]
    dropped: list[Dropped] = []
    incomplete: list[Incomplete] = []
    clips: list[Clip] = []
    for _, session in _sessions(folder):
        for dialog in sorted(_dialogs(session)):
            video = _picture(folder, session, dialog)
            for turn in sorted(_turns(session, dialog, dropped), key=lambda t: t.id):
                if turn.emotion not in labels:
                    dropped.append(Dropped(turn.id, f"{turn.emotion} is none of the {chosen.classes} classes"))
                    continue
                clip, lacking = _clip(folder, session, turn, labels[turn.emotion], video)
                if clip is None:
                    dropped.append(Dropped(turn.id, "; ".join(lacking)))
                else:
                    clips.append(clip)
                    incomplete += [Incomplete(turn.id, reason) for reason in lacking]
    clips, notes = _with_splits(_once(clips, dropped), chosen)
    absent = [n for n in SESSIONS if n not in {number for number, _ in _sessions(folder)}]
    if absent:
        notes += (f"sessions not found: {', '.join(map(str, absent))}",)
    return DataSet(
        name="iemocap",
        task="emotion",
        root=folder,
        classes=tuple(sorted(set(labels.values()))),
        clips=tuple(clips),
        options=asdict(chosen),
        dropped=tuple(dropped),
        incomplete=tuple(incomplete),
        notes=(*notes, "faces wear markers or are turned away: many frames will have none", *counted(incomplete)),
    )


def _sessions(folder: Path) -> Iterator[tuple[int, Path]]:
    for number in SESSIONS:
        session = nested(folder, f"Session{number}")
        if (session / "dialog" / "EmoEvaluation").is_dir():
            yield number, session


def _dialogs(session: Path) -> Iterator[str]:
    """Names of the dialogs with an evaluation; the folders beside the files hold single raters' opinions."""
    for entry in entries(session / "dialog" / "EmoEvaluation"):
        if entry.is_file() and entry.name.endswith(".txt"):
            yield entry.name[:-4]


def _turns(session: Path, dialog: str, dropped: list[Dropped]) -> Iterator[Turn]:
    """The summary lines of a dialog's evaluation; the other lines are single raters'."""
    path = session / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
    if reason := fault(path):
        dropped.append(Dropped(path.name, reason))
        return
    spoken = _spoken(session / "dialog" / "transcriptions" / path.name)
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        if not line.startswith("["):
            continue
        where, match = f"{path.name} line {number}", TURN.match(line)
        if not match:
            dropped.append(Dropped(where, f"is no summary of a turn: {line[:60]!r}"))
        elif not match[3].startswith(f"{dialog}_") or match[3].rsplit("_", 1)[0] != dialog:
            dropped.append(Dropped(where, f"{match[3]} belongs to another dialog"))
        elif not float(match[1]) < float(match[2]):
            dropped.append(Dropped(match[3], f"ends at {match[2]} s, not after its start at {match[1]} s"))
        else:
            yield Turn(match[3], dialog, float(match[1]), float(match[2]), match[4], spoken.get(match[3]))


def _spoken(path: Path) -> dict[str, str]:
    """What is said in each turn: a help for people, so a missing file is no fault."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="latin-1").splitlines()
    return {match[1]: match[2] for line in lines if (match := SPOKEN.fullmatch(line.strip()))}


class Picture(NamedTuple):
    """A dialog's video, or why it cannot be used. source: relative to the root."""

    source: str
    width: int
    height: int
    fault: str | None


def _picture(folder: Path, session: Path, dialog: str) -> Picture:
    path = session / "dialog" / "avi" / "DivX" / f"{dialog}.avi"
    source = path.relative_to(folder).as_posix()
    try:
        with MediaFile(path) as media:  # its header alone: 720 x 480, unless someone scaled it
            if media.video is None:
                return Picture(source, 0, 0, f"{path.name}: no video stream in it")
            size = media.video.codec_context
            return Picture(source, size.width, size.height, None)
    except MediaError as error:
        return Picture(source, 0, 0, str(error))


def _clip(folder: Path, session: Path, turn: Turn, label: str, picture: Picture) -> tuple[Clip | None, list[str]]:
    """The clip, or None where it has neither picture nor sound; and why it lacks one."""
    lacking = []
    if turn.id in WITHOUT_VIDEO:
        lacking.append("no picture: the video ends before this turn (one of 18 known)")
    elif picture.fault:
        lacking.append(f"no picture: {picture.fault}")
    seen = not lacking
    wav = session / "sentences" / "wav" / turn.dialog / f"{turn.id}.wav"
    reason = fault(wav) if wav.is_file() else "missing"
    if reason:
        lacking.append(f"no sound: {wav.name}: {reason}")
    if len(lacking) == 2:
        return None, lacking
    half = picture.width // 2
    clip = Clip(
        id=turn.id,
        start_s=turn.start_s,
        end_s=turn.end_s,
        label=label,
        speaker=turn.speaker,
        group=turn.dialog,
        video=picture.source if seen else None,
        audio=None if reason else wav.relative_to(folder).as_posix(),
        crop_x=(0 if turn.is_left else half) if seen else None,
        crop_y=0 if seen else None,
        crop_w=half if seen else None,
        crop_h=picture.height if seen else None,
        text=turn.text,
        audio_offset_s=None if reason else turn.start_s,
    )
    return clip, lacking


def _once(clips: list[Clip], dropped: list[Dropped]) -> list[Clip]:
    kept = {clip.id: clip for clip in reversed(clips)}
    dropped += [Dropped(c.id, "stands more than once in its evaluation") for c in clips if kept[c.id] is not c]
    return sorted(kept.values(), key=lambda clip: clip.id)


def _with_splits(clips: list[Clip], options: IemocapOptions) -> tuple[list[Clip], tuple[str, ...]]:
    if options.split == "paper":
        ranked = sorted(clips, key=lambda c: hashlib.sha256(f"{options.seed}:{c.id}".encode()).digest())
        trains, devs = int(TRAIN_SHARE * len(clips)), int(DEV_SHARE * len(clips))
        part = {c.id: "train" if k < trains else "dev" if k < trains + devs else "test" for k, c in enumerate(ranked)}
        note = (
            f"split=paper (seed {options.seed}): 70/10/20 of the turns at random. WARNING: every speaker and dialog is in "
            "train and in test, which makes test easier; use split=session for new speakers"
        )
        return [replace(c, split=part[c.id], group=c.id) for c in clips], (note,)
    test, dev = options.test_session, options.test_session % len(SESSIONS) + 1
    of_session = {n: "test" if n == test else "dev" if n == dev else "train" for n in SESSIONS}
    listed = [replace(c, split=of_session[int(c.id[4])]) for c in clips]
    note = (
        f"leave one session out: test is session {test}, dev session {dev}, train the other three; no speaker is in two"
    )
    found = {c.split for c in listed}
    return listed, (note, *(f"no clip in the {s} split" for s in ("train", "dev", "test") if s not in found))
