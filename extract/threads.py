"""How many threads a process of an extraction uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch
from threadpoolctl import threadpool_limits


def one_thread() -> None:
    """One, in torch, OpenCV and the BLAS of numpy: of processes side by side each has a core, and the same shard gives the same bytes."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    threadpool_limits(1, "blas")


@contextmanager
def with_one_thread() -> Iterator[None]:
    """`one_thread` inside; as it was afterwards."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    with threadpool_limits(1, "blas"):
        one_thread()
        try:
            yield
        finally:
            torch.set_num_threads(torch_threads)
            cv2.setNumThreads(cv2_threads)
