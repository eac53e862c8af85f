"""Worker processes: how they start, how they get what they work with, and that they do not outlive the process that started them."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection, context, forkserver
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from .reading.memory import SharedBlock

POLL_S = 0.2  # of whoever waits for workers
MOST_FILES = 200  # open ones that a forked process can be given: 253 on Linux, of which some are for itself


def worker_context(*more: str, given: Any = None) -> BaseContext:
    """How workers are started: each is forked from one process that has imported what this one has of bmla, and did nothing else.

    So the imports, seconds of a core each time, are paid once for all workers, and their memory is shared. A process that computes
    can't be forked itself: forks and threads of torch do not go together. Where there is no such way, each worker starts anew:
    macOS, whose libraries do not survive a fork, folders for temporary files whose names are too long for a socket, and workers that
    are given too many open files.

    Args:
        more: names of modules that workers will import besides.
        given: what each will be given as an argument.
    """
    if sys.platform == "linux" and open_files(given) <= MOST_FILES:
        ours = sorted(name for name in sys.modules if name.startswith("bmla."))
        forkserver.set_forkserver_preload([*ours, *more])
        try:
            with our_path():
                forkserver.ensure_running()
        except OSError:
            pass
        else:
            return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


@contextmanager
def our_path() -> Iterator[None]:
    """A process started inside looks for modules where this one does; Python 3.11's server would, first, in the working directory."""
    places = os.pathsep.join(place or str(Path.cwd()) for place in sys.path if os.pathsep not in place)
    wanted = {"PYTHONPATH": places, "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Counted:
    """In the place of a process that is being started: counts the open files that it would be given."""

    def __init__(self) -> None:
        self.files = 0

    def duplicate_for_child(self, fd: int) -> int:
        self.files += 1
        return fd

    def DupFd(self, fd: int) -> int:  # noqa: N802 - the name that multiprocessing asks for
        return fd


def open_files(content: Any) -> int:
    """How many open files (shared memory, tensors) something takes along to a new process."""
    counted = Counted()
    before = context.get_spawning_popen()
    context.set_spawning_popen(cast(Any, counted))  # it has all that is asked of one
    try:
        ForkingPickler.dumps(content)
    finally:
        context.set_spawning_popen(before)
    return counted.files


def begin(environment: Mapping[str, str]) -> None:
    """What a worker does first: takes over the environment of its parent, and ends when it ends.

    What was imported before that, the main script and the modules of a worker's arguments included, has seen the environment of the
    first workers of its parent; niceness, file mode mask, affinity and limits stay those.
    """
    os.environ.clear()
    os.environ.update(environment)
    end_with_parent()


def end_with_parent() -> None:
    """Ends this process when its parent was killed: a worker holds both ends of its queue, so it would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


Content = TypeVar("Content")


def parcel(content: Content) -> Content:
    """A `Parcel` in the place of an argument of a new process, with the type of what arrives there."""
    return cast(Content, Parcel(content))


class Parcel:
    """Something on its way to a process that is being started, as one of its arguments: what arrives is the thing itself.

    It travels in shared memory. A pipe holds 64 KB: whoever sends more through it waits until the new process reads on, which it
    does when all its imports are done. So many processes would start one after another, seconds each.
    """

    def __init__(self, content: Any):
        self.content = content
        self.blocks: list[SharedBlock] = []  # for as long as a process may still open them

    def __reduce__(self) -> tuple[Callable[[SharedBlock], Any], tuple[SharedBlock]]:
        data = np.frombuffer(
            ForkingPickler.dumps(self.content), np.uint8
        )  # anew for each process: it says what to pass on to it
        if not self.blocks or not np.array_equal(self.blocks[-1].array, data):
            self.blocks.append(SharedBlock.of(data))
        return unpacked, (self.blocks[-1],)


def unpacked(block: SharedBlock) -> Any:
    """What a `Parcel` held. The bytes are those of the process that started this one."""
    return ForkingPickler.loads(block.map[: block.size])
