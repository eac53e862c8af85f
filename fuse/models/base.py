"""What every model takes and gives.

Shape legend, for all of `models/`: b clips, t steps, l feature length of a stream, d model width, c classes, h heads.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .kinds import kind_of

MODALITIES = ("audio", "visual")


class Input(NamedTuple):
    """What one step of a stream is, rate_hz times a second.

    Attributes:
        length: l, how many numbers.
        shape: how they lie, where a step is no vector; see `kinds.py`.
        pixels: they are uint8.
    """

    length: int
    rate_hz: float
    shape: tuple[int, ...] = ()
    pixels: bool = False

    @property
    def layout(self) -> tuple[int, ...]:
        """The shape of a step, (l,) of a vector."""
        return self.shape or (self.length,)

    @property
    def kind(self) -> str | None:
        return kind_of(self.layout, self.pixels)


class Steps(NamedTuple):
    """Some clips of one modality, padded to the longest.

    Attributes:
        values: (b, t, l), or (b, t, …) of pictures and stacks; what stands at an invalid step is never used, be it NaN.
        mask: (b, t) bool: the step is valid. A clip without this modality is False all along.
    """

    values: Tensor
    mask: Tensor

    @property
    def present(self) -> Tensor:
        """(b,) bool: the clip has this modality."""
        return self.mask.any(1)

    def absent(self) -> "Steps":
        """The same clips without this modality."""
        return Steps(self.values, torch.zeros_like(self.mask))


class Output(NamedTuple):
    """Log-probabilities of some clips.

    Attributes:
        result: (b, c): the model's answer.
        audio, visual: (b, c): the answer of each branch, for models whose branches have heads of their own; None
            otherwise. Without meaning for a clip that lacks the modality.
        alpha: (b, 1) or (b, c): the share of the audio branch in the result; None for models without decision fusion.
        pooled_audio, pooled_visual: (b, d_m): z of each modality, what its answer is read from; None for models that join the
            modalities before they are pooled. Zero for a clip that lacks the modality.
    """

    result: Tensor
    audio: Tensor | None = None
    visual: Tensor | None = None
    alpha: Tensor | None = None
    pooled_audio: Tensor | None = None
    pooled_visual: Tensor | None = None


class Standardise(nn.Module):
    """x -> (x - mean) / std; the statistics are buffers, so that saved weights are complete.

    Args of init:
        shape: of the statistics, which are broadcast over a step: (l,) is one a feature, (k, 1) one a vector of a stack.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def take(self, mean: Tensor, std: Tensor) -> None:
        """Statistics of a stream; those of single features become one of each vector where that is what is kept."""
        if mean.shape != self.mean.shape:
            square = (std.square() + mean.square()).mean(-1, keepdim=True)
            mean = mean.mean(-1, keepdim=True)
            std = (square - mean.square()).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, steps: Steps) -> Tensor:
        """(b, t, …) float32, zero (the mean) at invalid steps."""
        values = (steps.values.float() - self.mean) / self.std
        return values.masked_fill(~steps.mask.view(*steps.mask.shape, *(1,) * (values.ndim - 2)), 0.0)


class FusionModel(nn.Module, ABC):
    """A model of `table.py`. Its parts for one modality alone are named `audio…` and `visual…`.

    Attributes:
        inputs: what a step of each modality that it takes is; `table.build` says so.
    """

    inputs: Mapping[str, Input]

    @abstractmethod
    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        """Args: the modalities that the model takes; a clip needs at least one valid step in one of them."""

    def gives(self) -> frozenset[str] | None:
        """What there is of `balance.table.NEEDS`; None for a model of the table, of which it is known."""
        return None

    def set_statistics(self, modality: str, mean: Tensor, std: Tensor) -> None:
        """Gives every standardisation of a modality its statistics; see `Stream.statistics`."""
        for part in self.get_submodule(modality).modules():
            if isinstance(part, Standardise):
                part.take(mean, std)

    def mean_of(self, modality: str) -> Tensor:
        """What `set_statistics` said is the mean of a step, as it is kept: it is broadcast over a step."""
        return next(p.mean for p in self.get_submodule(modality).modules() if isinstance(p, Standardise))

    def start_from(self, branches: Mapping[str, "FusionModel"]) -> None:
        """Takes over trained models of one modality; a branch that is not given keeps its fresh weights."""
        for modality, model in branches.items():
            self.get_submodule(modality).load_state_dict(model.get_submodule(modality).state_dict())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each modality's own parts, and those that both share."""
        groups: dict[str, list[nn.Parameter]] = {"audio": [], "visual": [], "shared": []}
        for name, parameter in self.named_parameters():
            groups[self.group_of(name)].append(parameter)
        return {owner: parameters for owner, parameters in groups.items() if parameters}

    def group_of(self, name: str) -> str:
        """Of `parameter_groups`: that of a parameter, by its name."""
        owner = name.split(".")[0].split("_")[0]
        return owner if owner in MODALITIES else "shared"


class FrameModel(FusionModel):
    """A model of one modality that has features of each step, on which others can be trained."""

    @abstractmethod
    def frames(self, steps: Steps) -> Tensor:
        """(b, t, …) -> (b, t, d): what the head gets the mean over time of, zero at invalid steps."""


class Losses(NamedTuple):
    """Cross-entropies of some clips, scalars; None for a modality without an answer of its own."""

    result: Tensor
    audio: Tensor | None
    visual: Tensor | None


def losses(
    output: Output,
    audio: Steps | None,
    visual: Steps | None,
    labels: Tensor,
    class_weights: Tensor | None = None,
    smoothing: float = 0.0,
    share: Tensor | None = None,
) -> Losses:
    """The mean cross-entropy of the result, and that of each modality over the clips that have it.

    Args:
        labels: (b,) int64.
        class_weights: (c,) factors on the clips of each class; None: all ones.
        smoothing: of the labels, 0 to below 1: that share of the target is spread evenly over all classes.
        share: see `cross_entropy`.
    """
    per_modality = (
        None
        if steps is None or answer is None
        else cross_entropy(answer, labels, class_weights, smoothing, steps.present, share)
        for steps, answer in ((audio, output.audio), (visual, output.visual))
    )
    return Losses(cross_entropy(output.result, labels, class_weights, smoothing, share=share), *per_modality)


def of_true_class(values: Tensor, labels: Tensor) -> Tensor:
    """(…, c), (…) -> (…): what stands at each clip's label."""
    return values.gather(-1, labels[..., None])[..., 0]


def clip_losses(logs: Tensor, labels: Tensor, smoothing: float | Tensor) -> Tensor:
    """(…, b, c) log-probabilities, (…, b) -> (…, b): the cross-entropy of each clip.

    Args:
        smoothing: of the labels; a tensor is broadcast over the clips.
    """
    each = -of_true_class(logs, labels)
    return (
        each if isinstance(smoothing, float) and not smoothing else (1 - smoothing) * each - smoothing * logs.mean(-1)
    )


def weighted_mean(each: Tensor, weight: Tensor) -> Tensor:
    """(…, b), (…, b) -> (…); zero where nothing has a weight."""
    return (each * weight).sum(-1) / weight.sum(-1).clamp(min=1e-12)


def cross_entropy(
    logs: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    smoothing: float = 0.0,
    present: Tensor | None = None,
    share: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over the clips that are present, weighted by class; zero where none is.

    Args:
        logs: (b, c) log-probabilities.
        present: (b,) bool; None: all are.
        share: (b,) of each clip's loss that counts (mixup); None: all of it.
    """
    each = clip_losses(logs, labels, smoothing)
    if share is not None:
        each = each * share
    if present is None and class_weights is None:
        return each.mean()
    weight = torch.ones_like(each) if class_weights is None else class_weights[labels]
    if present is not None:
        weight = weight * present
    return weighted_mean(each, weight)
