"""The Transformer backbone of Sec. 3: one modality alone, or both concatenated in a given proportion of feature lengths.

*Source:* Sec. 3.1 and 4.1.2: 6 layers (8 and 12 tried), 8 heads, dropout 0.1, "variability in feature lengths during the fusion
stage with a concatenation approach". Ours: widths, sinusoidal positions in seconds, the mean over time before the linear
head, and pooling the faster stream to the slower one's rate.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig
from ..ratio import parse_ratio, widths
from .align import concatenate, pool_to_rate
from .base import FusionModel, Input, Output, Steps
from .blocks import Encoder, Project, encoder, masked_mean, positions
from .single import Branch, SingleModality
from .table import takes


class ConcatTransformer(FusionModel):
    """Project each modality, concatenate step by step, encode, average over time, classify."""

    def __init__(self, audio: Project, visual: Project, encoder: Encoder, width: int, classes: int, dropout: float):
        """Args: width: of `encoder`, the sum of what the two projections give."""
        super().__init__()
        self.audio, self.visual, self.encoder = audio, visual, encoder
        self.rate_hz = min(audio.rate_hz, visual.rate_hz)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        x, mask = self.join(audio, visual)
        x = self.dropout(x + positions(x.shape[1], x.shape[2], self.rate_hz, x.device))
        return Output(F.log_softmax(self.head(masked_mean(self.encoder(x, mask), mask)), -1))

    def join(self, audio: Steps, visual: Steps) -> tuple[Tensor, Tensor]:
        """(b, t, …), (b, t, …) -> (b, t, d), (b, t): both projected, side by side, at the slower rate."""
        return concatenate(self.project(self.audio, audio), self.project(self.visual, visual))

    def project(self, project: Project, steps: Steps) -> Steps:
        """Pooled first: a mean of projections is the projection of the mean, at half the work."""
        pooled = pool_to_rate(Steps(project.features(steps), steps.mask), project.rate_hz, self.rate_hz)
        values: Tensor = project.linear(pooled.values)
        return Steps(values, pooled.mask)


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    if takes(config.model) != ("audio", "visual"):
        (modality,) = takes(config.model)
        project = Project(inputs[modality], config.width, config)
        alone = Branch(project, None, encoder(config, config.width), nn.Linear(config.width, classes), config.dropout)
        return SingleModality(modality, alone)
    lengths = widths(parse_ratio(config.ratio), config.width, config.heads, config.ratio_mode)
    audio, visual = (Project(inputs[m], length, config) for m, length in zip(("audio", "visual"), lengths, strict=True))
    width = sum(lengths)
    return ConcatTransformer(audio, visual, encoder(config, width), width, classes, config.dropout)
