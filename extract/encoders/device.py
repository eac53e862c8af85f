"""The device that a model runs on: how exactly it computes there, how much at once, and how pictures get there."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


class Compiled:
    """A network through torch.compile; for good as it is, and with one line in the log, where that fails.

    The same numbers to rounding, as on another device: no part of the stream specification.
    """

    def __init__(self, network: Any):
        self.network = network
        self.compiled: Any = torch.compile(network, dynamic=True)  # the number of clips and their lengths change

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if self.compiled is not None:
            try:
                return self.compiled(*inputs, **named)
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                raise
            except Exception as error:  # whatever it is that the compiler, or the one that it calls, stumbles over
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                logging.getLogger("bmla").warning("torch.compile failed, going on without it: %.200s", reason)
                self.compiled = None
        return self.network(*inputs, **named)


def called(network: Any, compiled: bool, *ways: str) -> Any:
    """What to call in place of a network. Of one with several ways in, its methods of these names, each for itself."""
    if ways:
        return SimpleNamespace(**{way: called(getattr(network, way), compiled) for way in ways})
    return Compiled(network) if compiled else network


def laid_on(arrays: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """np.concatenate, on the device. What lies in page-locked memory a GPU reads by itself while this process goes on:
    it may not change before the next result has been fetched from there.

    Args:
        arrays: uint8, alike in all but the first dimension.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.concatenate(arrays))
    laid = torch.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), dtype=torch.uint8, device=device)
    for part, array in zip(laid.split([len(array) for array in arrays]), arrays, strict=True):
        part.copy_(as_tensor(array), non_blocking=True)
    return laid


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor. torch takes no negative strides and warns of arrays that can't be written to: such are copied."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def order_of(device: torch.device, precision: str) -> torch.memory_format:
    """The order of pictures in memory in which a network that convolves is fastest.

    Channels last: a quarter less time on a CPU, and what the matrix units of a GPU want. Convolutions in true float32 have none, and turn
    everything round for each layer: channels first saved them an eighth (InceptionResnetV1 on an H200).
    """
    return torch.contiguous_format if device.type == "cuda" and precision == "fp32" else torch.channels_last


@dataclass
class DeviceBatch:
    """How much goes through a network at once; halved for good where the device's memory does not hold it.

    Attributes:
        size: in items or, where items differ in cost, in units of cost.
    """

    size: int


def device_batch(device: torch.device, size: int) -> DeviceBatch:
    """So much on a CPU, whose caches it should fit; on a GPU eight times as much.

    A GPU does an item's work in less time than its process needs to ask for it: on an H200, 64 faces at a time took as long in half
    precision as in full.
    """
    return DeviceBatch(size * (1 if device.type == "cpu" else 8))


def in_batches(
    work: Callable[[Any], Iterable[Any]], items: Sequence[Any], batch: DeviceBatch, cost: int = 1
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
