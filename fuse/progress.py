"""How far a sweep is: silent, or one display on stderr with the time that is left."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .config import RunConfig
from .models.table import takes

if TYPE_CHECKING:
    from .run import Run

SHOWN_NAMES = 3


class Progress:
    """What a sweep tells while it works; this one says nothing.

    Attributes:
        talks: somebody listens, so that it is worth while to measure how long it will take.
    """

    talks = False

    def plan(self, lines: Sequence[str]) -> None:
        """How long it will take, and how it will be done."""

    def say(self, line: str) -> None:
        """A remark."""

    def begin(self, work: int, reused: Sequence[str]) -> None:
        """Args: work: that is to come, in epochs of one modality; reused: names of the runs that are there already."""

    def start(self, config: RunConfig) -> None:
        """A run begins."""

    def advance(self, config: RunConfig, epoch: dict[str, Any], work: int) -> None:
        """An epoch is done."""

    def finish(self, run: "Run") -> None:
        """A run is done and on disk."""

    def end(self) -> None:
        """The sweep is over, however it ended."""


class StderrProgress(Progress):
    """A bar with the remaining time where stderr is a terminal, and a line for every finished run everywhere."""

    talks = True

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=self.console, disable=not sys.stderr.isatty(), transient=True)

    def plan(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.say(line)

    def begin(self, work: int, reused: Sequence[str]) -> None:
        if reused:
            more = f" and {len(reused) - SHOWN_NAMES} more" if len(reused) > SHOWN_NAMES else ""
            self.say(f"{len(reused)} finished run(s) reused: {', '.join(reused[:SHOWN_NAMES])}{more}")
        self.task = self.bar.add_task("starting", total=work)
        if work:
            self.bar.start()

    def start(self, config: RunConfig) -> None:
        self.bar.update(self.task, description=describe(config))

    def advance(self, config: RunConfig, epoch: dict[str, Any], work: int) -> None:
        text = f"{describe(config)}  epoch {epoch['epoch']}/{config.total_epochs}  dev {epoch['dev_accuracy']:.3f}"
        self.bar.update(self.task, advance=work, description=text)

    def finish(self, run: "Run") -> None:
        best, test = run.scores["best"], run.scores["test"]
        self.say(
            f"{describe(run.config)}: test {test['accuracy']:.3f} of {test['clips']} clips "
            f"(dev {best['dev_accuracy']:.3f}, epoch {best['epoch']}, {run.document.get('seconds', 0):.1f} s)"
        )

    def end(self) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)


def describe(config: RunConfig) -> str:
    """A run in a few words."""
    without = f" without {', '.join(config.removed)}" if config.removed else ""
    one = config.model.endswith(("-ao", "-vo")) and config.ratio == "1:1"
    balance = f" + {config.balance}" if config.balance != "none" else ""
    return f"{config.model}{without}{balance}{config.told_tasks}{'' if one else f' {config.ratio}'} seed {config.seed}"


def work(config: RunConfig) -> int:
    """What a run costs, in epochs of one modality."""
    return config.total_epochs * len(takes(config.model))
