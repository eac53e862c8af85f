"""What training does to a clip's pictures, drawn anew each time: crop, flip, hidden time; evaluation takes the middle crop.

These are layers: they work in training mode alone, where the model is, and draw from torch's global generators, as dropout does.
*Source:* Ma et al. (2022), on lip reading: crops of 88 of 96 pixels, flips of half of the clips, one span of time replaced by the mean
picture. A share instead of pixels and seconds is ours: crops and clips have many sizes. Mixup, their fourth, needs the labels: see
`mixup.py`.

Shape legend: see `base.py`; pictures are (b, t, height, width) or (b, t, height, width, 3).
"""

import torch
from torch import Tensor, nn


class Crop(nn.Module):
    """A part of each clip's pictures, the same of all its steps.

    Args of init:
        share: of height and of width that is kept; 1: all.
        flip: probability of being mirrored, left to right.
    """

    def __init__(self, share: float, flip: float):
        super().__init__()
        self.share, self.flip = share, flip

    def forward(self, pictures: Tensor) -> Tensor:
        """(b, t, H, W, …) -> (b, t, h, w, …) with h = round(share H), at least 1."""
        (h, spare_h), (w, spare_w) = (self.kept(size) for size in pictures.shape[2:4])
        if not self.training:
            return pictures[:, :, spare_h // 2 : spare_h // 2 + h, spare_w // 2 : spare_w // 2 + w]
        clips, place = len(pictures), pictures.device
        top, left = (torch.randint(spare + 1, (clips, 1), device=place) for spare in (spare_h, spare_w))
        rows, columns = top + torch.arange(h, device=place), left + torch.arange(w, device=place)
        mirrored = torch.rand(clips, 1, device=place) < self.flip
        columns = torch.where(mirrored, columns.flip(1), columns)
        clip = torch.arange(clips, device=place).view(-1, 1, 1, 1)
        step = torch.arange(pictures.shape[1], device=place).view(1, -1, 1, 1)
        return pictures[clip, step, rows[:, None, :, None], columns[:, None, None, :]]

    def kept(self, size: int) -> tuple[int, int]:
        """How many pixels of a side stay, and how many go."""
        stay = max(1, round(self.share * size))
        return stay, size - stay


class HideTime(nn.Module):
    """One span of each clip's valid steps at the mean of the training clips, which is zero after standardisation.

    Args of init:
        share: the longest span over the clip's valid steps; every length up to it is drawn as often.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, t, …), (b, t) -> (b, t, …)."""
        if not self.training or self.share == 0:
            return x
        count = mask.sum(1, keepdim=True)
        length, start = torch.rand(2, len(x), 1, device=x.device)
        length = (length * ((self.share * count).floor() + 1)).floor()
        start = (start * (count - length + 1)).floor()
        number = mask.cumsum(1) - 1
        hidden = (number >= start) & (number < start + length)
        return x.masked_fill(hidden.view(*hidden.shape, *(1,) * (x.ndim - 2)), 0.0)
