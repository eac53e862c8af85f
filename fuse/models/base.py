"""What every model takes and gives.

Shape legend, for all of `models/`: b clips, t steps, l feature length of a stream, d model width, c classes, h heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Input(NamedTuple):
    """What one step of a stream is: l numbers, rate_hz times a second."""

    length: int
    rate_hz: float


class Steps(NamedTuple):
    """Some clips of one modality, padded to the longest.

    Attributes:
        values: (b, t, l); what stands at an invalid step is never used, be it NaN.
        mask: (b, t) bool: the step is valid. A clip without this modality is False all along.
    """

    values: Tensor
    mask: Tensor

    @property
    def present(self) -> Tensor:
        """(b,) bool: the clip has this modality."""
        return self.mask.any(1)


class Output(NamedTuple):
    """Log-probabilities of some clips.

    Attributes:
        result: (b, c): the model's answer.
        audio, visual: (b, c): the answer of each branch, for models whose branches have heads of their own; None
            otherwise. Without meaning for a clip that lacks the modality.
        alpha: (b, 1) or (b, c): the share of the audio branch in the result; None for models without decision fusion.
    """

    result: Tensor
    audio: Tensor | None = None
    visual: Tensor | None = None
    alpha: Tensor | None = None


class Standardise(nn.Module):
    """x -> (x - mean) / std per feature; the statistics are buffers, so that saved weights are complete."""

    mean: Tensor
    std: Tensor

    def __init__(self, length: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("std", torch.ones(length))

    def forward(self, steps: Steps) -> Tensor:
        """(b, t, l) float32, zero (the mean) at invalid steps."""
        values = (steps.values.float() - self.mean) / self.std
        return values.masked_fill(~steps.mask[..., None], 0.0)


class FusionModel(nn.Module):
    """A model of `table.py`. Its parts for one modality alone are named `audio…` and `visual…`."""

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        """Args: the modalities that the model takes; a clip needs at least one valid step in one of them."""
        raise NotImplementedError

    def set_statistics(self, modality: str, mean: Tensor, std: Tensor) -> None:
        """Gives every standardisation of a modality its statistics, (l,) each."""
        for part in self.get_submodule(modality).modules():
            if isinstance(part, Standardise):
                part.mean.copy_(mean)
                part.std.copy_(std)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each modality's own parts, and those that both share."""
        groups: dict[str, list[nn.Parameter]] = {"audio": [], "visual": [], "shared": []}
        for name, parameter in self.named_parameters():
            owner = name.split(".")[0].split("_")[0]
            groups[owner if owner in groups else "shared"].append(parameter)
        return {owner: parameters for owner, parameters in groups.items() if parameters}


def loss(
    output: Output,
    audio: Steps | None,
    visual: Steps | None,
    labels: Tensor,
    lambdas: dict[str, float],
    class_weights: Tensor | None,
) -> Tensor:
    """CE(result) + lambda_a CE(audio) + lambda_v CE(visual); a branch is not asked about clips that lack its modality.

    *Source:* "independently adjust the objectives of each modality" (abstract); the paper gives no formula, this one is ours.
    """
    total = F.nll_loss(output.result, labels, weight=class_weights)
    for modality, steps, answer in (("audio", audio, output.audio), ("visual", visual, output.visual)):
        if steps is not None and answer is not None and lambdas[modality] > 0:
            present = steps.present.to(answer.dtype)
            weight = present if class_weights is None else present * class_weights[labels]
            each = F.nll_loss(answer, labels, reduction="none") * weight
            total = total + lambdas[modality] * each.sum() / weight.sum().clamp(min=1e-12)
    return total
