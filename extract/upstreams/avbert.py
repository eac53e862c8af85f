"""AVBERT: ten views of sound and of pictures in, hidden states of a Transformer that all layers and modalities share out.

*Source:* Lee et al. 2021, "Parameter Efficient Multimodal Transformers for Video Representation Learning", by the code that
AV-SUPERB (Tseng et al. 2024) carries, https://github.com/roger-tseng/av-superb, folder upstream_models/avbert (the structure;
written anew). Modules carry the names of the published checkpoint's keys. Its code stores each orthogonal matrix as a free
one, A, and a base: base exp(triu(A) - triu(A)^T).

Layer k of a modality, or of both, is the hidden state k: 0 comes out of the embeddings, k out of the k-th pass.

Shape legend: B sequences, V views, F frames of a view, S side, M mel bands, C columns of a spectrogram, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention

from .avbert_convs import Audio2d, Visual3d

NORM_EPS = 1e-12
VISUAL, AUDIO, MULTI = range(3)


@dataclass(frozen=True)
class AvBertConfig:
    """The published model and the views that it is given.

    Attributes:
        layers: passes through the one layer; no shape tells them.
        rank: of the factored matrices.
        positions: of the longest sequence.
        visual_width, audio_width: channels of the stems.
        blocks: of the four stages of each ResNet.
        views, frames, side: views of a clip, their frames (every second one at 30 a second), pixels.
        bands, columns: of a view's spectrogram.
    """

    layers: int = 6
    width: int = 768
    inner: int = 3072
    heads: int = 12
    rank: int = 128
    positions: int = 22
    visual_width: int = 64
    audio_width: int = 32
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    views: int = 10
    frames: int = 32
    side: int = 128
    bands: int = 80
    columns: int = 128


class AvBert(nn.Module):
    """See the module."""

    def __init__(self, config: AvBertConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.visual_conv = Visual3d(config.visual_width, config.blocks)
        self.visual_fc = nn.Linear(self.visual_conv.length, width)
        self.visual_norm = nn.LayerNorm(width, NORM_EPS)
        self.audio_conv = Audio2d(config.audio_width, config.blocks)
        self.audio_fc = nn.Linear(self.audio_conv.length, width)
        self.audio_norm = nn.LayerNorm(width, NORM_EPS)
        self.summary_encoding = Summaries(width)
        self.single_visual_embeddings = Embeddings(config.positions, width, kinds=0)
        self.single_audio_embeddings = Embeddings(config.positions, width, kinds=0)
        self.multi_embeddings = Embeddings(config.positions, width, kinds=2)
        self.transformer = Transformer(config)

    def seen(self, views: Tensor) -> Tensor:
        """(N, 3, F, S, S) normalised pictures -> (N, D) tokens."""
        return self.visual_norm(self.visual_fc(self.visual_conv(views)))

    def heard(self, views: Tensor) -> Tensor:
        """(N, 1, M, C) logarithmic spectra -> (N, D) tokens."""
        return self.audio_norm(self.audio_fc(self.audio_conv(views)))

    def single(self, tokens: Tensor, modality: int) -> list[Tensor]:
        """Hidden states of one modality: (B, V, D) -> (B, 1 + V, D) each; the first step is the summary's."""
        summary = self.summary_encoding.bos_embeddings.weight[modality].expand(len(tokens), 1, -1)
        embed = self.single_visual_embeddings if modality == VISUAL else self.single_audio_embeddings
        return self.transformer(embed(torch.cat([summary, tokens], dim=1)), modality)

    def multi(self, visual: Tensor, audio: Tensor) -> list[Tensor]:
        """Hidden states of both: the last of each modality, (B, 1 + V, D), -> (B, 2 (1 + V), D) each, sight first."""
        return self.transformer(self.multi_embeddings(visual, audio), MULTI)


class Summaries(nn.Module):
    """The step that stands before each modality's."""

    def __init__(self, width: int):
        super().__init__()
        self.bos_embeddings = nn.Embedding(2, width)


class Embeddings(nn.Module):
    """Adds positions, which begin again with each part, and where there are several kinds of parts, the kind."""

    def __init__(self, positions: int, width: int, kinds: int):
        super().__init__()
        self.position_embeddings = nn.Embedding(positions, width)
        if kinds:
            self.token_type_embeddings = nn.Embedding(kinds, width)
        self.LayerNorm = nn.LayerNorm(width, NORM_EPS)

    def forward(self, *parts: Tensor) -> Tensor:
        placed = [part + self.position_embeddings.weight[: part.shape[1]] for part in parts]
        if len(parts) > 1:
            placed = [part + kind for part, kind in zip(placed, self.token_type_embeddings.weight, strict=True)]
        return self.LayerNorm(torch.cat(placed, dim=1))


class Transformer(nn.Module):
    """One layer, passed through several times. The names are ALBERT's, which counts groups and layers within them."""

    def __init__(self, config: AvBertConfig):
        super().__init__()
        self.passes = config.layers
        group = nn.ModuleDict({"albert_layers": nn.ModuleList([SharedLayer(config)])})
        self.encoder = nn.ModuleDict({"albert_layer_groups": nn.ModuleList([group])})

    def forward(self, x: Tensor, modality: int) -> list[Tensor]:
        layer = self.encoder["albert_layer_groups"][0]["albert_layers"][0]  # type: ignore[index]
        hidden = [x]
        for _ in range(self.passes):
            hidden.append(layer(hidden[-1], modality))
        return hidden


class SharedLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + feed-forward(x))."""

    def __init__(self, config: AvBertConfig):
        super().__init__()
        self.full_layer_layer_norm = nn.LayerNorm(config.width, NORM_EPS)
        self.attention = SharedAttention(config)
        self.factor_ffn = FactorLinear(config.width, config.rank, config.inner)
        self.factor_ffn_output = FactorLinear(config.inner, config.rank, config.width)

    def forward(self, x: Tensor, modality: int) -> Tensor:
        x = self.attention(x, modality)
        inner = gelu(self.factor_ffn(x, modality))
        return self.full_layer_layer_norm(x + self.factor_ffn_output(inner, modality))


class SharedAttention(nn.Module):
    """Self-attention over all steps, with the residual and the norm behind it."""

    def __init__(self, config: AvBertConfig):
        super().__init__()
        self.heads = config.heads
        for name in ("query", "key", "value", "dense"):
            self.add_module(f"factor_{name}", FactorLinear(config.width, config.rank, config.width))
        self.LayerNorm = nn.LayerNorm(config.width, NORM_EPS)

    def forward(self, x: Tensor, modality: int) -> Tensor:
        B, T, D = x.shape
        q, k, v = (
            self.get_submodule(f"factor_{name}")(x, modality).view(B, T, self.heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, D)
        return self.LayerNorm(x + self.get_submodule("factor_dense")(mixed, modality))


class FactorLinear(nn.Module):
    """A linear layer of low rank: down by the modality's own matrix, to unit length, turned by its own orthogonal matrix, up by
    the shared one."""

    def __init__(self, length: int, rank: int, out: int):
        super().__init__()
        for modality in (VISUAL, AUDIO, MULTI):
            self.add_module(f"ms{modality}_linear", nn.Linear(length, rank, bias=False))
            self.add_module(f"orthogonal_ms{modality}_linear", Orthogonal(rank))
        self.s_linear = nn.Linear(rank, out)

    def forward(self, x: Tensor, modality: int) -> Tensor:
        down = normalize(self.get_submodule(f"ms{modality}_linear")(x), dim=-1)
        return self.s_linear(self.get_submodule(f"orthogonal_ms{modality}_linear")(down))


class Orthogonal(nn.Module):
    """x B with an orthogonal B; see `orthogonal`."""

    base: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.A = nn.Parameter(torch.randn(size, size) / size**0.5)
        self.register_buffer("base", torch.eye(size))

    def forward(self, x: Tensor) -> Tensor:
        return x @ orthogonal(self.A, self.base)


def orthogonal(a: Tensor, base: Tensor) -> Tensor:
    """base exp(U - U^T), U the part of A above the diagonal."""
    upper = a.float().triu(1)
    return base.float() @ torch.matrix_exp(upper - upper.T)


def contradictions(tensors: dict[str, Tensor]) -> list[str]:
    """Where the checkpoint keeps the orthogonal matrices themselves (they are made anew in training, and need not be there):
    those that are not what this module makes of A and base."""
    found = []
    for key, value in tensors.items():
        name, _, last = key.rpartition(".")
        if last != "_B" or f"{name}.A" not in tensors or f"{name}.base" not in tensors:
            continue
        expected = orthogonal(tensors[f"{name}.A"], tensors[f"{name}.base"])
        if value.shape != expected.shape or not torch.allclose(value.float(), expected, atol=1e-2):
            found.append(f"{key} is not base exp(A), as its code makes it with the mode static")
    return found
