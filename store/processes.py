"""Worker processes: how they start, how they get what they work with, and that they do not outlive the process that started them."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing import connection, forkserver
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar, cast

import numpy as np

from .reading.memory import SharedBlock

POLL_S = 0.2  # of whoever waits for workers


def worker_context(*more: str) -> BaseContext:
    """How workers are started: each is forked from one process that has imported what this one has of bmla, and did nothing else.

    So the imports, seconds of a core each time, are paid once for all workers, and their memory is shared. A process that computes
    can't be forked itself: forks and threads of torch do not go together. Where there is no such way, each worker starts anew:
    macOS, whose libraries do not survive a fork, and folders for temporary files whose names are too long for a socket.

    Args:
        more: names of modules that workers will import besides.
    """
    if sys.platform == "linux":
        ours = sorted(name for name in sys.modules if name.startswith("bmla."))
        forkserver.set_forkserver_preload([*ours, *more])
        try:
            forkserver.ensure_running()
        except OSError:
            pass
        else:
            return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def begin(environment: Mapping[str, str]) -> None:
    """What a worker does first: takes over the environment of its parent, as that is now, and ends when it ends."""
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
