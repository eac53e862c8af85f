"""The device that a model runs on: how exactly it computes there, and how much at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...store.errors import UsageError

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """A network without gradients in "fp32", or in "bf16" / "fp16" by autocast: sums, norms and softmax stay in float32."""
    half = HALVES.get(precision)
    with (
        torch.inference_mode(),
        full_precision(),
        torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None),
    ):
        yield


def describe_precision(precision: str) -> dict[str, str]:
    """For the stream specification. Full precision goes without saying."""
    return {} if precision == "fp32" else {"precision": precision, "not_finite": "again in fp32"}


def fits(values: np.ndarray, precision: str) -> bool:
    """False where half precision made numbers that are none, so that a clip is to be computed again in "fp32"."""
    return precision == "fp32" or bool(np.isfinite(values).all())


@dataclass
class DeviceBatch:
    """How much goes through a network at once; halved for good where the device's memory does not hold it.

    Attributes:
        size: in items or, where items differ in cost, in units of cost.
    """

    size: int


def in_batches(
    work: Callable[[Any], Iterable[Any]], items: Sequence[Any] | np.ndarray, batch: DeviceBatch, cost: int = 1
) -> list[Any]:
    """The work's results, one an item, in order.

    Args:
        work: gets some consecutive items and gives one result for each.
        batch: shrinks to what fits, for this call and all later ones.
        cost: of each item, in the unit of the batch's size; an item that costs more than that goes alone.

    Raises:
        torch.OutOfMemoryError: not even one item fits.
    """
    results: list[Any] = []
    while len(results) < len(items):
        part = items[len(results) :][: max(1, batch.size // cost)]
        try:
            results.extend(work(part))  # += would add up where the results are an array
            continue
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
        # Out of the handler: the error would keep the tensors of the failed try alive.
        torch.cuda.empty_cache()
        batch.size = len(part) // 2 * cost
    return results
