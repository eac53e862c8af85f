"""Work ahead in one background thread: the next results are ready when they are asked for."""

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ..errors import UsageError

X = TypeVar("X")
Y = TypeVar("Y")

END = object()
POLL_S = 0.1  # how long the thread may take to notice that nobody wants its results any more


def prefetch(work: Callable[[X], Y], items: Iterable[X], depth: int) -> Iterator[Y]:
    """work(item) of each item, in order; up to `depth` results are made before they are asked for.

    The thread starts with the first result that is asked for and ends with the iterator, however that ends. An error of
    `work` or of `items` is raised here, at its place in the order. An iterator that has begun belongs to its process: a
    forked child that goes on with it gets a UsageError, not a wait without end.
    """
    if depth < 1:
        raise UsageError(f"depth {depth}: a prefetch needs room for at least 1 result")
    return iterate(work, items, depth)


def iterate(work: Callable[[X], Y], items: Iterable[X], depth: int) -> Iterator[Y]:
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(result: Any, error: BaseException | None = None) -> None:
        while not stop.is_set():
            try:
                return results.put((result, error), timeout=POLL_S)
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                put(work(item))
            put(END)
        except BaseException as error:
            put(END, error)

    owner = os.getpid()
    thread = threading.Thread(target=run, name="bmla-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            if os.getpid() != owner:
                raise UsageError("a prefetch was begun before this process was forked: begin it in the worker")
            result, error = results.get()
            if error is not None:
                raise error
            if result is END:
                return
            yield result
    finally:
        if os.getpid() == owner:  # in a forked child neither the thread nor a sound queue exists
            stop.set()
            thread.join()
