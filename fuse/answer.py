"""What a run answers about clips that are in no store's table: features of each clip in, probabilities out.

A modality that a clip lacks is a mask that is False all along, as in training; the other one answers.

Shape legend: b clips of a batch, t steps, c classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..store.shard import ClipFeatures
from .attention import Looked, looking
from .models.base import MODALITIES, FusionModel, Input, Output, Steps

BATCH_CLIPS = 32


@dataclass(frozen=True)
class Attention:
    """Where the steps of one modality looked in the other.

    Attributes:
        weights: (t1, t2) float32: rows are the steps that ask; each sums to one over the valid steps of the other modality.
        added: (t1,) float32: how large what was taken from there is beside the step itself.
    """

    weights: np.ndarray
    added: np.ndarray


@dataclass(frozen=True)
class Answer:
    """About one clip.

    Attributes:
        result: (c,) float32 log-probabilities.
        heads: the same of each modality's own answer, by modality; of those that the model and the clip have.
        alpha: (1,) or (c,) float32, share of sound; None for a model without.
        attention: by the modality that asks; {} for a model without, or a clip that lacks a modality.
    """

    result: np.ndarray
    heads: dict[str, np.ndarray]
    alpha: np.ndarray | None
    attention: dict[str, Attention]


Clips = Sequence[Mapping[str, ClipFeatures]]


def answer(model: FusionModel, inputs: Mapping[str, Input], clips: Clips, *, attention: bool = False) -> list[Answer]:
    """Answers about some clips, in evaluation mode and in batches.

    Args:
        inputs: what one step of each modality is that the model takes.
        clips: each with the features of these modalities, or their failures; at least one of them has a valid step.
        attention: also note where the BRFF looked.
    """
    device = next(model.parameters()).device
    answers: list[Answer] = []
    model.eval()
    for first in range(0, len(clips), BATCH_CLIPS):
        group = clips[first : first + BATCH_CLIPS]
        steps = {m: padded([clip[m] for clip in group], inputs[m], device) for m in inputs}
        with torch.inference_mode():
            if attention:
                with looking(model) as seen:
                    output = model(steps.get("audio"), steps.get("visual"))
            else:
                seen, output = {}, model(steps.get("audio"), steps.get("visual"))
        answers += [one(i, output, steps, seen) for i in range(len(group))]
    return answers


def padded(clips: Sequence[ClipFeatures], source: Input, device: torch.device) -> Steps:
    """One modality of some clips, padded to the longest."""
    dtype = next(
        (c.values.dtype for c in clips if c.values is not None), np.dtype("uint8" if source.pixels else "float16")
    )
    t = max(1, *(len(c.values) for c in clips if c.values is not None), 1)
    values, mask = np.zeros((len(clips), t, *source.layout), dtype), np.zeros((len(clips), t), bool)
    for i, clip in enumerate(clips):
        if clip.values is not None and clip.valid is not None:
            values[i, : len(clip.values)], mask[i, : len(clip.valid)] = clip.values, clip.valid
    return Steps(torch.from_numpy(values).to(device), torch.from_numpy(mask).to(device))


def one(i: int, output: Output, steps: Mapping[str, Steps], seen: Mapping[str, Looked]) -> Answer:
    """The i-th clip's part of a batch."""
    lengths = {m: length(s.mask[i]) for m, s in steps.items()}
    heads = {"audio": output.audio, "visual": output.visual}
    looked = {}
    for asking, direction in seen.items():
        other = next(m for m in MODALITIES if m != asking)
        if lengths[asking] and lengths[other] and direction.added is not None:
            weights = direction.weights[i, : lengths[asking], : lengths[other]]
            looked[asking] = Attention(array(weights), array(direction.added[i, : lengths[asking]]))
    return Answer(
        array(output.result[i]),
        {m: array(head[i]) for m, head in heads.items() if head is not None and lengths.get(m)},
        None if output.alpha is None else array(output.alpha[i]),
        looked,
    )


def length(mask: Tensor) -> int:
    """Steps up to the last valid one."""
    valid = torch.nonzero(mask)
    return int(valid[-1]) + 1 if len(valid) else 0


def array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
