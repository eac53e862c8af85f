"""Bidirectional GRUs over the valid steps of a clip.

Steps that are not valid are left out of the sequence: the recurrence goes from one valid step to the next, over a gap as if there was
none (ours: a face that is lost for some frames then costs nothing but those frames). So neither padding nor what stands at an invalid
step changes anything.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BidirectionalGRU(nn.Module):
    """Layers of a gated recurrent unit, in both directions of time.

    Args of init:
        length: of a step.
        units: of each layer and direction.
        dropout: between layers.
    """

    def __init__(self, length: int, units: int, layers: int, dropout: float):
        super().__init__()
        self.gru = nn.GRU(
            length, units, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0
        )
        self.length = 2 * units

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, t, l), (b, t) -> (b, t, 2 units), zero at invalid steps."""
        if torch.compiler.is_exporting():
            from .scanned import scanned

            return scanned(self.gru, x, mask)
        order = mask.int().argsort(dim=1, descending=True, stable=True)  # the valid steps first, in their order
        first = x.masked_fill(~mask[..., None], 0.0).take_along_dim(order[..., None], 1)
        counts = mask.sum(1).clamp(min=1).cpu()  # a clip without a valid step runs over one zero, which is masked below
        packed = pack_padded_sequence(first, counts, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=mask.shape[1])
        back = order.argsort(1)[..., None]
        return out.take_along_dim(back, 1).masked_fill(~mask[..., None], 0.0)
