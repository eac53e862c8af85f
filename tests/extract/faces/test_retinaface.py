"""Ours equals the published network, BatchNorm and all anchors, which is written out here for comparison.

The reference follows biubug6/Pytorch_Retinaface's `models/net.py` and `models/retinaface.py`; names make the published keys.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter

from bmla.extract.faces.retinaface import RetinaFace, published_shapes
from bmla.extract.faces.retinaface_weights import fold

PRIOR_SIDES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}


def conv_bn(i, o, size=3, stride=1, slope=None, groups=1):
    layers = [nn.Conv2d(i, o, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return layers if slope is None else [*layers, nn.LeakyReLU(slope)]


def conv_dw(i, o, stride):
    return nn.Sequential(*conv_bn(i, i, stride=stride, slope=0.1, groups=i), *conv_bn(i, o, size=1, slope=0.1))


class MobileNetV1(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [(8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
        self.stage1 = nn.Sequential(nn.Sequential(*conv_bn(3, 8, stride=2, slope=0.1)), *[conv_dw(*w) for w in widths])
        self.stage2 = nn.Sequential(conv_dw(64, 128, 2), *[conv_dw(128, 128, 1) for _ in range(5)])
        self.stage3 = nn.Sequential(conv_dw(128, 256, 2), conv_dw(256, 256, 1))


class Pyramid(nn.Module):
    def __init__(self, inputs, o, slope):
        super().__init__()
        self.output1, self.output2, self.output3 = (nn.Sequential(*conv_bn(i, o, size=1, slope=slope)) for i in inputs)
        self.merge1, self.merge2 = (nn.Sequential(*conv_bn(o, o, slope=slope)) for _ in range(2))

    def forward(self, a, b, c):
        a, b, c = self.output1(a), self.output2(b), self.output3(c)
        b = self.merge2(b + F.interpolate(c, size=b.shape[2:], mode="nearest"))
        a = self.merge1(a + F.interpolate(b, size=a.shape[2:], mode="nearest"))
        return a, b, c


class Context(nn.Module):
    def __init__(self, o, slope):
        super().__init__()
        self.conv3X3 = nn.Sequential(*conv_bn(o, o // 2))
        self.conv5X5_1 = nn.Sequential(*conv_bn(o, o // 4, slope=slope))
        self.conv5X5_2 = nn.Sequential(*conv_bn(o // 4, o // 4))
        self.conv7X7_2 = nn.Sequential(*conv_bn(o // 4, o // 4, slope=slope))
        self.conv7x7_3 = nn.Sequential(*conv_bn(o // 4, o // 4))

    def forward(self, x):
        y = self.conv5X5_1(x)
        return F.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(y), self.conv7x7_3(self.conv7X7_2(y))], dim=1))


class Head(nn.Module):
    def __init__(self, i, numbers):
        super().__init__()
        self.conv1x1 = nn.Conv2d(i, 2 * numbers, 1)
        self.numbers = numbers

    def forward(self, x):
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(len(x), -1, self.numbers)


class PublishedRetinaFace(nn.Module):
    """(B, 3, H, W) BGR less its mean -> class probabilities (B, A, 2), raw boxes (B, A, 4), raw landmarks (B, A, 10)."""

    def __init__(self, backbone):
        super().__init__()
        if backbone == "mobilenet0.25":
            names, inputs, o, slope, network = ("stage1", "stage2", "stage3"), (64, 128, 256), 64, 0.1, MobileNetV1()
        else:
            names, inputs, o, slope = ("layer2", "layer3", "layer4"), (512, 1024, 2048), 256, 0.0
            network = resnet50(weights=None)
        self.body = IntermediateLayerGetter(network, {name: str(i) for i, name in enumerate(names)})
        self.fpn = Pyramid(inputs, o, slope)
        self.ssh1, self.ssh2, self.ssh3 = (Context(o, slope) for _ in range(3))
        for name, numbers in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
            setattr(self, name, nn.ModuleList(Head(o, numbers) for _ in range(3)))

    def forward(self, x):
        levels = self.fpn(*self.body(x).values())
        features = [ssh(level) for ssh, level in zip((self.ssh1, self.ssh2, self.ssh3), levels, strict=True)]
        classes, boxes, points = (
            torch.cat([head(f) for head, f in zip(heads, features, strict=True)], dim=1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        )
        return classes.softmax(dim=2), boxes, points


def seeded(backbone, seed=0):
    """The network in eval mode with random weights and running statistics that are not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PublishedRetinaFace(backbone).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 1.0)
                module.bias.data.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return network


def priors(height, width):
    """Centres and sides in pixels, one anchor after the other, by the loops of the published `PriorBox`."""
    rows = []
    for stride, sides in PRIOR_SIDES.items():
        for i in range(-(-height // stride)):
            for j in range(-(-width // stride)):
                rows += [((j + 0.5) * stride, (i + 0.5) * stride, side) for side in sides]
    return torch.tensor(rows)


def decode(boxes, points, anchors):
    """The published decoding, written out: (A, 4) corners and (A, 5, 2) points in pixels."""
    x, y, side = anchors.T
    cx, cy = x + 0.1 * side * boxes[:, 0], y + 0.1 * side * boxes[:, 1]
    w, h = side * torch.exp(0.2 * boxes[:, 2]), side * torch.exp(0.2 * boxes[:, 3])
    corners = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1)
    marks = [
        torch.stack([x + 0.1 * side * points[:, 2 * k], y + 0.1 * side * points[:, 2 * k + 1]], dim=1) for k in range(5)
    ]
    return corners, torch.stack(marks, dim=1)


def everywhere(network, pictures):
    """All anchors of ours in the published order: face probabilities (B, A), boxes (B, A, 4), landmarks (B, A, 5, 2)."""
    scores, boxes, points = [], [], []
    for level, (logits, features) in enumerate(network(pictures)):
        B, h, w, anchors = logits.shape
        cells = torch.cartesian_prod(torch.arange(h), torch.arange(w), torch.arange(anchors))
        found = [network.decode(level, f[cells[:, 0], cells[:, 1]], cells) for f in features]
        scores.append(logits.sigmoid().reshape(B, -1))
        boxes.append(torch.stack([box for box, _ in found]))
        points.append(torch.stack([point for _, point in found]))
    return torch.cat(scores, 1), torch.cat(boxes, 1), torch.cat(points, 1)


@pytest.mark.parametrize("backbone", ["mobilenet0.25", "resnet50"])
def test_folded_network_equals_the_published_one_at_every_anchor(backbone):
    reference = seeded(backbone)
    ours = RetinaFace(backbone).load(fold(reference.state_dict(), published_shapes(backbone), "seeded"))
    rgb = 60 * torch.randn(2, 3, 72, 104, generator=torch.Generator().manual_seed(1))  # not multiples of 32
    anchors = priors(72, 104)
    with torch.no_grad():
        classes, raw_boxes, raw_points = reference(rgb.flip(1))
        scores, boxes, points = everywhere(ours, rgb.contiguous(memory_format=torch.channels_last))
    assert classes[..., 1].std() > 0.02  # the random network does tell places apart
    assert scores.shape[1] == len(anchors)
    torch.testing.assert_close(scores, classes[..., 1], rtol=0, atol=1e-4)
    for b in range(2):
        expected_boxes, expected_points = decode(raw_boxes[b], raw_points[b], anchors)
        torch.testing.assert_close(boxes[b], expected_boxes, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(points[b], expected_points, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("backbone", ["mobilenet0.25", "resnet50"])
def test_published_shapes_are_those_of_the_published_network(backbone):
    convs = {
        n: tuple(m.weight.shape) for n, m in PublishedRetinaFace(backbone).named_modules() if isinstance(m, nn.Conv2d)
    }
    assert published_shapes(backbone) == convs


def test_box_of_a_written_out_anchor():
    network = RetinaFace("mobilenet0.25").load(
        fold(seeded("mobilenet0.25").state_dict(), published_shapes("mobilenet0.25"), "")
    )
    head = network.geometry[1]
    head.weight.zero_()
    second = [1.0, -2.0, 0.5, -0.5, *range(10)]
    head.bias.copy_(torch.tensor([9.0] * 14 + second))
    boxes, points = network.decode(1, torch.zeros(1, 64), torch.tensor([[2, 3, 1]]))
    # Stride 16, row 2, column 3, side 128: centre (56, 40), moved by 0.1 x 128 x (1, -2).
    w, h = 128 * 2.718281828**0.1, 128 * 2.718281828**-0.1
    assert boxes[0].tolist() == pytest.approx([68.8 - w / 2, 14.4 - h / 2, 68.8 + w / 2, 14.4 + h / 2], abs=1e-3)
    assert points[0, 0].tolist() == pytest.approx([56.0, 40 + 12.8], abs=1e-3)
    assert points[0, 4].tolist() == pytest.approx([56 + 12.8 * 8, 40 + 12.8 * 9], abs=1e-3)


def test_loading_draws_no_random_numbers():
    before = torch.get_rng_state()
    RetinaFace("mobilenet0.25")
    published_shapes("resnet50")
    assert torch.equal(torch.get_rng_state(), before)
