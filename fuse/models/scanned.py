"""The GRU of `recurrent.py` as a loop that a graph can hold, for export: the same numbers to rounding, at any number of steps.

    r = sigmoid(W_r x + U_r h),  z = sigmoid(W_z x + U_z h),  n = tanh(W_n x + r * U_n h),  h' = (1 - z) n + z h

*Source:* the formulas are those that torch documents for `nn.GRU` (Cho et al., 2014, with the reset gate after the product); each product
has a bias. At a step that is not valid the state stays as it is, which is the same as leaving the step out. `torch.export` would write
`nn.GRU` out for one number of steps, and packed sequences not at all; `scan` it keeps as a loop, in ONNX the operator Scan.
"""

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F


def scanned(gru: nn.GRU, x: Tensor, mask: Tensor) -> Tensor:
    """A bidirectional GRU (batch first) in evaluation, over the valid steps: (b, t, l), (b, t) -> (b, t, 2 units), zero elsewhere."""
    for layer in range(gru.num_layers):
        onward = one_way(gru, f"l{layer}", x, mask)
        back = one_way(gru, f"l{layer}_reverse", x.flip(1), mask.flip(1)).flip(1)
        x = torch.cat([onward, back], -1)
    return x.masked_fill(~mask[..., None], 0.0)


def one_way(gru: nn.GRU, name: str, x: Tensor, mask: Tensor) -> Tensor:
    """One layer in one direction: (b, t, units), at an invalid step the state of the last valid one."""
    weights = (getattr(gru, f"{part}_{name}") for part in ("weight_ih", "bias_ih", "weight_hh", "bias_hh"))
    weight_x, bias_x, weight_h, bias_h = weights
    gates = F.linear(x.masked_fill(~mask[..., None], 0.0), weight_x, bias_x).transpose(0, 1)  # (t, b, 3 units)

    def step(state: Tensor, now: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        given, valid = now
        reset_x, update_x, new_x = given.chunk(3, -1)
        reset_h, update_h, new_h = F.linear(state, weight_h, bias_h).chunk(3, -1)
        reset, update = (reset_x + reset_h).sigmoid(), (update_x + update_h).sigmoid()
        new = (new_x + reset * new_h).tanh()
        state = torch.where(valid, new + update * (state - new), state)
        return state, state.clone()  # a loop may not give out what it carries

    start = x.new_zeros(x.shape[0], gru.hidden_size)
    _, states = scan(step, start, (gates, mask.T[..., None]))
    return torch.as_tensor(states).transpose(0, 1)
