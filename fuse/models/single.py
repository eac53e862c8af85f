"""One modality alone: project, add positions, encode, average over time, classify.

It is a model of its own, and each half of BalanceMLA: `embed` and `classify` are apart because the BRFF goes between them.
*Source:* Sec. 3.1; the mean over time before the linear head is ours.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from .base import FusionModel, Output, Steps
from .blocks import Encoder, Project, masked_mean, positions


class Branch(nn.Module):
    """One modality from features to logits.

    Attributes:
        project: to the feature length that the ratio gives this modality.
        widen: from there to the model width; None where the projection gives it already.
    """

    def __init__(
        self, project: Project, widen: nn.Linear | None, encoder: Encoder, width: int, classes: int, dropout: float
    ):
        super().__init__()
        self.project = project
        self.widen = nn.Identity() if widen is None else widen
        self.encoder = encoder
        self.head = nn.Linear(width, classes)
        self.dropout = nn.Dropout(dropout)

    def embed(self, steps: Steps) -> Tensor:
        """(b, t, l) -> f of the paper, (b, t, d), positions included."""
        x: Tensor = self.widen(self.project(steps))
        return self.dropout(x + positions(x.shape[1], x.shape[2], self.project.rate_hz, x.device))

    def classify(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(b, t, d), (b, t) -> log-probabilities (b, c), and the mean of the encoder's output (b, d)."""
        pooled = masked_mean(self.encoder(features, mask), mask)
        return F.log_softmax(self.head(pooled), -1), pooled


class SingleModality(FusionModel):
    """A branch as a model of its own."""

    def __init__(self, modality: str, branch: Branch):
        super().__init__()
        self.modality = modality
        self.add_module(modality, branch)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        steps = audio if self.modality == "audio" else visual
        assert steps is not None  # the table says which one this model takes
        branch = self.get_submodule(self.modality)
        assert isinstance(branch, Branch)
        result, pooled = branch.classify(branch.embed(steps), steps.mask)
        return Output(result, **{f"pooled_{self.modality}": pooled})
