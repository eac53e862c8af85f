"""Clips that are whole files: how long they are, and folders of them that are named after the labels."""

import math
import posixpath
from dataclasses import replace
from pathlib import Path

from ...store.clips import SPLITS, Clip
from ...store.errors import MediaError
from ..media import END_TOLERANCE_S, probe
from .base import DataSet, Dropped, seeded_split
from .folders import entries, find_root

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
    fps = clip.fps if clip.video is not None and (folder / clip.video).is_dir() else None
    found = probe(folder / (clip.video or clip.audio or ""), fps=fps)
    end_s = found.duration_s
    if clip.video is not None and clip.audio not in (None, clip.video):
        sound_s = probe(folder / str(clip.audio)).audio_s or 0.0
        picture_s = found.video_s or 0.0
        end_s = picture_s if sound_s >= picture_s - END_TOLERANCE_S else sound_s
    audio = None if clip.audio == clip.video and not found.has_audio else clip.audio
    video = clip.video if found.has_video else None
    return replace(clip, end_s=round(end_s, 6), audio=audio, video=video)


def _has_labels(folder: Path) -> bool:
    """split/label/*.mp4 or label/*.mp4 lies below."""
    for entry in entries(folder):
        if entry.is_dir():
            inside = entries(entry.path)
            deeper = [f for e in inside if e.is_dir() and entry.name.lower() in SPLIT_NAMES for f in entries(e.path)]
            if any(f.name.lower().endswith(VIDEO_SUFFIXES) for f in [*inside, *deeper]):
                return True
    return False
