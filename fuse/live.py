"""The page of runs that are still being made: written anew from what is whole on disk, whenever that has changed.

Nothing is asked of the processes that train, so they may be killed, go on or begin at any time, and on whichever machine shares the folder.
Finished runs are those whose folder has its name; epochs of unfinished ones are those of their last kept state.
"""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..store.errors import BmlaError
from .facts import Facts, facts_of_runs
from .page import Live, render_page, trainings
from .report import provenance_of
from .run import CONDITIONS, Run, load_run
from .summary import Summary, summarise
from .unfinished import FOLDER, NAME

REST = 3.0  # times as long as a page took to make, the next one waits: at most a quarter of a core is spent on it

Stamp = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Page:
    """What is served. tag: the same for the same content."""

    tag: str
    html: bytes


@dataclass
class Watched:
    """Folders of runs. `page` may be called from several threads: one of them makes the page, the others get the last one.

    Attributes:
        folders: that hold runs, each read anew every time.
    """

    folders: Sequence[Path]
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)
    _last: Page | None = field(default=None, init=False, repr=False)
    _next_s: float = field(default=0.0, init=False, repr=False)
    _runs: dict[Path, tuple[int, Run]] = field(default_factory=dict, init=False, repr=False)
    _found: tuple[Stamp, "Found"] | None = field(default=None, init=False, repr=False)

    def page(self) -> Page:
        """The page as it is now, or as it was a little while ago."""
        if not self._lock.acquire(blocking=self._last is None):
            assert self._last is not None
            return self._last
        try:
            if self._last is None or time.monotonic() >= self._next_s:
                began = time.monotonic()
                self._last = self.made(self._last)
                ended = time.monotonic()
                self._next_s = ended + REST * (ended - began)
            return self._last
        finally:
            self._lock.release()

    def made(self, last: Page | None) -> Page:
        """A new page; the last one where nothing has changed."""
        finished, kept = self.stamps()
        tag = hashlib.sha256(repr((finished, kept)).encode()).hexdigest()[:16]
        if last is not None and last.tag == tag:
            return last
        if self._found is None or self._found[0] != finished:
            self._found = finished, self.summed_up()
        found = self._found[1]
        unfinished = [training for folder in self.folders for training in trainings(folder)]
        provenance = {}
        if found.summary is not None and found.facts is not None:
            provenance = provenance_of(found.summary, found.facts, {"page made of": f"{found.count} finished runs"})
        live = Live(tag, time.time(), found.count, found.problem)
        html = render_page(found.summary, found.facts, provenance, unfinished, live)
        return Page(tag, html.encode("utf-8", "replace"))

    def stamps(self) -> tuple[Stamp, Stamp]:
        """Of everything that the finished runs' part depends on, and of the states of unfinished ones."""
        finished, kept = [], []
        for folder in self.folders:
            for path in run_folders(folder):
                finished += [path / "config.json", *sorted((path / CONDITIONS).glob("*.json"))]
            kept += sorted((folder / FOLDER).glob(f"*/{NAME}"))
        return stamp(finished), stamp(kept)

    def summed_up(self) -> "Found":
        """Of the finished runs."""
        runs, problems = [], []
        for path in (p for folder in self.folders for p in run_folders(folder)):
            try:
                runs.append(self.load(path))
            except BmlaError as error:
                problems.append(str(error))
        try:
            summary = summarise(runs) if runs else None
            facts = facts_of_runs(summary) if summary else None
        except BmlaError as error:
            return Found(len(runs), None, None, str(error))
        return Found(len(runs), summary, facts, "; ".join(problems))

    def load(self, path: Path) -> Run:
        """A finished run, read once."""
        try:
            written = (path / "config.json").stat().st_mtime_ns
        except OSError:
            written = -1
        if path not in self._runs or self._runs[path][0] != written:
            self._runs[path] = written, load_run(path)
        return self._runs[path][1]


@dataclass(frozen=True)
class Found:
    """The finished runs summed up.

    Attributes:
        count: how many can be read.
        summary, facts: None where there is no run, or they can't be summed up together.
        problem: why not, or which run can't be read.
    """

    count: int
    summary: Summary | None
    facts: Facts | None
    problem: str


def run_folders(folder: Path) -> list[Path]:
    """Of finished runs; what is still being written begins with a dot."""
    return sorted(p.parent for p in folder.glob("*/config.json") if not p.parent.name.startswith("."))


def stamp(paths: Sequence[Path]) -> Stamp:
    """Names and times of writing of the files that are there."""
    found = []
    for path in paths:
        try:
            found.append((str(path), path.stat().st_mtime_ns))
        except OSError:  # it was finished, or renamed, meanwhile
            continue
    return tuple(found)
