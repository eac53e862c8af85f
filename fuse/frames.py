"""What a trained model of one modality hands to its head before the mean over time: features a step, for other models to be trained on.

*Source:* the paper trains its single-modality models first (Sec. 4.1.2); which of a model's vectors are kept is ours: the last ones
that still have a time, so that all that the model learnt of the stream is in them.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..store.errors import UsageError
from .models.base import FrameModel, Steps
from .models.table import MODELS, takes
from .run import Run

CLIPS_AT_ONCE = 16
FRAMES = {
    "stconv": "the front end's vector of each step",
    "bgru": "the outputs of the last recurrent layer, both directions",
    "transformer": "the encoder's outputs",
    "balancemla": "the encoder's outputs",
}


def frames_of(model: str) -> str:
    """Which vectors are kept, in words. Raises UsageError for a model that has none of one modality."""
    kinds = {name: FRAMES[kind] for name in MODELS if (kind := name.rpartition("-")[0]) in FRAMES}
    if model not in kinds:
        raise UsageError(f"{model} has no features a step of one modality; runs of these have: {', '.join(kinds)}")
    return kinds[model]


class FrameFeatures:
    """A run's trained front end.

    Raises of init:
        UsageError: the model has no features a step of one modality.
        RunDamaged: the weights can't be used.
    """

    def __init__(self, run: Run, device: torch.device | str = "cpu"):
        self.described = frames_of(run.config.model)
        (self.modality,) = takes(run.config.model)
        model = run.model(device)
        assert isinstance(model, FrameModel)  # the kinds of FRAMES are
        self.model = model
        self.device = torch.device(device)
        head = self.model.get_submodule(f"{self.modality}.head")
        assert isinstance(head, torch.nn.Linear)
        self.length = head.in_features

    def __call__(self, clips: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Clips of (t, …) values and (t,) validity -> (t, d) float32 each, zero at invalid steps."""
        found: list[np.ndarray] = []
        for i in range(0, len(clips), CLIPS_AT_ONCE):
            part = clips[i : i + CLIPS_AT_ONCE]
            with torch.inference_mode():
                frames = self.model.frames(padded(part, self.device)).float().cpu().numpy()
            found += [own[: len(valid)] for own, (_, valid) in zip(frames, part, strict=True)]
        return found


def padded(clips: Sequence[tuple[np.ndarray, np.ndarray]], device: torch.device) -> Steps:
    """As a stream's batch: the clips laid side by side, padded to the longest."""
    first, t = clips[0][0], max(len(valid) for _, valid in clips)
    values, mask = np.zeros((len(clips), t, *first.shape[1:]), first.dtype), np.zeros((len(clips), t), bool)
    for row, (own, valid) in enumerate(clips):
        values[row, : len(own)], mask[row, : len(own)] = own, valid
    return Steps(torch.from_numpy(values).to(device), torch.from_numpy(mask).to(device))
