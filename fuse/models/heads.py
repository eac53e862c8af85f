"""From a modality's mean z to an answer for each class: linear, or by cosines.

    linear   W z + b
    cosine   s cos(W_c, z): no answer is surer than s allows, however far z lies from what training had

*Source:* the cosine head without bias and its scale, s = 10, are MMCosine's (Xu et al., 2023).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig


class Cosine(nn.Linear):
    """`scale` times the cosine between z and each class; zero for z = 0."""

    def __init__(self, width: int, classes: int, scale: float):
        super().__init__(width, classes, bias=False)
        self.scale = scale

    def forward(self, z: Tensor) -> Tensor:
        """(…, d) -> (…, c)."""
        return self.scale * F.linear(F.normalize(z, dim=-1), F.normalize(self.weight, dim=-1))


def head(config: RunConfig, classes: int) -> nn.Linear:
    """The head that a run asks for."""
    if config.head == "cosine":
        return Cosine(config.width, classes, config.cosine_scale)
    return nn.Linear(config.width, classes)
