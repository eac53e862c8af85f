"""Mean losses over the clips of an epoch, for methods that compare them with those on clips that are set apart."""

import torch
from torch import Tensor, nn

from .base import Step

LOSSES = ("result", "audio", "visual")
HELD = ("held_loss", "held_loss_audio", "held_loss_visual")  # their names in an epoch's figures


class MeanLosses(nn.Module):
    """Sums and counts, (3,) each: of -log p of the true class by the model's answer, by sound's and by sight's own.

    Without class weights and smoothing, as the losses on the clips that are set apart are; of mixed clips, without the entropy of their
    labels, which is no fault of an answer.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(3))
        self.register_buffer("counts", torch.zeros(3))

    @torch.no_grad()
    def add(self, step: Step) -> None:
        for i, (name, steps) in enumerate(zip(LOSSES, (None, step.audio, step.visual), strict=True)):
            logs: Tensor = getattr(step.output, name)
            there = torch.ones_like(step.labels, dtype=torch.bool) if steps is None else steps.present
            each = -step.true(logs.float()) - step.label_entropy
            self.sums[i] += torch.where(there, each, torch.zeros_like(each)).sum()
            self.counts[i] += there.sum()

    def take(self) -> Tensor:
        """(3,) the means, NaN where there was no clip; and begins anew."""
        means = self.sums / self.counts
        self.sums.zero_()
        self.counts.zero_()
        return means
