"""One modality alone: project, add positions, encode, average over time, classify.

It is a model of its own, and each half of BalanceMLA: `embed` and `classify` are apart because the BRFF goes between them.
*Source:* Sec. 3.1; the mean over time before the head is ours.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig
from .base import FrameModel, Input, Output, Steps
from .blocks import Encoder, Project, encoder, masked_mean, positions


class Tower(nn.Module):
    """One modality from features to their encoded mean over time.

    Attributes:
        project: to the feature length that the ratio gives this modality.
        widen: from there to the model width; None where the projection gives it already.
    """

    def __init__(self, project: Project, widen: nn.Linear | None, encoder: Encoder, dropout: float):
        super().__init__()
        self.project = project
        self.widen = nn.Identity() if widen is None else widen
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)

    def embed(self, steps: Steps) -> Tensor:
        """(b, t, …) -> f of the paper, (b, t, d), positions included."""
        x: Tensor = self.widen(self.project(steps))
        return self.dropout(x + positions(x.shape[1], x.shape[2], self.project.rate_hz, x.device))

    def pool(self, features: Tensor, mask: Tensor) -> Tensor:
        """(b, t, d), (b, t) -> z, (b, d): the mean of the encoder's output; zero for a clip without this modality."""
        return masked_mean(self.encoder(features, mask), mask)

    def forward(self, steps: Steps) -> Tensor:
        """(b, t, …) -> z, (b, d)."""
        return self.pool(self.embed(steps), steps.mask)


class Branch(Tower):
    """A tower with a head: one modality from features to logits."""

    def __init__(self, project: Project, widen: nn.Linear | None, encoder: Encoder, head: nn.Linear, dropout: float):
        super().__init__(project, widen, encoder, dropout)
        self.head = head

    def classify(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(b, t, d), (b, t) -> log-probabilities (b, c), and the mean of the encoder's output (b, d)."""
        pooled = self.pool(features, mask)
        return F.log_softmax(self.head(pooled), -1), pooled


class SingleModality(FrameModel):
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

    def frames(self, steps: Steps) -> Tensor:
        branch = self.get_submodule(self.modality)
        assert isinstance(branch, Branch)
        encoded: Tensor = branch.encoder(branch.embed(steps), steps.mask)
        return encoded.masked_fill(~steps.mask[..., None], 0.0)


def tower(config: RunConfig, source: Input) -> Tower:
    """What `transformer-ao` and `transformer-vo` put before their heads."""
    return Tower(Project(source, config.width, config), None, encoder(config, config.width), config.dropout)
