"""AVBERT's two ResNet-50s: over time and space for pictures, over frequency and time for sound.

*Source:* as in `avbert`: the folder's video_model_builder, audio_model_builder and their helpers (after SlowFast, Feichtenhofer
et al. 2019). The published views come out of the last stage as 16 x 4 x 4 and 5 x 8, which the code's pooling covers whole:
here the mean.

Shape legend: N views, F frames, S side, M mel bands, C columns.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

TEMPORAL = (1, 1, 3, 3)  # kernel over time of each stage's first convolution


class Visual3d(nn.Module):
    """(N, 3, F, S, S) -> (N, 32 width)."""

    def __init__(self, width: int, blocks: Sequence[int]):
        super().__init__()
        self.length = 32 * width
        self.s1 = nn.ModuleDict({"pathway0_stem": Stem3d(width)})
        before = width
        for stage, (count, kernel) in enumerate(zip(blocks, TEMPORAL, strict=True)):
            made, inner = nn.Module(), width * 2**stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                made.add_module(f"pathway0_res{number}", Block3d(before, inner, kernel, stride))
                before = 4 * inner
            self.add_module(f"s{stage + 2}", made)

    def forward(self, x: Tensor) -> Tensor:
        x = self.s1["pathway0_stem"](x)
        for stage in range(2, 6):
            for block in self.get_submodule(f"s{stage}").children():
                x = block(x)
        return x.mean(dim=(2, 3, 4))


class Stem3d(nn.Module):
    """An eighth of the pictures' area, half of their number."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv3d(3, width, (5, 7, 7), 2, (2, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(width)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(relu(self.bn(self.conv(x))))


class Block3d(nn.Module):
    """A bottleneck of ResNet; its first convolution looks over time."""

    def __init__(self, before: int, inner: int, kernel: int, stride: int):
        super().__init__()
        out = 4 * inner
        self.shortcut = before != out or stride != 1
        if self.shortcut:
            self.branch1 = nn.Conv3d(before, out, 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(out)
        self.branch2 = nn.Module()
        for name, conv, width in (
            ("a", nn.Conv3d(before, inner, (kernel, 1, 1), padding=(kernel // 2, 0, 0), bias=False), inner),
            ("b", nn.Conv3d(inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False), inner),
            ("c", nn.Conv3d(inner, out, 1, bias=False), out),
        ):
            self.branch2.add_module(name, conv)
            self.branch2.add_module(f"{name}_bn", nn.BatchNorm3d(width))

    def forward(self, x: Tensor) -> Tensor:
        return bottleneck(self, x)


class Audio2d(nn.Module):
    """(N, 1, M, C) -> (N, 32 width)."""

    def __init__(self, width: int, blocks: Sequence[int]):
        super().__init__()
        self.length = 32 * width
        self.s1 = nn.ModuleDict({"stem": Stem2d(width)})
        before = width
        for stage, count in enumerate(blocks):
            made, inner = nn.Module(), width * 2**stage
            for number in range(count):
                made.add_module(f"res{number}", Block2d(before, inner, 1 if number else 2, separate=stage < 2))
                before = 4 * inner
            self.add_module(f"s{stage + 2}", made)

    def forward(self, x: Tensor) -> Tensor:
        x = self.s1["stem"](x)
        for stage in range(2, 6):
            for block in self.get_submodule(f"s{stage}").children():
                x = block(x)
        return x.mean(dim=(2, 3))


class Stem2d(nn.Module):
    """First along frequency, then along time."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, (9, 1), padding=(4, 0), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, (1, 9), padding=(0, 4), bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))


class Block2d(nn.Module):
    """A bottleneck of ResNet. separate: its middle convolution goes along frequency and then along time."""

    def __init__(self, before: int, inner: int, stride: int, separate: bool):
        super().__init__()
        out = 4 * inner
        self.shortcut = before != out or stride != 1
        if self.shortcut:
            self.branch1 = nn.Conv2d(before, out, 1, stride, bias=False)
            self.branch1_bn = nn.BatchNorm2d(out)
        self.branch2 = nn.Module()
        if separate:
            middle = [
                ("b1", nn.Conv2d(inner, inner, (3, 1), (stride, 1), (1, 0), bias=False)),
                ("b2", nn.Conv2d(inner, inner, (1, 3), (1, stride), (0, 1), bias=False)),
            ]
        else:
            middle = [("b", nn.Conv2d(inner, inner, 3, stride, 1, bias=False))]
        ends = ("a", nn.Conv2d(before, inner, 1, bias=False)), ("c", nn.Conv2d(inner, out, 1, bias=False))
        for name, conv in (ends[0], *middle, ends[1]):
            self.branch2.add_module(name, conv)
            self.branch2.add_module(f"{name}_bn", nn.BatchNorm2d(conv.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return bottleneck(self, x)


def bottleneck(block: Block2d | Block3d, x: Tensor) -> Tensor:
    """relu(shortcut + convolutions, each with its norm and, but for the last, a ReLU)."""
    kept = block.branch1_bn(block.branch1(x)) if block.shortcut else x
    for name, layer in block.branch2.named_children():
        x = layer(x)
        if name.endswith("_bn") and name != "c_bn":
            x = relu(x)
    return relu(kept + x)
