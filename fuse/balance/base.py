"""What a balance method may change about a step of training. This one changes nothing: it is `none`.

The epoch loop of `epochs.py` asks seven questions of it, in this order:

    inputs     which modalities of which clips does the model see?          (modality dropout)
    objective  what is minimised?                                           (joint-aux, G-Blending, UMT, PMR)
    backward   how do gradients come from it?                               (MMPareto, MLA)
    gradients  what is done to the gradients themselves?                    (OGM-GE)
    scales     by which factor is each parameter group's update shrunk?     (OGM, AGM)
    updated    what is corrected once the update is made?                   (MLA)
    end_epoch  what does it learn from an epoch's figures?                  (G-Blending, adaptive)

A method is a module, so that what it remembers (running means, prototypes, teachers) are its buffers and submodules: they move
to the device, and are saved and loaded, with everything else. Its parameters, where it has any, are trained with the model's.

Shape legend: see `models/base.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..mixup import Mixed
from ..models.base import MODALITIES, FusionModel, Losses, Output, Steps, losses, of_true_class

if TYPE_CHECKING:
    from ..config import RunConfig


@dataclass(frozen=True)
class Step:
    """One batch and what the model answered.

    Attributes:
        audio, visual: as the model saw them.
        labels: (b,) int64.
        class_weights, smoothing: of every cross-entropy; see `models.base.losses`.
        mixed: with which other clips they were mixed, and how much; None: with none. See `mixup.py`.
    """

    model: FusionModel
    audio: Steps | None
    visual: Steps | None
    labels: Tensor
    output: Output
    class_weights: Tensor | None = None
    smoothing: float = 0.0
    mixed: Mixed | None = None

    @cached_property
    def losses(self) -> Losses:
        """Of the model's own answers."""
        return self.of(self.output)

    def of(self, output: Output) -> Losses:
        """Of other answers about the same clips."""
        rest = self.class_weights, self.smoothing
        if self.mixed is None:
            return losses(output, self.audio, self.visual, self.labels, *rest)
        own = losses(output, self.audio, self.visual, self.labels, *rest, self.mixed.share)
        other = losses(output, self.audio, self.visual, self.mixed.other, *rest, 1 - self.mixed.share)
        return Losses(own.result + other.result, summed(own.audio, other.audio), summed(own.visual, other.visual))

    @property
    def truths(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Labels (b,), each with the share (b,) of the clip that it is true of: one pair, or two where clips are mixed."""
        if self.mixed is None:
            return ((self.labels, torch.ones_like(self.labels, dtype=torch.float32)),)
        return (self.labels, self.mixed.share), (self.mixed.other, 1 - self.mixed.share)

    def true(self, values: Tensor) -> Tensor:
        """(b, c) -> (b,): what stands at each clip's label; of a mixed clip, at both labels, in their shares."""
        return torch.stack([share * of_true_class(values, labels) for labels, share in self.truths]).sum(0)

    @property
    def label_entropy(self) -> Tensor:
        """(b,) nats: of each clip's mixture of labels, below which no cross-entropy can fall; zero of clips that are not mixed."""
        if self.mixed is None:
            return torch.zeros(len(self.labels), device=self.labels.device)
        share = self.mixed.share
        entropy = -torch.xlogy(share, share) - torch.xlogy(1 - share, 1 - share)
        return entropy.masked_fill(self.labels == self.mixed.other, 0.0)

    @property
    def both(self) -> Tensor:
        """(b,) bool: the clips that have both modalities, the only ones between which anything can be balanced."""
        present = [s.present for s in (self.audio, self.visual) if s is not None]
        return torch.stack(present).all(0) if len(present) == 2 else torch.zeros_like(present[0])

    def unimodal(self) -> tuple[Tensor, Tensor]:
        """(b, c) log-probabilities of each modality alone, audio first, for methods that compare them; no gradient.

        A model whose modalities have no answers of their own is asked again, once without each.
        """
        if self.output.audio is not None and self.output.visual is not None:
            return self.output.audio.detach(), self.output.visual.detach()
        return self.alone()

    def alone(self) -> tuple[Tensor, Tensor]:
        """(b, c) log-probabilities of the model shown sound alone, and sight alone; no gradient."""
        assert self.audio is not None  # models of one modality are not balanced
        assert self.visual is not None
        with torch.no_grad():
            return (
                self.model(self.audio, self.visual.absent()).result,
                self.model(self.audio.absent(), self.visual).result,
            )


def summed(own: Tensor | None, other: Tensor | None) -> Tensor | None:
    """None for a modality without an answer of its own."""
    return None if own is None or other is None else own + other


def true_class_scores(step: Step, answers: tuple[Tensor, Tensor]) -> Tensor:
    """(2,) the probability of the true class by each modality's answers, summed over the clips that have both."""
    each = torch.stack([step.true(logs.float().exp()) for logs in answers], 1)
    return (each * step.both[:, None]).sum(0)


def discrepancy(scores: Tensor) -> Tensor:
    """(2,) rho of each modality: its score over the other's; one where there was no clip to compare.

    *Source:* OGM-GE (Peng et al., 2022).
    """
    tiny = torch.finfo(scores.dtype).tiny
    return torch.where(scores.sum() > 0, scores / scores.flip(0).clamp(min=tiny), torch.ones_like(scores))


def by_modality(values: Tensor) -> dict[str, Tensor]:
    """(2,) as `Balance.scales` gives it."""
    return dict(zip(MODALITIES, values, strict=True))


class Balance(nn.Module):
    """See the module. Methods override what they change.

    Attributes:
        turns: steps that are taken on each batch, one after another.
    """

    turns = 1

    def __init__(self, config: "RunConfig"):
        super().__init__()
        self.lambdas: dict[str, float] = {"audio": config.lambda_audio, "visual": config.lambda_visual}
        self.modality_dropout = config.modality_dropout

    def inputs(self, audio: Steps | None, visual: Steps | None) -> tuple[Steps | None, Steps | None]:
        """The batch that the model shall see. Random choices come from torch's global generator, which the run seeds.

        Modality dropout: of that share of the clips with both modalities one is hidden, either as often.
        """
        if audio is None or visual is None or self.modality_dropout == 0:
            return audio, visual
        draw = torch.rand(len(audio.mask), device=audio.mask.device)
        both = audio.present & visual.present
        hide_audio = both & (draw < self.modality_dropout / 2)
        hide_visual = both & ~hide_audio & (draw < self.modality_dropout)
        return hide(audio, hide_audio), hide(visual, hide_visual)

    def objective(self, step: Step) -> Tensor:
        """Scalar: CE(result) + lambda_a CE(audio) + lambda_v CE(visual), for models whose modalities have heads.

        *Source:* "independently adjust the objectives of each modality" (abstract); the paper gives no formula, this one is ours.
        """
        total = step.losses.result
        for modality in MODALITIES:
            own: Tensor | None = getattr(step.losses, modality)
            if own is not None and self.lambdas[modality] > 0:
                total = total + self.lambdas[modality] * own
        return total

    def backward(self, step: Step) -> Tensor:
        """Leaves gradients in every parameter's `.grad` (which are None before), and returns the loss to report, scalar."""
        total = self.objective(step)
        total.backward()
        return total.detach()

    def gradients(self, step: Step) -> None:
        """Called when every parameter of the model has its gradient, in `.grad`, before they are clipped."""

    def scales(self, step: Step) -> Mapping[str, Tensor]:
        """Scalars by parameter group ("audio", "visual", "shared"); a group that is not named keeps its whole update.

        A factor on the *update*: AdamW divides a factor on the gradient out again.
        """
        return {}

    def updated(self, step: Step) -> None:
        """Called after the parameters have changed."""

    def end_epoch(self, epoch: Mapping[str, Any]) -> None:
        """Called with the figures of each epoch (`train_loss`, …) before the next begins.

        Where `config.holdout` sets clips apart: `held_loss`, `held_loss_audio`, `held_loss_visual` are the losses on them. Those
        on dev choose the epoch, so that no method may use them.
        """

    def figures(self) -> dict[str, float]:
        """What this method did since the last call, for the epoch's line in the metrics file."""
        return {}


def hide(steps: Steps, clips: Tensor) -> Steps:
    """The same steps, without those of some clips, (b,) bool."""
    return Steps(steps.values, steps.mask & ~clips[:, None])
