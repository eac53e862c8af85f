"""The device that a model runs on, and how exactly it computes there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...store.errors import UsageError


def pick_device(name: str) -> torch.device:
    """Raises UsageError for a name that torch does not know or a device that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f'unknown device "{name}": expected cpu, cuda or cuda:0') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f'device "{name}" is not there: torch sees {torch.cuda.device_count()} CUDA devices')
    return device


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions on a GPU in true float32 and the same each time.

    By default they run in TF32, whose 10 bits would make a store filled on a GPU differ from one filled on a CPU, though
    both have one specification.
    """
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
