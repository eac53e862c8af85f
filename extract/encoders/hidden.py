"""What encoders of hidden states share: layers kept of those that there are, clips in batches of equal length.

Shape legend: B clips, T steps, K layers kept, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .base import Features
from .device import DeviceBatch, fits, in_batches
from .finite import place_of, to_float16
from .parameters import SpeechOptions


def kept(hidden: Sequence[torch.Tensor], layers: Sequence[int], several: bool) -> np.ndarray:
    """Hidden states (B, T, D) -> (B, T, K, D) float32, or (B, T, D) of one."""
    chosen = [hidden[k] for k in layers]
    values = torch.stack(chosen, dim=2) if several else chosen[0]
    return values.float().cpu().numpy()


def describe_layers(options: SpeechOptions, layers: Sequence[int], last: int) -> dict[str, Any]:
    """For the stream specification: the layers kept, and how many there are."""
    return {"layer": list(layers) if options.several else layers[0], "layers": last}


def finish_by_length(
    prepared: Sequence[Any],
    lengths: Sequence[int],
    valid: Sequence[np.ndarray | None],
    forward: Callable[[Sequence[Any], str], np.ndarray],
    batch: DeviceBatch,
    precision: str,
) -> list[Features]:
    """Features of some clips, of which only those of one length share a batch.

    Args:
        lengths: what a clip costs; clips of one length can be laid on each other.
        valid: (T,) of each clip; None: all its steps are valid.
        forward: clips of one length and a precision -> (B, T, …) float32.
        precision: a clip whose values are not finite in half precision is computed again in "fp32".

    Raises:
        MediaError: for values that are not finite in float16.
    """
    alike: dict[int, list[Any]] = {}
    for clip, length in zip(prepared, lengths, strict=True):
        alike.setdefault(length, []).append(clip)
    results = {
        length: iter(in_batches(lambda part: forward(part, precision), clips, batch, cost=max(1, length)))
        for length, clips in alike.items()
    }
    features = []
    for i, (clip, length) in enumerate(zip(prepared, lengths, strict=True)):
        values = next(results[length])
        if not fits(values, precision):
            values = forward([clip], "fp32")[0]
        mask = valid[i]
        features.append(
            Features(
                to_float16(values, place_of(i, len(prepared))),
                np.ones(len(values), bool) if mask is None else mask.copy(),
            )
        )
    return features
