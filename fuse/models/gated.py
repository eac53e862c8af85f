"""Gated multimodal unit: each feature of the joint vector is taken from either modality, in a share that depends on both.

    h_m = tanh(W_m z_m),   g = sigmoid(W_g [z_a; z_v]),   h = g * h_a + (1 - g) * h_v,   result = W h + b

*Source:* Arevalo et al. (2017), the unit for two modalities, without biases as written there; in the comparison of OGM-GE (Peng et al.,
2022) a standard fusion. Ours: the encoders, those of `transformer-ao` and `transformer-vo`; each modality's answer, which is the
head's with the gate all its own; and where a clip lacks a modality, the gate is all the other's.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config import RunConfig
from .base import FusionModel, Input, Output, Steps
from .single import Tower, tower


class Gated(FusionModel):
    """See the module."""

    def __init__(self, audio: Tower, visual: Tower, width: int, classes: int):
        super().__init__()
        self.audio, self.visual = audio, visual
        self.audio_map, self.visual_map = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(2 * width, width, bias=False)
        self.head = nn.Linear(width, classes)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        z_audio, z_visual = self.audio(audio), self.visual(visual)
        h_audio, h_visual = self.audio_map(z_audio).tanh(), self.visual_map(z_visual).tanh()
        gate = self.gate(torch.cat([z_audio, z_visual], 1)).sigmoid()
        gate = gate.masked_fill(~visual.present[:, None], 1.0).masked_fill(~audio.present[:, None], 0.0)
        result = self.answer(gate * h_audio + (1 - gate) * h_visual)
        return Output(result, self.answer(h_audio), self.answer(h_visual), None, z_audio, z_visual)

    def answer(self, hidden: Tensor) -> Tensor:
        """(b, d) -> (b, c) log-probabilities."""
        return torch.log_softmax(self.head(hidden), -1)


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    return Gated(tower(config, inputs["audio"]), tower(config, inputs["visual"]), config.width, classes)
