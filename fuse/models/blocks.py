"""The parts that the models share: positions in seconds, masked attention, Transformer encoder, masked mean, projection.

Shape legend: see `base.py`. Nothing here lets a step whose mask is False change any other number, nor a clip those of the others of its
batch, but for the batch normalisation of a front end in training.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig
from .augment import HideTime
from .base import Input, Standardise, Steps
from .convolution import ConvolutionModule
from .front import PictureFront
from .kinds import VECTORS

POSITIONS_PER_S = 50  # one position is a step of HuBERT: at that rate, the angles are those of Vaswani et al. (2017)
LONGEST_WAVELENGTH = 10_000  # in positions, over 2 pi (Vaswani et al.)
FEED_FORWARD = 4  # hidden width over model width (Vaswani et al.)


def positions(steps: int, width: int, rate_hz: float, device: torch.device | None = None) -> Tensor:
    """(t, d) sines and cosines of the time of each step in seconds, so that streams of different rates agree."""
    time = torch.arange(steps, device=device, dtype=torch.float32) * (POSITIONS_PER_S / rate_hz)
    pairs = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    angles = time[:, None] * torch.exp(pairs * (-math.log(LONGEST_WAVELENGTH) / width))
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)  # (t, d)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(b, t, d), (b, t) -> (b, d): M of the paper. Zero for a clip without any valid step."""
    weight = mask.to(values.dtype)[..., None]
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None = None) -> Tensor:
    """Softmax attention over the valid steps; zero for a clip that has none.

    Args:
        query: (b, h, t1, d); key, value: (b, h, t2, d).
        mask: (b, t2) bool: the keys that count.
        scale: None: 1 / sqrt(d).

    There is no dropout on the attention weights (ours): torch's fast kernels then apply on every device.
    """
    some = mask.any(1)[:, None]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=(mask | ~some)[:, None, None], scale=scale)
    return out.masked_fill(~some[..., None, None], 0.0)


class Attention(nn.Module):
    """Multi-head attention of some steps to the valid ones of another sequence (or of their own)."""

    def __init__(self, width: int, heads: int, bias: bool = True):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, basic: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        """(b, t1, d), (b, t2, d), (b, t2) -> (b, t1, d)."""
        b, t1, d = basic.shape
        query = self.query(basic).view(b, t1, self.heads, -1).transpose(1, 2)  # (b, h, t1, d / h)
        key, value = self.key_value(other).view(b, -1, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind()
        return self.out(attend(query, key, value, mask).transpose(1, 2).reshape(b, t1, d))


class EncoderLayer(nn.Module):
    """Self-attention and a GELU feed-forward, each a residual with its layer norm before or after it.

    Dropout is on the output of each of the two, as in Vaswani et al. (2017). Before them comes a convolution of so many steps, where
    any are given.
    """

    def __init__(self, width: int, heads: int, dropout: float, norm: str, convolution: int = 0):
        super().__init__()
        self.convolution = ConvolutionModule(width, convolution, dropout) if convolution else None
        self.before = norm == "pre"
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.widen, self.narrow = nn.Linear(width, FEED_FORWARD * width), nn.Linear(FEED_FORWARD * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.convolution is not None:
            x = self.convolution(x, mask)
        if self.before:
            y = self.norm_attention(x)
            x = x + self.dropout(self.attention(y, y, mask))
            return x + self.dropout(self.feed_forward(self.norm_forward(x)))
        x = self.norm_attention(x + self.dropout(self.attention(x, x, mask)))
        return self.norm_forward(x + self.dropout(self.feed_forward(x)))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.widen(x)))


class Encoder(nn.Module):
    """Transformer encoder (Vaswani et al., 2017) over the valid steps, with convolutions where the configuration has them."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float, norm: str, convolution: int = 0):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout, norm, convolution) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, t, d), (b, t) -> (b, t, d)."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


def encoder(config: RunConfig, width: int) -> Encoder:
    """The encoder that a run asks for."""
    return Encoder(width, config.heads, config.layers, config.dropout, config.norm, config.convolution)


class Project(nn.Module):
    """A stream's steps to vectors of a given length: `Linear(l -> d)` of standardised features, or of what a front end makes of pictures.

    Weights are drawn after Glorot, so that features keep about unit variance and positions do not drown them; what a front end makes is
    normalised first, for the same reason.

    Attributes:
        rate_hz: steps a second.
        front: of pictures and stacks; None for vectors.
    """

    front: PictureFront | None
    hide: HideTime | None

    def __init__(self, source: Input, width: int, config: RunConfig):
        super().__init__()
        self.rate_hz = source.rate_hz
        self.front, self.hide = None, None
        if (
            source.kind == VECTORS
        ):  # as `VectorFront`, by the names that weights on disk have; what would do nothing is left out, and stacks
            self.standardise = Standardise(source.length)
            self.hide = HideTime(config.time_mask) if config.time_mask else None
            length = source.length
        else:
            self.front = PictureFront(source, config)
            self.norm = nn.LayerNorm(self.front.length)
            length = self.front.length
        self.linear = glorot(nn.Linear(length, width))

    def features(self, steps: Steps) -> Tensor:
        """(b, t, …) -> (b, t, l), zero at invalid steps."""
        if self.front is not None:
            vectors: Tensor = self.norm(self.front(steps))
            return vectors.masked_fill(~steps.mask[..., None], 0.0)
        values: Tensor = self.standardise(steps)
        return values if self.hide is None else self.hide(values, steps.mask)

    def forward(self, steps: Steps) -> Tensor:
        """(b, t, …) -> (b, t, d)."""
        return self.linear(self.features(steps))

    def share(self, other: "Project") -> None:
        """Reads features of the same kind as another one does from now on, by the same weights; statistics stay each one's own."""
        for mine, theirs in zip(self.modules(), other.modules(), strict=True):
            for name, parameter in theirs.named_parameters(recurse=False):
                setattr(mine, name, parameter)


def glorot(linear: nn.Linear) -> nn.Linear:
    """Draws the weights anew (Glorot and Bengio, 2010), with no bias to begin with."""
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
