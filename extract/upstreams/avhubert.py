"""AV-HuBERT: (B, T, 104) filterbanks and (B, T, 88, 88) mouths in, the Transformer's hidden states (B, T, D) out.

*Source:* Shi et al. 2022, "Learning Audio-Visual Speech Representation by Masked Multimodal Cluster Prediction", and the
public code, https://github.com/facebookresearch/av_hubert (the structure, with fairseq's wav2vec 2.0 encoder; written anew).
Modules carry the names of the published checkpoints' keys. As fine-tuning there does it, a modality that is not given
enters as zeros behind its front end, before the norm over both.

Layer k is the hidden state k: 0 goes into the first layer, k comes out of the k-th; of the last one, after the closing norm.

Shape legend: B clips, T steps, D width, S side of a crop.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from torchvision.models.resnet import BasicBlock

AUDIO_DIM = 104  # 4 x 26
TRUNK = (64, 128, 256, 512)


@dataclass(frozen=True)
class AvHubertConfig:
    """The published base model. `large` has 24 layers, width 1024, 4096 inside, 16 heads.

    Attributes:
        inner: width of the feed-forward part.
        conv_pos, conv_pos_groups: kernel and groups of the positional convolution.
        trunk: channels of ResNet's four stages; the stem has those of the first.
    """

    layers: int = 12
    width: int = 768
    inner: int = 3072
    heads: int = 12
    conv_pos: int = 128
    conv_pos_groups: int = 16
    trunk: tuple[int, ...] = TRUNK


class AvHubert(nn.Module):
    """See the module."""

    def __init__(self, config: AvHubertConfig):
        super().__init__()
        self.config = config
        self.feature_extractor_audio = FrontEnd(None, AUDIO_DIM, config.width)
        self.feature_extractor_video = FrontEnd(ResEncoder(config.trunk), config.trunk[-1], config.width)
        self.layer_norm = nn.LayerNorm(2 * config.width)
        self.post_extract_proj = nn.Linear(2 * config.width, config.width)
        self.encoder = TransformerEncoder(config)

    def forward(self, audio: Tensor | None, video: Tensor | None, last: int | None = None) -> list[Tensor]:
        """Hidden states 0 to `last`, (B, T, D) each.

        Args:
            audio: (B, T, 104), or None.
            video: (B, T, S, S), normalised, or None; not both None.
            last: the last one wanted; None: of all layers.
        """
        heard = None if audio is None else self.feature_extractor_audio(audio)
        seen = None if video is None else self.feature_extractor_video(video)
        either = heard if heard is not None else seen
        assert either is not None
        zeros = torch.zeros_like(either)
        both = torch.cat([zeros if part is None else part for part in (heard, seen)], dim=2)  # (B, T, 2 D)
        return self.encoder(self.post_extract_proj(self.layer_norm(both)), last)


class FrontEnd(nn.Module):
    """One modality's way to width D: ResNet for pictures, a projection for both."""

    def __init__(self, resnet: nn.Module | None, length: int, width: int):
        super().__init__()
        self.resnet = resnet
        self.proj = nn.Linear(length, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x if self.resnet is None else self.resnet(x))


class ResEncoder(nn.Module):
    """(B, T, S, S) -> (B, T, 512): a convolution over 5 steps, then ResNet-18's stages on each step, with PReLU."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        stem = channels[0]
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, stem, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm3d(stem),
            nn.PReLU(stem),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.trunk = nn.Module()
        before = stem
        for number, width in enumerate(channels, 1):
            stride = 1 if number == 1 else 2
            stage = nn.Sequential(PReluBlock(before, width, stride), PReluBlock(width, width, 1))
            self.trunk.add_module(f"layer{number}", stage)
            before = width

    def forward(self, x: Tensor) -> Tensor:
        B, T = x.shape[:2]
        x = self.frontend3D(x[:, None])  # (B, 64, T, S / 4, S / 4)
        x = x.transpose(1, 2).flatten(0, 1)
        for stage in self.trunk.children():
            x = stage(x)
        return x.mean(dim=(2, 3)).view(B, T, -1)


class PReluBlock(BasicBlock):
    """ResNet's basic block with a learnt PReLU in the place of each ReLU."""

    def __init__(self, before: int, width: int, stride: int):
        shortcut = None
        if stride != 1 or before != width:
            shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        super().__init__(before, width, stride, shortcut)
        del self.relu
        self.relu1, self.relu2 = nn.PReLU(width), nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(x + shortcut)


class TransformerEncoder(nn.Module):
    """Positional convolution, layers with the norm first, closing norm."""

    def __init__(self, config: AvHubertConfig):
        super().__init__()
        self.pos_conv = nn.ModuleList([PositionalConv(config.width, config.conv_pos, config.conv_pos_groups)])
        self.layers = nn.ModuleList(Layer(config.width, config.inner, config.heads) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        x = x + self.pos_conv[0](x)
        hidden = [x]
        wanted = len(self.layers) if last is None else last
        for number, layer in enumerate(self.layers[:wanted], 1):
            x = layer(x)
            hidden.append(self.layer_norm(x) if number == len(self.layers) else x)
        return hidden


class PositionalConv(nn.Module):
    """A grouped convolution over time whose kernel is stored as length and direction (weight norm, one length a tap)."""

    def __init__(self, width: int, kernel: int, groups: int):
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.randn(width, width // groups, kernel) / (width * kernel) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=(0, 1), keepdim=True)
        x = torch.conv1d(x.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups)
        if self.kernel % 2 == 0:
            x = x[..., :-1]  # an even kernel gives one step too many
        return gelu(x).transpose(1, 2)


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(gelu(self.fc1(self.final_layer_norm(x))))


class Attention(nn.Module):
    """Multi-head self-attention without a mask: clips of one length share a batch."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = (
            proj(x).view(B, T, self.heads, -1).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, D))
