"""Masked recurrence against a loop over one clip; Con's wiring."""

import torch
from torch import Tensor, nn

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input, Steps
from bmla.fuse.models.concat import Con
from bmla.fuse.models.recurrent import BidirectionalGRU
from bmla.fuse.models.table import build

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 25.0)}


def one_direction(gru: nn.GRU, layer: int, x: Tensor, back: bool) -> Tensor:
    """(t, l) -> (t, units), by the equations of the GRU as torch documents them."""
    suffix = f"_l{layer}" + ("_reverse" if back else "")
    wi, wh, bi, bh = (getattr(gru, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    hidden, outs = torch.zeros(gru.hidden_size), []
    for step in x.flip(0) if back else x:
        ri, zi, ni = (wi @ step + bi).chunk(3)
        rh, zh, nh = (wh @ hidden + bh).chunk(3)
        reset, update = torch.sigmoid(ri + rh), torch.sigmoid(zi + zh)
        hidden = (1 - update) * torch.tanh(ni + reset * nh) + update * hidden
        outs.append(hidden)
    out = torch.stack(outs)
    return out.flip(0) if back else out


def test_it_runs_over_the_valid_steps_alone_in_their_order() -> None:
    torch.manual_seed(0)
    layers = BidirectionalGRU(3, 4, 2, 0.0).eval()
    x = torch.randn(3, 6, 3)
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    x[~mask] = float("nan")
    out = layers(x, mask)
    assert out.shape == (3, 6, 8)
    assert (out[~mask] == 0).all()
    for n in (0, 2):
        y = x[n][mask[n]]
        for layer in range(2):
            y = torch.cat([one_direction(layers.gru, layer, y, back) for back in (False, True)], 1)
        torch.testing.assert_close(out[n][mask[n]], y)


def test_con_joins_two_recurrences_at_the_slower_rate_and_runs_a_third_over_both() -> None:
    torch.manual_seed(0)
    con = build(RunConfig("concat", gru_units=4), INPUTS, 3).eval()
    assert isinstance(con, Con)
    audio = Steps(torch.randn(1, 8, 6), torch.ones(1, 8, dtype=torch.bool))
    visual = Steps(torch.randn(1, 4, 5), torch.tensor([[True, True, False, True]]))
    every = torch.ones(1, 4, dtype=torch.bool)
    left = con.audio.gru(audio.values.view(1, 4, 2, 6).mean(2), every)
    right = con.visual.gru(visual.values, visual.mask)
    both = con.gru(torch.cat([left, right], -1), every)
    torch.testing.assert_close(con(audio, visual).result, con.head(both.mean(1)).log_softmax(1))


def test_con_has_the_papers_sizes_by_default() -> None:
    con = build(RunConfig("concat"), INPUTS, 3)
    assert isinstance(con, Con)
    for gru, length in ((con.audio.gru, 6), (con.visual.gru, 5), (con.gru, 4096)):
        assert (gru.gru.input_size, gru.gru.hidden_size, gru.gru.num_layers) == (length, 1024, 2)
        assert gru.gru.bidirectional
