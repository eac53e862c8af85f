"""CREMA-D, acted sentences: VideoFlash/1001_DFA_ANG_XX.flv + AudioWAV/1001_DFA_ANG_XX.wav. Six emotions, 91 actors.

*Source:* H. Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Transactions on Affective
Computing 5 (2014), and github.com/CheyneyComputerScience/CREMA-D. The label is the emotion that the actor was asked for;
what raters perceived stands in processedResults/summaryTable.csv, where `:` joins tied votes. There is no official split.
"""

import csv
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...store.clips import Clip
from ...store.errors import MediaError, UsageError
from .base import DataSet, Dropped, Incomplete, counted, ranked_split
from .folders import entries, fault, find_root, nested
from .lengths import ends_of_many, longest_cut_s
from .options import options_from

NAME = re.compile(
    r"(\d{4})_(?:IEO|TIE|IOM|IWW|TAI|MTI|IWL|ITH|DFA|ITS|TSI|WSI)_(ANG|DIS|FEA|HAP|NEU|SAD)_(?:LO|MD|HI|XX?)", re.ASCII
)
CLASSES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
VOTES = {label[0]: label for label in CLASSES}
COLUMNS = {"voice": "VoiceVote", "face": "FaceVote", "both": "MultiModalVote"}
ACTORS = tuple(str(n) for n in range(1001, 1092))
SILENT = "1076_MTI_SAD_XX"
VIDEO, AUDIO, TABLE = "VideoFlash", "AudioWAV", "processedResults/summaryTable.csv"
LAYOUT = f"{VIDEO}/ with 1001_DFA_ANG_XX.flv, {AUDIO}/ with 1001_DFA_ANG_XX.wav"


@dataclass(frozen=True)
class CremadOptions:
    """What is classified, and the split.

    Attributes:
        label: the emotion that was intended, or that most raters perceived from the voice, the face, or both. A tie of
            the raters is no label: such clips are left out.
        seed: of the split of the 91 actors into 64 for train, 9 for dev and 18 for test.
    """

    label: Literal["intended", "voice", "face", "both"] = "intended"
    seed: int = 0


def cremad(root: Path, **options: Any) -> DataSet:
    """One clip a recording; its length comes from its files.

    Raises:
        UsageError: nothing recognised under `root`; perceived labels asked for without their table; unknown options.
    """
    chosen = options_from(CremadOptions, options, "cremad")
    folder = find_root(root, lambda f: any(nested(f, name).is_dir() for name in (VIDEO, AUDIO)), "cremad", LAYOUT)
    dropped: list[Dropped] = []
    incomplete: list[Incomplete] = []
    votes = None if chosen.label == "intended" else _votes(folder, COLUMNS[chosen.label])
    splits = ranked_split(ACTORS, chosen.seed)
    has_wavs = nested(folder, AUDIO).is_dir()
    videos = _files(nested(folder, VIDEO), ".flv", dropped)
    sounds = _files(nested(folder, AUDIO), ".wav", dropped) if has_wavs else videos
    ends = _ends([path for path in {*videos.values(), *sounds.values()} if isinstance(path, Path)])
    clips = []
    for name in sorted(videos.keys() | sounds.keys()):
        label, reason = _label(name, votes)
        if label is None:
            dropped.append(Dropped(name, reason))
            continue
        picture_s, sound_s, lacking = _lengths(name, videos.get(name, "missing"), sounds.get(name, "missing"), ends)
        if picture_s is None and sound_s is None:
            dropped.append(Dropped(name, "; ".join(lacking)))
            continue
        clips.append(
            Clip(
                id=name,
                start_s=0.0,
                end_s=round(longest_cut_s(picture_s, sound_s), 6),
                label=label,
                split=splits[name[:4]],
                speaker=name[:4],
                group=name,
                video=None if picture_s is None else _source(videos[name], folder),
                audio=None if sound_s is None else _source(sounds[name], folder),
            )
        )
        incomplete += [Incomplete(name, reason) for reason in lacking]
    return DataSet(
        name="cremad",
        task="emotion",
        root=folder,
        classes=CLASSES,
        clips=tuple(clips),
        options=asdict(chosen),
        dropped=tuple(dropped),
        incomplete=tuple(incomplete),
        notes=(
            f"split by actor (seed {chosen.seed}), 70/10/20 of the 91: no actor is in two splits; there is no official one",
            *(() if has_wavs else (f"no {AUDIO}/: the sound of the .flv files is used",)),
            *counted(incomplete),
        ),
    )


def _files(folder: Path, suffix: str, dropped: list[Dropped]) -> dict[str, Path | str]:
    """The recordings in a folder by name: a path, or why the file is none."""
    found: dict[str, Path | str] = {}
    for entry in entries(folder) if folder.is_dir() else ():
        name, is_media = entry.name.removesuffix(suffix), entry.name.endswith(suffix)
        match = NAME.fullmatch(name) if is_media else None
        if is_media and match and match[1] in ACTORS:
            found[name] = fault(entry) or Path(entry.path)
        else:
            dropped.append(Dropped(f"{folder.name}/{entry.name}", f"is not named like 1001_DFA_ANG_XX{suffix}"))
    return found


def _ends(paths: list[Path]) -> dict[Path, dict[str, float] | MediaError]:
    return dict(zip(paths, ends_of_many(paths), strict=True))


def _lengths(
    name: str, video: Path | str, sound: Path | str, ends: dict[Path, dict[str, float] | MediaError]
) -> tuple[float | None, float | None, list[str]]:
    """Where picture and sound end (None: not usable), and why one is not."""
    found: dict[str, float | None] = {}
    lacking = []
    for kind, stream, source in (("picture", "video", video), ("sound", "audio", sound)):
        held: dict[str, float] | MediaError | str = ends[source] if isinstance(source, Path) else source
        if kind == "sound" and name == SILENT:
            held = "this recording is known to be silent"
        found[kind] = held.get(stream) if isinstance(held, dict) else None
        if found[kind] is None:
            lacking.append(f"no {kind}: {'none in the file' if isinstance(held, dict) else held}")
    return found["picture"], found["sound"], lacking


def _votes(folder: Path, column: str) -> dict[str, str]:
    """What most raters perceived, by recording: a letter, or several joined by `:`."""
    path = folder / TABLE
    reason = fault(path) if path.is_file() else "missing"
    if reason:
        raise UsageError(f"cremad: perceived labels stand in {TABLE}: {reason}; or use label=intended")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if not {"FileName", column} <= set(rows.fieldnames or ()):
            raise UsageError(
                f"cremad: {TABLE} has no columns FileName and {column}: {', '.join(rows.fieldnames or ())}"
            )
        return {str(row["FileName"]).strip(): str(row[column] or "").strip() for row in rows}


def _label(name: str, votes: dict[str, str] | None) -> tuple[str | None, str]:
    """The label, or None and why there is none."""
    if votes is None:
        return name[9:12], ""
    vote = votes.get(name)
    if vote is None:
        return None, f"not in {TABLE}"
    return VOTES.get(vote), f"the raters do not agree: {vote}" if ":" in vote else f"unknown vote {vote!r}"


def _source(path: Path | str, folder: Path) -> str:
    return Path(path).relative_to(folder).as_posix()
