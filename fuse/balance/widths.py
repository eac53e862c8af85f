"""What a method needs to know of a model before it is built: how long z of each modality is."""

import torch

from ...store.errors import UsageError
from ..models.base import FusionModel, Steps
from .base import MODALITIES

PROBE_STEPS = 16


@torch.no_grad()
def pooled_widths(model: FusionModel, method: str) -> dict[str, int]:
    """The length of z of each modality: one clip of mean features is shown to the model, in evaluation mode.

    Raises:
        UsageError: the model joins its modalities before they are pooled, so that there is no z.
    """
    clip = [probe(model, modality) for modality in MODALITIES]
    training = model.training
    output = model.eval()(*clip)
    model.train(training)
    if output.pooled_audio is None or output.pooled_visual is None:
        raise UsageError(
            f"balance {method}: the model has no pooled features of each modality (Output.pooled_audio, …)"
        )
    return {"audio": output.pooled_audio.shape[1], "visual": output.pooled_visual.shape[1]}


def probe(model: FusionModel, modality: str) -> Steps:
    mean = model.mean_of(modality)
    mask = torch.ones(1, PROBE_STEPS, dtype=torch.bool, device=mean.device)
    return Steps(mean.expand(1, PROBE_STEPS, *model.inputs[modality].layout), mask)
