"""Clips that are whole files: how long they are, and folders of them that are named after the labels."""

import math
import posixpath
from dataclasses import replace
from pathlib import Path

from ...store.clips import SPLITS, Clip
from ...store.errors import MediaError
from ..media import probe
from .base import DataSet, Dropped, seeded_split
from .folders import entries, find_root
from .lengths import ends_s, longest_cut_s

SPLIT_NAMES = {**{s: s for s in SPLITS}, "val": "dev", "valid": "dev", "validation": "dev"}
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".flv", ".m4v")
LAYOUT = "a .csv or .parquet file with one row a clip, or a folder with split/label/*.mp4 or label/*.mp4"


def labelled_folders(root: Path, seed: int) -> DataSet:
    """One clip a video file under root/split/label/ or root/label/; without splits, by the hash of the file's name.

    Raises:
        UsageError: no such folders under `root`.
    """
    folder = find_root(root, _has_labels, "manifest", LAYOUT)
    split_folders = [e.name for e in entries(folder) if e.is_dir() and e.name.lower() in SPLIT_NAMES]
    dropped = []
    if split_folders:
        dropped += [
            Dropped(e.name, "neither train, dev nor test") for e in entries(folder) if e.name not in split_folders
        ]
    clips: list[Clip] = []
    for place in split_folders or ["."]:
        for label in (e for e in entries(folder / place) if e.is_dir()):
            for entry in entries(label.path):
                source = posixpath.normpath(f"{place}/{label.name}/{entry.name}")
                if entry.is_dir() or not entry.name.lower().endswith(VIDEO_SUFFIXES):
                    dropped.append(Dropped(source, f"no video file ({', '.join(VIDEO_SUFFIXES)})"))
                    continue
                split = SPLIT_NAMES.get(place.lower()) or seeded_split(Path(source).stem, seed)
                clip = Clip(
                    id=source,
                    start_s=0.0,
                    end_s=math.inf,
                    label=label.name,
                    split=split,
                    group=source if split_folders else Path(source).stem,
                    video=source,
                    audio=source,
                )
                try:
                    clips.append(to_the_end(clip, folder))
                except MediaError as error:
                    dropped.append(Dropped(source, str(error)))
    rule = (
        "split as the folders say" if split_folders else f"split by the hash of the file's name (seed {seed}), 70/10/20"
    )
    return DataSet(
        name="manifest",
        task="classification",
        root=folder,
        classes=tuple(sorted({str(c.label) for c in clips})),
        clips=tuple(clips),
        options={"seed": seed},
        dropped=tuple(dropped),
        notes=(rule, "each clip is a whole file"),
    )


def to_the_end(clip: Clip, folder: Path) -> Clip:
    """The clip up to where its media end, without the modality that its file does not have.

    Args:
        folder: what the clip's sources are relative to.

    Raises:
        MediaError: the media cannot be read.
    """
    path = folder / (clip.video or clip.audio or "")
    if path.is_dir():
        found = {"video": probe(path, fps=clip.fps).duration_s}
    else:
        found = ends_s(path)
    picture_s, sound_s = found.get("video"), found.get("audio")
    audio = None if clip.audio == clip.video and sound_s is None else clip.audio
    if clip.video is not None and clip.audio not in (None, clip.video):
        sound_s = ends_s(folder / str(clip.audio)).get("audio", 0.0)
    video = clip.video if picture_s is not None else None
    return replace(clip, end_s=round(longest_cut_s(picture_s, sound_s), 6), audio=audio, video=video)


def _has_labels(folder: Path) -> bool:
    """split/label/*.mp4 or label/*.mp4 lies below."""
    for entry in entries(folder):
        if entry.is_dir():
            inside = entries(entry.path)
            deeper = [f for e in inside if e.is_dir() and entry.name.lower() in SPLIT_NAMES for f in entries(e.path)]
            if any(f.name.lower().endswith(VIDEO_SUFFIXES) for f in [*inside, *deeper]):
                return True
    return False
