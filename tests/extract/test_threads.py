"""One thread a process, and the caller's own afterwards."""

import cv2
import numpy as np
import torch
from threadpoolctl import threadpool_info

from bmla.extract.threads import with_one_thread


def counts() -> tuple[int, int, set[int]]:
    np.ones((2, 2)) @ np.ones((2, 2))
    blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    return torch.get_num_threads(), cv2.getNumThreads(), blas


def test_as_it_was_afterwards() -> None:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        before = counts()
        with with_one_thread():
            assert counts() == (1, 1, {1})
        assert counts() == before
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
