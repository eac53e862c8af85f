"""Worker processes: how they get what they work with, and that they do not outlive the process that started them."""

import os
import threading
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar, cast

import numpy as np

from .reading.memory import SharedBlock

POLL_S = 0.2


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent was killed: a worker holds both ends of its queue, so it would wait for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
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
