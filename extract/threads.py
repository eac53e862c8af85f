"""How many threads a process of an extraction uses."""

import cv2
import torch
from threadpoolctl import threadpool_limits


def one_thread() -> None:
    """One, in torch, OpenCV and the BLAS of numpy: of processes side by side each has a core, and the same shard gives the same bytes."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    threadpool_limits(1, "blas")
