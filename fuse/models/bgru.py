"""The spatio-temporal convolution and the bidirectional GRU of Table 1, on one modality.

    stconv   front end -> mean over time -> linear head
    bgru     front end -> 2-layer bidirectional GRU of 1024 units -> mean over time -> linear head

*Source:* Sec. 4.2, after Chung et al. (2014) and Stafylakis and Tzimiropoulos (2017); the mean over time is ours. The front end
(`front.py`) suits what a step of the stream is: mouth or face crops, the cube of log-spectrogram and derivatives, or cached vectors
(`bgru` alone).
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig
from .base import FusionModel, Input, Output, Steps
from .blocks import masked_mean
from .front import PictureFront, VectorFront, front
from .recurrent import BidirectionalGRU
from .table import takes


class Pathway(nn.Module):
    """One stream from steps to logits."""

    def __init__(self, front: VectorFront | PictureFront, gru: BidirectionalGRU | None, classes: int):
        super().__init__()
        self.front, self.gru = front, gru
        self.head = nn.Linear(gru.length if gru else front.length, classes)

    def frames(self, steps: Steps) -> Tensor:
        """(b, t, …) -> (b, t, d), zero at invalid steps."""
        x: Tensor = self.front(steps)
        if self.gru is not None:
            x = self.gru(x, steps.mask)
        return x

    def forward(self, steps: Steps) -> tuple[Tensor, Tensor]:
        """(b, t, …) -> log-probabilities (b, c), and z (b, d)."""
        pooled = masked_mean(self.frames(steps), steps.mask)
        return F.log_softmax(self.head(pooled), -1), pooled


class OneStream(FusionModel):
    """A pathway as a model."""

    def __init__(self, modality: str, pathway: Pathway):
        super().__init__()
        self.modality = modality
        self.add_module(modality, pathway)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        result, pooled = self.get_submodule(self.modality)(audio if self.modality == "audio" else visual)
        return Output(result, **{f"pooled_{self.modality}": pooled})

    def frames(self, steps: Steps) -> Tensor:
        pathway = self.get_submodule(self.modality)
        assert isinstance(pathway, Pathway)
        return pathway.frames(steps)


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    (modality,) = takes(config.model)
    begin = front(inputs[modality], config)
    gru = None
    if config.model.startswith("bgru"):
        gru = BidirectionalGRU(begin.length, config.gru_units, config.gru_layers, config.dropout)
    return OneStream(modality, Pathway(begin, gru, classes))
