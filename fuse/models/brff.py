"""Bilateral residual feature fusion (AttentionBRFF): f_fuse = f_basic + res(f_aux), once for each direction.

*Source:* Sec. 3.2, eq. 1-2:  res_j = sum_i beta_i f_i_aux,  beta_i = softmax_i(f_i_aux^T W f_j_basic). "The cross-modal attention
mechanism is implemented with 3 layers" (Sec. 4.1.2). Ours: blocks with the layer norm first and no feed-forward, so that all
that is added to the basic modality comes from the auxiliary one; an output projection that begins at zero, so that
fine-tuning begins exactly at the pre-trained single-modality models.
"""

from torch import Tensor, nn

from .blocks import Attention, attend


class CrossBRFF(nn.Module):
    """Blocks of multi-head cross-attention, query = basic, key and value = auxiliary."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(CrossBlock(width, heads, dropout) for _ in range(layers))

    def forward(self, basic: Tensor, auxiliary: Tensor, mask: Tensor) -> Tensor:
        """(b, t1, d), (b, t2, d), (b, t2) -> (b, t1, d); `basic` itself for a clip without valid auxiliary steps."""
        for block in self.blocks:
            basic = block(basic, auxiliary, mask)
        return basic


class CrossBlock(nn.Module):
    """One residual cross-attention. The output projection has no bias: nothing comes from a missing modality."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm_basic, self.norm_auxiliary = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.attention.out.weight)

    def forward(self, basic: Tensor, auxiliary: Tensor, mask: Tensor) -> Tensor:
        return basic + self.dropout(self.attention(self.norm_basic(basic), self.norm_auxiliary(auxiliary), mask))


class BilinearBRFF(nn.Module):
    """Eq. 1-2 to the letter: one head, no scale, no output projection. W is a torch Linear's default draw."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Linear(width, width, bias=False)

    def forward(self, basic: Tensor, auxiliary: Tensor, mask: Tensor) -> Tensor:
        """As `CrossBRFF.forward`."""
        key = auxiliary[:, None]  # (b, 1, t2, d): a single head
        return basic + attend(self.weight(basic)[:, None], key, key, mask, scale=1.0).squeeze(1)
