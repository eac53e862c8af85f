"""Feature-wise linear modulation: sight scales and shifts each feature of sound.

    z = (1 + gamma) * z_a + beta,   [gamma; beta] = W z_v + b,   result = head(z)

*Source:* Perez et al. (2018), gamma as a difference to one as they advise; between two pooled vectors it is a standard fusion in the
comparison of OGM-GE (Peng et al., 2022). Ours: the encoders, those of `transformer-ao` and `transformer-vo`; which modality modulates
(sight, as in the paper's audio-centric model). Without sight nothing is modulated; without sound the shift alone is left.

The modalities have no answers of their own: they are joined by a product.
"""

from collections.abc import Mapping

import torch
from torch import nn

from ..config import RunConfig
from .base import FusionModel, Input, Output, Steps
from .single import Tower, tower


class FiLM(FusionModel):
    """See the module."""

    def __init__(self, audio: Tower, visual: Tower, width: int, classes: int):
        super().__init__()
        self.audio, self.visual = audio, visual
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, classes)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        z_audio, z_visual = self.audio(audio), self.visual(visual)
        change = self.modulation(z_visual).masked_fill(~visual.present[:, None], 0.0)
        scale, shift = change.chunk(2, 1)
        result = torch.log_softmax(self.head((1 + scale) * z_audio + shift), -1)
        return Output(result, pooled_audio=z_audio, pooled_visual=z_visual)


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    return FiLM(tower(config, inputs["audio"]), tower(config, inputs["visual"]), config.width, classes)
