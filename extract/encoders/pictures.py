"""What encoders of faces and mouths share: crops of many clips in, through a network in bounded batches, features out.

Shape legend: T frames, B crops, S side of a crop, L features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..faces.crops import cropped
from ..faces.policy import FaceCrop, MouthCrop
from .base import FRAME_RATE_HZ, Crops, Features, Sight
from .device import DeviceBatch, fits, in_batches, laid_on
from .finite import place_of, to_float16

FRAME_LAW = f"T = max(1, round({FRAME_RATE_HZ} x seconds))"


@dataclass(frozen=True)
class CropsOf:
    """The first step of an encoder of pictures."""

    crop: FaceCrop | MouthCrop

    def prepare(self, clip: Sight) -> Crops:
        return Crops(cropped(clip, self.crop), clip.valid.copy())


def encode_crops(
    clips: Sequence[Crops],
    embed: Callable[[torch.Tensor, str], np.ndarray],
    batch: DeviceBatch,
    precision: str,
    device: torch.device,
) -> list[Features]:
    """Features of some clips' crops. Crops of several clips share batches: no picture may see another.

    Args:
        embed: (B, S, S, 3) uint8 and a precision -> (B, L) float32.
        batch: crops that go through the network at once.
        device: where `embed` gets them.
        precision: a clip whose values are not finite in half precision is embedded again in "fp32".

    Raises:
        MediaError: for values that are not finite in float16.
    """
    features: list[Features] = []
    for group in groups_of(clips, batch.size):
        crops = [three_channels(clip.images) for clip in group]
        ends = np.cumsum([len(own) for own in crops])

        def work(part: range, precision: str = precision, crops: Sequence[np.ndarray] = crops) -> np.ndarray:
            return embed(laid_on(between(crops, part.start, part.stop), device), precision)

        embedded = in_batches(work, range(ends[-1]), batch)
        for clip, own, end in zip(group, crops, ends, strict=True):
            places = range(end - len(own), end)
            values = np.stack(embedded[places.start : places.stop])  # (T, L)
            if not fits(values, precision):
                values = np.stack(in_batches(partial(work, precision="fp32"), places, batch))
            features.append(Features(to_float16(values, place_of(len(features), len(clips))), clip.valid.copy()))
    return features


def between(arrays: Sequence[np.ndarray], start: int, stop: int) -> list[np.ndarray]:
    """What lies from `start` to `stop` where the arrays are put end to end."""
    cut, first = [], 0
    for array in arrays:
        part = array[max(0, start - first) : max(0, stop - first)]
        first += len(array)
        if len(part):
            cut.append(part)
    return cut


def groups_of(clips: Sequence[Crops], frames: int) -> Iterator[list[Crops]]:
    """Runs of clips with just enough crops for one batch, so that few are laid end to end at a time."""
    group: list[Crops] = []
    for clip in clips:
        group.append(clip)
        if sum(len(c.images) for c in group) >= frames:
            yield group
            group = []
    if group:
        yield group


def three_channels(crops: np.ndarray) -> np.ndarray:
    """(T, S, S, 3) as it is; (T, S, S) grey three times: what networks for colour are given."""
    return crops if crops.ndim == 4 else np.repeat(crops[..., None], 3, axis=3)
