"""Late fusion: an encoder for each modality, whose means over time are read by one head.

    joint      result = W_a z_a + W_v z_v + b            (or, with a cosine head, s (cos(W_a, z_a) + cos(W_v, z_v)))
    joint-aux  the same, and a head of its own, of the same form, on each z, trained by a loss of its own

*Source:* the common host of methods that balance modalities; its parts W_m z_m + b / 2 as each modality's answer are OGM-GE's (Peng et
al., 2022), the cosine head without bias and its scale are MMCosine's (Xu et al., 2023). The encoders are those of
`transformer-ao` and `transformer-vo`. A modality that a clip lacks adds nothing to the sum.

The answers of `joint` are not trained unless a lambda is given: its recipe sets both to zero.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig
from .base import FusionModel, Input, Output, Steps
from .heads import Cosine, head
from .single import Tower, tower


class LinearHead(nn.Module):
    """One linear map of both z side by side, and the share of each in it."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(2 * width, classes)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """(b, d), (b, d) -> two times (b, c), whose sum is the whole."""
        left, right = self.linear.weight.chunk(2, 1)
        half = self.linear.bias / 2
        return F.linear(audio, left, half), F.linear(visual, right, half)


class CosineHead(nn.Module):
    """The sum of a cosine for each modality."""

    def __init__(self, widths: tuple[int, int], classes: int, scale: float):
        super().__init__()
        self.audio, self.visual = (Cosine(width, classes, scale) for width in widths)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """As `LinearHead.forward`."""
        return self.audio(audio), self.visual(visual)


class Joint(FusionModel):
    """See the module.

    Args of init:
        own: heads (audio, visual) of z alone; None: the shares of `head` are the modalities' answers.
    """

    def __init__(
        self,
        audio: Tower,
        visual: Tower,
        head: LinearHead | CosineHead,
        own: tuple[nn.Linear, nn.Linear] | None,
    ):
        super().__init__()
        self.audio, self.visual, self.head = audio, visual, head
        self.audio_head: nn.Module | None = own[0] if own else None
        self.visual_head: nn.Module | None = own[1] if own else None

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        z_audio, z_visual = self.audio(audio), self.visual(visual)
        left, right = self.head(z_audio, z_visual)
        result = torch.log_softmax(left + right, -1)
        if self.audio_head is not None and self.visual_head is not None:
            left, right = self.audio_head(z_audio), self.visual_head(z_visual)
        return Output(result, torch.log_softmax(left, -1), torch.log_softmax(right, -1), None, z_audio, z_visual)


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    audio, visual = tower(config, inputs["audio"]), tower(config, inputs["visual"])
    own = None
    if config.model == "joint-aux":
        own = head(config, classes), head(config, classes)
    if config.head == "cosine":
        return Joint(audio, visual, CosineHead((config.width, config.width), classes, config.cosine_scale), own)
    return Joint(audio, visual, LinearHead(config.width, classes), own)
