"""Progress on stderr: a bar with clips per second and the time left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID


class ClipProgress:
    """Counts clips. Does nothing until `begin`, and nothing at all where it is quiet."""

    def __init__(self, quiet: bool, what: str):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
            speed_estimate_period=600,
        )
        self.task: TaskID | None = None
        self.what = what

    def begin(self, done: int, total: int) -> None:
        """`done` of `total` clips were there before: they count as progress, but not for the speed."""
        self.task = self.bar.add_task(self.what, total=total, completed=done, rate="")

    def advance(self, clips: int) -> None:
        if self.task is None or clips == 0:
            return
        self.bar.advance(self.task, clips)
        speed = self.bar.tasks[0].speed
        self.bar.update(self.task, rate=f"{speed:.1f} clips/s" if speed else "")


@contextmanager
def clip_progress(quiet: bool, what: str = "extract") -> Iterator[ClipProgress]:
    progress = ClipProgress(quiet, what)
    with progress.bar:
        yield progress


class ByteProgress:
    """A bar over bytes with speed and the time left; its total may become known later."""

    def __init__(self, what: str, total: int, quiet: bool):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        left = (TextColumn("left"), TimeRemainingColumn())
        self.bar = Progress(*columns, *left, console=Console(stderr=True), disable=quiet)
        self.task = self.bar.add_task(what, total=total)

    def begin(self, total: int) -> None:
        self.bar.update(self.task, total=total)

    def advance(self, size: int) -> None:
        self.bar.advance(self.task, size)


@contextmanager
def byte_progress(what: str, total: int, quiet: bool) -> Iterator[ByteProgress]:
    progress = ByteProgress(what, total, quiet)
    with progress.bar:
        yield progress
