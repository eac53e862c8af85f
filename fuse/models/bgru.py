"""The spatio-temporal convolution and the bidirectional GRU of Table 1, on one modality or on both.

    stconv-ao, -vo   front end -> mean over time -> linear head
    bgru-ao, -vo     front end -> 2-layer bidirectional GRU of 1024 units -> mean over time -> linear head
    stconv           a front end for each; the means over time of both, side by side -> linear head
    bgru             a front end for each, at the slower one's rate, concatenated step by step -> GRU -> mean -> linear head

The two on both modalities are ours: Table 1 has a row for each and does not say how it joins sound and sight. They join as
little as can be: where `bgru` has one GRU over both, `concat` (Con) has another one on each stream before that.

*Source:* Sec. 4.2, after Chung et al. (2014) and Stafylakis and Tzimiropoulos (2017); the mean over time is ours. The front end
(`front.py`) suits what a step of the stream is: mouth or face crops, the cube of log-spectrogram and derivatives, or cached vectors
(`bgru` alone).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig
from .align import concatenate, pool_to_rate
from .base import FrameModel, FusionModel, Input, Output, Steps
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


class OneStream(FrameModel):
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


class TwoFronts(FusionModel):
    """Both modalities, each through a front end of its own; see the module.

    Args of init:
        gru: over both, step by step; None: the means over time are joined.
        rates_hz: steps a second, audio first.
    """

    def __init__(
        self,
        audio: VectorFront | PictureFront,
        visual: VectorFront | PictureFront,
        gru: BidirectionalGRU | None,
        rates_hz: tuple[float, float],
        classes: int,
    ):
        super().__init__()
        self.audio, self.visual, self.gru, self.rates_hz = audio, visual, gru, rates_hz
        self.head = nn.Linear(gru.length if gru else audio.length + visual.length, classes)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        streams = [Steps(part(s), s.mask) for part, s in ((self.audio, audio), (self.visual, visual))]
        if self.gru is None:
            z = [masked_mean(s.values, s.mask) for s in streams]
            return Output(F.log_softmax(self.head(torch.cat(z, 1)), -1), None, None, None, *z)
        slower = min(self.rates_hz)
        x, mask = concatenate(*(pool_to_rate(s, hz, slower) for s, hz in zip(streams, self.rates_hz, strict=True)))
        return Output(F.log_softmax(self.head(masked_mean(self.gru(x, mask), mask)), -1))


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    fronts = {m: front(inputs[m], config) for m in takes(config.model)}
    gru = None
    if config.model.startswith("bgru"):
        length = sum(part.length for part in fronts.values())
        gru = BidirectionalGRU(length, config.gru_units, config.gru_layers, config.dropout)
    if len(fronts) == 2:
        rates_hz = inputs["audio"].rate_hz, inputs["visual"].rate_hz
        return TwoFronts(fronts["audio"], fronts["visual"], gru, rates_hz, classes)
    ((modality, begin),) = fronts.items()
    return OneStream(modality, Pathway(begin, gru, classes))
