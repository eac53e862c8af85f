"""MAViL: ten seconds of sound and four of pictures in, hidden states pooled over the clip out.

*Source:* Huang et al. 2023, "MAViL: Masked Audio-Video Learners", by the code that AV-SUPERB (Tseng et al. 2024) carries,
https://github.com/roger-tseng/av-superb, folder upstream_models/mavil (the structure; written anew): two ViT-B and three
blocks over both, fine-tuned on AudioSet. Modules carry the names of the published checkpoint's keys.

As in that wrapper, hidden state k of a modality is the mean over all patches of what goes into block k (or, the last, comes
out of it); of both, the two means side by side, the last after the closing norm.

Shape legend: B clips, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

NORM_EPS = 1e-6


@dataclass(frozen=True)
class MavilConfig:
    """The published model and what it is given.

    Attributes:
        layers, layers_av: blocks of each modality, and over both.
        patch: side of a patch, in pixels and in bins of the spectrogram; a patch of pictures is two frames long.
        frames, side: pictures of a clip, pixels.
        columns, bands: of the spectrogram, 10 ms a column.
    """

    layers: int = 12
    layers_av: int = 3
    width: int = 768
    heads: int = 12
    patch: int = 16
    frames: int = 8
    side: int = 224
    columns: int = 1024
    bands: int = 128


class Mavil(nn.Module):
    """See the module."""

    def __init__(self, config: MavilConfig):
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch
        heard = (config.columns // patch) * (config.bands // patch)
        seen = (config.frames // 2) * (config.side // patch) ** 2
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, heard + 1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.patch_embed_v = nn.ModuleDict({"proj": nn.Conv3d(3, width, (2, patch, patch), (2, patch, patch))})
        self.cls_token_v = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed_v = nn.Parameter(torch.randn(1, seen + 1, width) * 0.02)
        self.blocks_v = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.blocks_av = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers_av))
        self.fc_norm_av = nn.LayerNorm(2 * width, NORM_EPS)

    def audio(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, 1, columns, bands) -> tokens (B, 1 + patches, D) before each block up to `last`, and after the last one."""
        return run(self.blocks, tokens(self.patch_embed["proj"](x), self.cls_token, self.pos_embed), last)

    def video(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, 3, frames, side, side) -> the same of pictures."""
        return run(self.blocks_v, tokens(self.patch_embed_v["proj"](x), self.cls_token_v, self.pos_embed_v), last)

    def both(self, audio: Tensor, video: Tensor) -> list[Tensor]:
        """The last tokens of each modality -> (B, 2 D) of each state over both."""
        split = audio.shape[1]
        states = run(self.blocks_av, torch.cat([audio, video], dim=1), None)
        pooled = [torch.cat([pool(x[:, :split]), pool(x[:, split:])], dim=1) for x in states]
        return [*pooled[:-1], self.fc_norm_av(pooled[-1])]


def pool(x: Tensor) -> Tensor:
    """(B, 1 + patches, D) -> (B, D): the mean over patches, without the class token."""
    return x[:, 1:].mean(dim=1)


def tokens(patches: Tensor, cls: Tensor, positions: Tensor) -> Tensor:
    """(B, D, …) patches -> (B, 1 + patches, D) with the class token and positions."""
    x = patches.flatten(2).transpose(1, 2)
    return torch.cat([cls.expand(len(x), -1, -1), x], dim=1) + positions


def run(blocks: nn.ModuleList, x: Tensor, last: int | None) -> list[Tensor]:
    states = [x]
    for block in blocks[:last]:
        states.append(block(states[-1]))
    return states


class Block(nn.Module):
    """A block of ViT: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, NORM_EPS)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, D)
        x = x + self.attn["proj"](mixed)
        return x + self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(x))))
