"""RetinaFace in plain torch, made for batches: normalised pictures in, per level a score map and its features out.

Source: biubug6/Pytorch_Retinaface (MIT), `models/net.py` and `models/retinaface.py`; module names are the published ones,
so a convolution's name here is its key in a public checkpoint. Three things differ from the source, none changes a result:
pictures are RGB, BatchNorm is folded into the convolution before it when weights are read, and the heads of boxes and landmarks are
evaluated only where the score passes (`RetinaFace.decode`), not at every anchor.

Shape legend: B pictures, C channels, H x W pixels, h x w cells of a level, K cells that passed.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN_RGB = (123.0, 117.0, 104.0)
STRIDES_PX = (8, 16, 32)
ANCHORS_PX = ((16, 32), (64, 128), (256, 512))  # two square anchors a cell
ANCHORS_A_CELL = 2
HEADS = ("ClassHead", "BboxHead", "LandmarkHead")
BOX, POINTS = 4, 10  # numbers an anchor: centre and size; five points
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2

Convs = dict[str, tuple[Tensor, Tensor]]  # published name of a convolution: weight (out, in, k, k) and bias (out,)
Anchors = tuple[
    Tensor, Tensor
]  # of one level: (B, h, w, 2) logits of "a face"; (B, h, w, C) features for `RetinaFace.decode`


class Conv(nn.Module):
    """A convolution with bias and "same" padding, then max(x, slope * x) in place; slope 1 leaves x as it is."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, slope: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, size, size), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False)
        self.stride, self.groups, self.slope = stride, groups, slope

    def forward(self, x: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        if size == self.stride == self.groups == 1:
            # One matrix product. torch's convolution of this size picks its kernel by batch and threads, and last bits with it.
            y = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        else:
            y = F.conv2d(x, self.weight, self.bias, self.stride, size // 2, 1, self.groups)
        if self.slope == 1.0:
            return y
        return y.relu_() if self.slope == 0.0 else F.leaky_relu_(y, self.slope)


def _chain(**convs: Conv) -> nn.Sequential:
    """A sequence whose members carry the indices that they have in the published module (given as i0, i3, …)."""
    return nn.Sequential(OrderedDict((name[1:], conv) for name, conv in convs.items()))


class MobileNet(nn.Module):
    """MobileNetV1 of width 0.25: (B, 3, H, W) -> 64, 128 and 256 channels at strides 8, 16 and 32."""

    CHANNELS = (64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        first = _chain(i0=Conv(3, 8, 3, stride=2, slope=0.1))
        self.stage1 = nn.Sequential(first, *self._blocks((8, 1), (16, 2), (32, 1), (32, 2), (64, 1), last=64))
        self.stage2 = nn.Sequential(*self._blocks((64, 2), *[(128, 1)] * 5, last=128))
        self.stage3 = nn.Sequential(*self._blocks((128, 2), (256, 1), last=256))

    @staticmethod
    def _blocks(*steps: tuple[int, int], last: int) -> list[nn.Sequential]:
        outputs = [inputs for inputs, _ in steps[1:]] + [last]
        return [
            _chain(i0=Conv(i, i, 3, stride=stride, groups=i, slope=0.1), i3=Conv(i, o, 1, slope=0.1))
            for (i, stride), o in zip(steps, outputs, strict=True)
        ]

    def forward(self, x: Tensor) -> list[Tensor]:
        at_8 = self.stage1(x)
        at_16 = self.stage2(at_8)
        return [at_8, at_16, self.stage3(at_16)]


class Bottleneck(nn.Module):
    """One residual block of ResNet-50 (stride in the 3 x 3 convolution, as torchvision has it)."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = Conv(inputs, width, 1, slope=0.0)
        self.conv2 = Conv(width, width, 3, stride=stride, slope=0.0)
        self.conv3 = Conv(width, 4 * width, 1)
        widens = inputs != 4 * width or stride != 1
        self.downsample = _chain(i0=Conv(inputs, 4 * width, 1, stride=stride)) if widens else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv3(self.conv2(self.conv1(x))) + self.downsample(x)).relu_()


class ResNet50(nn.Module):
    """ResNet-50 without its classifier: (B, 3, H, W) -> 512, 1024 and 2048 channels at strides 8, 16 and 32."""

    CHANNELS = (512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv(3, 64, 7, stride=2, slope=0.0)
        self.layer1 = self._layer(64, 64, blocks=3, stride=1)
        self.layer2 = self._layer(256, 128, blocks=4, stride=2)
        self.layer3 = self._layer(512, 256, blocks=6, stride=2)
        self.layer4 = self._layer(1024, 512, blocks=3, stride=2)

    @staticmethod
    def _layer(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(Bottleneck(inputs, width, stride), *rest)

    def forward(self, x: Tensor) -> list[Tensor]:
        at_8 = self.layer2(self.layer1(F.max_pool2d(self.conv1(x), 3, 2, 1)))
        at_16 = self.layer3(at_8)
        return [at_8, at_16, self.layer4(at_16)]


class FPN(nn.Module):
    """Feature pyramid: each level is brought to C channels; the coarser one is added to the finer one."""

    def __init__(self, inputs: tuple[int, int, int], channels: int, slope: float):
        super().__init__()
        self.output1, self.output2, self.output3 = (_chain(i0=Conv(i, channels, 1, slope=slope)) for i in inputs)
        self.merge1 = _chain(i0=Conv(channels, channels, 3, slope=slope))
        self.merge2 = _chain(i0=Conv(channels, channels, 3, slope=slope))

    def coarse(self, at_16: Tensor, at_32: Tensor) -> tuple[Tensor, Tensor]:
        """The levels of strides 16 and 32."""
        at_16, at_32 = self.output2(at_16), self.output3(at_32)
        return self.merge2(at_16.add_(F.interpolate(at_32, size=at_16.shape[2:], mode="nearest"))), at_32

    def fine(self, at_8: Tensor, at_16: Tensor) -> Tensor:
        """The level of stride 8 from the backbone's and from the pyramid's of stride 16."""
        at_8 = self.output1(at_8)
        return self.merge1(at_8.add_(F.interpolate(at_16, size=at_8.shape[2:], mode="nearest")))


class SSH(nn.Module):
    """Context module: 3 x 3, 5 x 5 and 7 x 7 fields of view (as stacked 3 x 3) side by side; C channels in and out."""

    def __init__(self, channels: int, slope: float):
        super().__init__()
        quarter = channels // 4
        self.conv3X3 = _chain(i0=Conv(channels, channels // 2, 3))
        self.conv5X5_1 = _chain(i0=Conv(channels, quarter, 3, slope=slope))
        self.conv5X5_2 = _chain(i0=Conv(quarter, quarter, 3))
        self.conv7X7_2 = _chain(i0=Conv(quarter, quarter, 3, slope=slope))
        self.conv7x7_3 = _chain(i0=Conv(quarter, quarter, 3))

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5X5_1(x)
        seven = self.conv7x7_3(self.conv7X7_2(shared))
        return torch.cat([self.conv3X3(x), self.conv5X5_2(shared), seven], dim=1).relu_()


class RetinaFace(nn.Module):
    """The network of one backbone: "mobilenet0.25" (64 channels in the pyramid) or "resnet50" (256). Empty until `load`."""

    def __init__(self, backbone: str):
        super().__init__()
        self.body = MobileNet() if backbone == "mobilenet0.25" else ResNet50()
        channels, slope = (64, 0.1) if backbone == "mobilenet0.25" else (256, 0.0)
        self.fpn = FPN(self.body.CHANNELS, channels, slope)
        self.ssh1, self.ssh2, self.ssh3 = (SSH(channels, slope) for _ in STRIDES_PX)
        self.scores = nn.ModuleList(Conv(channels, ANCHORS_A_CELL, 1) for _ in STRIDES_PX)
        self.geometry = nn.ModuleList(Conv(channels, ANCHORS_A_CELL * (BOX + POINTS), 1) for _ in STRIDES_PX)

    def load(self, convs: Convs) -> "RetinaFace":
        """Takes all convolutions that `published_shapes` names, BatchNorm folded in. Returns itself."""
        state: dict[str, Tensor] = {}
        for name, (weight, bias) in convs.items():
            if not name.startswith(HEADS):
                takes_picture = weight.shape[1] == 3  # published for BGR
                state |= {f"{name}.weight": weight.flip(1) if takes_picture else weight, f"{name}.bias": bias}
        for level in range(len(STRIDES_PX)):
            classes, boxes, points = (convs[f"{head}.{level}.conv1x1"] for head in HEADS)
            for i, part in enumerate(("weight", "bias")):
                # The softmax over (background, face) is the sigmoid of their difference: one number an anchor, not two.
                background, face = classes[i].unflatten(0, (ANCHORS_A_CELL, 2)).unbind(1)
                geometry = [v[i].unflatten(0, (ANCHORS_A_CELL, -1)) for v in (boxes, points)]
                state |= {f"scores.{level}.{part}": face - background}
                state |= {f"geometry.{level}.{part}": torch.cat(geometry, dim=1).flatten(0, 1)}
        self.load_state_dict(state, strict=True)
        return self.to(memory_format=torch.channels_last)

    def forward(self, pictures: Tensor) -> list[Anchors]:
        """Scores at all levels, of strides 8, 16 and 32.

        Args:
            pictures: (B, 3, H, W) float32, RGB less `MEAN_RGB`; fastest in channels-last order.
        """
        at_8, at_16, coarse = self.coarse(pictures)
        return [self.fine(at_8, at_16), *coarse]

    def coarse(self, pictures: Tensor) -> tuple[Tensor, Tensor, list[Anchors]]:
        """Scores at strides 16 and 32, after the two tensors that `fine` needs: less than half of the work."""
        at_8, *deeper = self.body(pictures)
        at_16, at_32 = self.fpn.coarse(*deeper)
        return at_8, at_16, [self._anchors(self.ssh2(at_16), 1), self._anchors(self.ssh3(at_32), 2)]

    def fine(self, at_8: Tensor, at_16: Tensor) -> Anchors:
        """Scores at stride 8: anchors of 16 and 32 pixels."""
        return self._anchors(self.ssh1(self.fpn.fine(at_8, at_16)), 0)

    def _anchors(self, features: Tensor, level: int) -> Anchors:
        return self.scores[level](features).permute(0, 2, 3, 1), features.permute(0, 2, 3, 1)

    def decode(self, level: int, features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and landmarks of the anchors that passed.

        Args:
            features: (K, C) of their cells.
            cells: (K, 3) int64: row, column and anchor of each.

        Returns:
            (K, 4) x0 y0 x1 y1 and (K, 5, 2) x y, in pixels of the pictures given to the network.
        """
        raw = self.geometry[level](features[:, :, None, None]).view(-1, ANCHORS_A_CELL, BOX + POINTS)
        row, column, anchor = cells.unbind(1)
        raw = raw[torch.arange(len(raw), device=raw.device), anchor]  # (K, 14)
        centre = (torch.stack([column, row], dim=1) + 0.5) * STRIDES_PX[level]  # (K, 2)
        side = torch.tensor(ANCHORS_PX[level], dtype=raw.dtype, device=raw.device)[anchor, None]  # (K, 1)
        middle = centre + raw[:, :2] * CENTRE_VARIANCE * side
        half = side * torch.exp(raw[:, 2:BOX] * SIZE_VARIANCE) / 2
        landmarks = centre[:, None] + raw[:, BOX:].unflatten(1, (5, 2)) * CENTRE_VARIANCE * side[:, None]
        return torch.cat([middle - half, middle + half], dim=1), landmarks


def published_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    """Name and weight shape of every convolution, as the public checkpoints have them."""
    with torch.device("meta"):
        network = RetinaFace(backbone)
    named = {name: tuple(m.weight.shape) for name, m in network.named_modules() if isinstance(m, Conv)}
    shapes = {name: shape for name, shape in named.items() if not name.startswith(("scores", "geometry"))}
    channels = named["scores.0"][1]
    for head, numbers in zip(HEADS, (2, BOX, POINTS), strict=True):
        for level in range(len(STRIDES_PX)):
            shapes[f"{head}.{level}.conv1x1"] = (ANCHORS_A_CELL * numbers, channels, 1, 1)
    return shapes
