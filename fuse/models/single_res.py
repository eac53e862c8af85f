"""Single-Res, the audio-centric model of Table 1: sound attends to sight, sight to nothing.

    f_a = positions + project(x_a) -> f_a + res(f_v) -> sound's encoder, mean and head

*Source:* after Sterpu et al. (2018), where each step of sound looks for its part of sight; here with BalanceMLA's residual (`brff.py`),
of which this is the one half. Ours: for a clip without sound, one learnt step stands where it would, and looks at sight alone. It
is worth what training makes of it: train with modality dropout, where sound may be missing.
"""

from collections.abc import Mapping

import torch
from torch import nn

from ..config import RunConfig
from .balancemla import residual
from .base import FusionModel, Input, Output, Steps
from .blocks import Project, positions
from .single import Tower, tower


class SingleRes(FusionModel):
    """See the module."""

    def __init__(self, audio: Tower, visual: Project, brff: nn.Module, width: int, classes: int, dropout: float):
        super().__init__()
        self.audio, self.visual, self.audio_brff = audio, visual, brff
        self.silence = nn.Parameter(torch.randn(width) / width**0.5)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        sound, mask = self.audio.embed(audio), audio.mask
        silent = ~audio.present
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        sound = torch.where((silent[:, None] & first)[..., None], self.silence, sound)
        mask = mask | (silent[:, None] & first)
        sight = self.visual(visual)
        sight = self.dropout(sight + positions(sight.shape[1], sight.shape[2], self.visual.rate_hz, sight.device))
        fused = self.audio_brff(sound, sight, visual.mask)
        return Output(torch.log_softmax(self.head(self.audio.pool(fused, mask)), -1))


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    sight = Project(inputs["visual"], config.width, config)
    audio = tower(config, inputs["audio"])
    return SingleRes(audio, sight, residual(config), config.width, classes, config.dropout)
