"""From the steps of any stream to vectors: pictures and spectra by convolution, cached vectors as they are.

    pixels (t, h, w[, 3])      64 kernels 5 x 7 x 7 over time, height, width  ->  batch norm, ReLU, pooling  ->  ResNet-34 a step
    stacks (t, 3, bands)       the same, over time, bands and the order of the derivative: one cube of one colour
    vectors (t, l)             standardised

*Source:* Sec. 4.2 (64 kernels, 5 x 7 x 7, ResNet-34; the cube: Sec. 4.1.2); strides 1 x 2 x 2 and the pooling over 3 x 3 with stride 2 are
those of Stafylakis and Tzimiropoulos (2017), from where the field has this front end. ResNet: He et al. (2016), blocks by torchvision.

A step that is not valid is zero to the convolution, as is what lies beyond a clip's ends, and goes no further: batch
normalisation and ResNet see valid steps alone, so that neither padding nor lost faces enter the statistics.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig
from .augment import Crop, HideTime
from .base import Input, Standardise, Steps
from .kinds import PIXELS, VECTORS

KERNEL, STRIDE, PADDING = (5, 7, 7), (1, 2, 2), (2, 3, 3)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
CLIPS_AT_ONCE = 16  # in evaluation, where batches are large: bounds memory, and changes nothing


class VectorFront(nn.Module):
    """Standardised vectors, some time of them hidden in training."""

    def __init__(self, source: Input, time_mask: float):
        super().__init__()
        self.length = source.length
        self.standardise = Standardise(source.length)
        self.hide = HideTime(time_mask)

    def forward(self, steps: Steps) -> Tensor:
        """(b, t, l) -> (b, t, l), zero at invalid steps."""
        hidden: Tensor = self.hide(self.standardise(steps), steps.mask)
        return hidden


class PictureFront(nn.Module):
    """See the module.

    Attributes:
        length: of the vectors that come out: 8 times the number of kernels.
    """

    def __init__(self, source: Input, config: RunConfig):
        super().__init__()
        self.pixels = source.kind == PIXELS
        colours = source.layout[2] if self.pixels and len(source.layout) == 3 else 1
        self.standardise = Standardise(colours) if self.pixels else Standardise(source.layout[0], 1)
        self.crop = Crop(config.crop, config.flip) if self.pixels else nn.Identity()
        self.hide = HideTime(config.time_mask)
        width = config.front_width
        self.convolution = nn.Conv3d(colours, width, KERNEL, STRIDE, PADDING, bias=False)
        self.trunk = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            *residual_blocks(width, BLOCKS[config.resnet_depth]),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.length = 8 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, steps: Steps) -> Tensor:
        """(b, t, …) -> (b, t, length), zero at invalid steps."""
        if self.training or torch.compiler.is_exporting():  # a graph takes any number of clips
            return self.encode(*steps)
        parts = zip(steps.values.split(CLIPS_AT_ONCE), steps.mask.split(CLIPS_AT_ONCE), strict=True)
        return torch.cat([self.encode(*part) for part in parts])

    def encode(self, values: Tensor, mask: Tensor) -> Tensor:
        """As `forward`, of some clips."""
        x = self.standardise(Steps(self.crop(values), mask))
        x = self.hide(x, mask)
        if not self.pixels:
            x = x.transpose(2, 3)  # (b, t, bands, 3): height and width
        x = x.movedim(-1, 1) if x.ndim == 5 else x[:, None]  # (b, colours, t, h, w)
        if torch.compiler.is_exporting():  # a graph has no place for a number of frames that the values decide
            x = self.convolution(x).transpose(1, 2)  # (b, t, kernels, h', w')
            return self.trunk(x.flatten(0, 1)).view(*mask.shape, -1).masked_fill(~mask[..., None], 0.0)
        frames = self.convolved(x, mask)
        out = x.new_zeros(*mask.shape, self.length)
        if len(frames):
            vectors = self.through_trunk(frames)
            out = out.to(vectors.dtype).masked_scatter(mask[..., None], vectors)
        return out

    def convolved(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, colours, t, h, w), (b, t) -> (valid steps, kernels, h', w'): `convolution`, there alone where a step is valid.

        In clips of many lengths most steps are padding. Each valid step with its neighbours is a picture of more colours, which a
        convolution over height and width takes; with the channels last, as here, it and the trunk take a third less time on a CPU.
        """
        taps = KERNEL[0]
        clip, step = mask.nonzero(as_tuple=True)
        near = step[:, None] + torch.arange(taps, device=step.device)
        steps = F.pad(x, (0, 0, 0, 0, PADDING[0], PADDING[0])).transpose(1, 2)
        pictures = steps[clip[:, None], near].transpose(1, 2).flatten(1, 2)  # (valid steps, colours * taps, h, w)
        kernels = self.convolution.weight.flatten(1, 2)
        return F.conv2d(
            pictures.contiguous(memory_format=torch.channels_last), kernels, stride=STRIDE[1:], padding=PADDING[1:]
        ).contiguous(memory_format=torch.channels_last)

    def through_trunk(self, frames: Tensor) -> Tensor:
        """A single step has no statistics of its own: it is normalised by the running ones."""
        self.trunk.train(self.training and len(frames) > 1)
        vectors: Tensor = self.trunk(frames)
        return vectors


def residual_blocks(width: int, counts: tuple[int, ...]) -> list[nn.Module]:
    """Four stages of blocks; each but the first halves height and width, and doubles the channels."""
    from torchvision.models.resnet import BasicBlock  # imports a compiler, 3 s: not for vectors, nor for a report

    blocks: list[nn.Module] = []
    before = width
    for stage, count in enumerate(counts):
        channels = width << stage
        for number in range(count):
            stride = 2 if stage and number == 0 else 1
            narrower = None
            if stride != 1 or before != channels:
                narrower = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
            blocks.append(BasicBlock(before, channels, stride, narrower))
            before = channels
    return blocks


def front(source: Input, config: RunConfig) -> VectorFront | PictureFront:
    """What suits a stream."""
    return VectorFront(source, config.time_mask) if source.kind == VECTORS else PictureFront(source, config)
