"""A convolution over time within a layer of an encoder: attention looks anywhere, this at a step's neighbours.

    y = GLU(W_1 norm(x)) at valid steps, 0 elsewhere;   x + W_2 SiLU(norm(w * y)),   w of k steps for each feature

*Source:* the convolution module of the Conformer (Gulati et al., 2020). Ours: layer norm in place of batch norm, so that no clip's
features depend on the other clips of its batch; and it comes before the attention, in a layer that otherwise stays as it is;
its own norm comes first wherever those of the layer are.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class Depthwise(nn.Conv1d):
    """Each feature by itself over k steps around every step; what lies before and after the clip is zero."""

    def __init__(self, width: int, steps: int):
        super().__init__(width, width, steps, padding=steps // 2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, d) -> (b, t, d)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ConvolutionModule(nn.Module):
    """See the module.

    Args of init:
        steps: k, odd.
    """

    def __init__(self, width: int, steps: int, dropout: float):
        super().__init__()
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.depthwise = Depthwise(width, steps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, t, d), (b, t) -> (b, t, d)."""
        y = F.glu(self.widen(self.norm_in(x)), -1).masked_fill(~mask[..., None], 0.0)
        return x + self.dropout(self.narrow(F.silu(self.norm_out(self.depthwise(y)))))
