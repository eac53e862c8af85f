"""Con, the concatenation model of Table 1: a bidirectional GRU for each stream, and one over both.

    stream -> 2-layer BGRU  \\
                              concatenated step by step -> 2-layer BGRU -> mean over time -> linear head
    stream -> 2-layer BGRU  /

*Source:* Petridis et al. (2018), with 1024 units a layer; they average the answers of all steps, which for logits is the answer of the
mean. Ours: cached vectors, or the front end of `front.py`, in place of their networks over pixels and samples; the faster stream is
pooled to the slower one's rate before its GRU, as they cut sound to the video's rate.
"""

from collections.abc import Mapping

import torch
from torch import nn

from ..config import RunConfig
from .align import concatenate, pool_to_rate
from .base import FusionModel, Input, Output, Steps
from .blocks import masked_mean
from .front import front
from .recurrent import BidirectionalGRU


class StreamGRU(nn.Module):
    """One stream as vectors, at the common rate, through its own GRU."""

    def __init__(self, source: Input, rate_hz: float, config: RunConfig):
        super().__init__()
        self.from_hz, self.to_hz = source.rate_hz, rate_hz
        self.front = front(source, config)
        self.gru = BidirectionalGRU(self.front.length, config.gru_units, config.gru_layers, config.dropout)

    def forward(self, steps: Steps) -> Steps:
        """(b, t, …) -> (b, t', 2 units)."""
        pooled = pool_to_rate(Steps(self.front(steps), steps.mask), self.from_hz, self.to_hz)
        return Steps(self.gru(pooled.values, pooled.mask), pooled.mask)


class Con(FusionModel):
    """See the module."""

    def __init__(self, audio: StreamGRU, visual: StreamGRU, classes: int, config: RunConfig):
        super().__init__()
        self.audio, self.visual = audio, visual
        length = audio.gru.length + visual.gru.length
        self.gru = BidirectionalGRU(length, config.gru_units, config.gru_layers, config.dropout)
        self.head = nn.Linear(self.gru.length, classes)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        x, mask = concatenate(self.audio(audio), self.visual(visual))
        return Output(torch.log_softmax(self.head(masked_mean(self.gru(x, mask), mask)), -1))


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    rate_hz = min(source.rate_hz for source in inputs.values())
    audio, visual = (StreamGRU(inputs[m], rate_hz, config) for m in ("audio", "visual"))
    return Con(audio, visual, classes, config)
