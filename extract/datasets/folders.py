"""Walking a data set's folders: sorted, without the litter of file managers and archives, and what is wrong with a file."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ...store.errors import UsageError

STUB = b"version https://git-lfs"
STUB_BYTES = 1024  # a stub has about 130 bytes: larger files need not be opened


def entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What the folder holds, sorted by name, without `._*`, `.DS_Store` and `__MACOSX`."""
    with os.scandir(folder) as found:
        kept = [e for e in found if not e.name.startswith(".") and e.name != "__MACOSX"]
    return sorted(kept, key=lambda e: e.name)


def files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All files of the tree, folder by folder, sorted."""
    for entry in entries(folder):
        if entry.is_dir():
            yield from files_below(Path(entry.path))
        else:
            yield entry


def find_root(root: Path, recognised: Callable[[Path], bool], dataset: str, layout: str) -> Path:
    """The folder of this layout: `root` itself, or a folder in it or in one of those (a parent, a redundant level).

    Raises:
        UsageError: no such folder, saying what was expected and what was found.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UsageError(f"{dataset}: the root {root} {what}; expected a folder with {layout}")
    level = [root]
    for _ in range(3):
        if found := [folder for folder in level if recognised(folder)]:
            return found[0]
        inside = [e for folder in level for e in entries(folder) if e.is_dir()]
        level = [Path(e.path) for e in inside if os.access(e.path, os.R_OK | os.X_OK)]  # a disk's lost+found is not
    held = [e.name + ("/" if e.is_dir() else "") for e in entries(root)]
    shown = ", ".join(held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else "") if held else "nothing"
    raise UsageError(f"{dataset}: nothing recognised in {root}: expected {layout}; found {shown}")


def fault(entry: os.DirEntry[str] | Path | str) -> str | None:
    """Why this file can be no media and no text, without opening large ones: empty, or a git-lfs stub. None: it may."""
    size = os.stat(entry).st_size  # noqa: PTH116  a Path object a clip costs as much as the look
    if size == 0:
        return "empty file"
    if size < STUB_BYTES:
        with Path(entry).open("rb") as file:
            if file.read(len(STUB)) == STUB:
                return "a git-lfs stub, not the file itself; fetch it with: git lfs pull"
    return None


def nested(folder: Path, name: str) -> Path:
    """`folder/name`, or `folder/name/name` where unpacking doubled it."""
    inner = folder / name / name
    return inner if inner.is_dir() else folder / name


def is_plain_name(name: str) -> bool:
    """A name out of a label file that stays in its folder when it is joined to it."""
    return name not in ("", ".", "..") and not any(c in name for c in "/\\\0")
