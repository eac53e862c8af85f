"""What a run is asked about: a file or a span of it, as the clip that an extraction would make of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..extract.datasets.lengths import ends_s, longest_cut_s
from ..extract.datasets.whole_files import VIDEO_SUFFIXES
from ..store.clips import Clip
from ..store.errors import UsageError

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")


@dataclass(frozen=True)
class Cut:
    """A file, and which part of it.

    Attributes:
        path: of a media file with picture, sound or both.
        start_s, end_s: seconds from the file's time zero; end_s None: to where its media end.
        id: what the clip is called, which also seeds noise; None: the file's name.
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise UsageError(f"{self.path}: no such file")
        if not 0 <= self.start_s < (float("inf") if self.end_s is None else self.end_s):
            raise UsageError(f"{self.path.name}: from {self.start_s:g} to {self.end_s} s: expected 0 <= from < to")

    def clip(self) -> Clip:
        """Its row of a clip table whose sources are absolute paths.

        Raises:
            MediaError: the file can't be read.
        """
        name = self.id or self.path.name
        source = str(self.path.resolve())
        end_s = self.end_s
        if end_s is None:
            found = ends_s(self.path)
            end_s = round(longest_cut_s(found.get("video"), found.get("audio")), 6)
        # A cut that begins behind the end fails in reading, which says where picture and sound end.
        return Clip(name, self.start_s, max(end_s, self.start_s + 1e-3), video=source, audio=source)


def cuts_of(paths: Sequence[Path], start_s: float | None = None, end_s: float | None = None) -> list[Cut]:
    """Files, and all media files of folders (sorted, not those of folders in them).

    Raises:
        UsageError: there is no such file, or none in a folder.
    """
    cuts: list[Cut] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            suffixes = (*VIDEO_SUFFIXES, *SOUND_SUFFIXES)
            inside = sorted(
                p for p in path.iterdir() if p.is_file() and p.suffix.lower() in suffixes and p.name[0] != "."
            )
            if not inside:
                raise UsageError(f"{path}: no media file in this folder (looked for {', '.join(suffixes)})")
        cuts += [Cut(file, start_s or 0.0, end_s) for file in inside]
    return cuts
