"""Dlib's 68 landmarks of many faces at once, on a GPU: there the pictures lie already, and dlib takes one face at a time on a CPU.

*Source:* dlib's image_processing/shape_predictor.h, step by step and sum by sum, so that the pixels are the same. See `landmarks` for what
the model is and where its square lies.

Shape legend: B pictures, K faces, P points, F pixels, N trees, I splits of a tree.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .landmarks import dlib_square
from .shape_model import read_shape_model


class DeviceLandmarks:
    """A shape predictor on a device.

    Raises:
        BmlaError: the file is none of one.
    """

    def __init__(self, file: Path, device: torch.device):
        self.device, self.model = device, read_shape_model(file, device)
        stages, trees, splits = self.model.first.shape
        self.depth, self.splits = (splits + 1).bit_length() - 1, splits
        self.flat = self.model.leaves.view(stages, trees * (splits + 1), -1)
        self.first_split, self.first_leaf = (torch.arange(trees, device=device) * n for n in (splits, splits + 1))
        centred = self.model.mean.double() - self.model.mean.double().mean(0)
        self.centred, self.spread = centred, centred.square().sum()

    @torch.inference_mode()
    def predict(self, images: Tensor, owner: Tensor, boxes: np.ndarray) -> Tensor:
        """Landmarks of faces, to whole pixels.

        Args:
            images: (B, H, W, 3) uint8 RGB, on the device.
            owner: (K,) the picture of each face.
            boxes: (K, 4) x0 y0 x1 y1 in pixels, as RetinaFace draws them.

        Returns:
            (K, P, 2) float32, x y in pixels.

        Raises:
            UsageError: a box has no area.
        """
        model = self.model
        squares = torch.tensor([dlib_square(box) for box in boxes], dtype=torch.float64, device=self.device).view(-1, 3)
        corner, side = squares[:, None, :2], squares[:, None, 2:] - 1  # the last pixel is where 1 lies
        points = model.mean.expand(len(boxes), -1, -1)
        for stage, leaves in enumerate(self.flat):
            places = self._turned(points, model.offsets[stage]) + points[:, model.anchors[stage]]
            grey = self._grey(images, owner, corner + side * places.double())
            first, second, thresholds = (
                part[stage].flatten() for part in (model.first, model.second, model.thresholds)
            )
            node = torch.zeros_like(self.first_split).expand(len(boxes), -1)  # (K, N)
            for _ in range(self.depth):
                at = self.first_split + node
                difference = grey.gather(1, first[at]) - grey.gather(1, second[at])
                node = 2 * node + 2 - (difference > thresholds[at]).long()
            points = self._moved(points, self.first_leaf + node - self.splits, leaves)
        return (corner + side * points.double() + 0.5).floor().float()

    def _moved(self, points: Tensor, reached: Tensor, leaves: Tensor) -> Tensor:
        """The points and all leaves that were reached, added one after the other as dlib does: in another order rounding moves one number
        in forty by a pixel. A bag is summed from its first row to its last, so that the points go first.

        Args:
            reached: (K, N) which leaves.
            leaves: (leaves, 2 P).
        """
        begin = torch.arange(len(points), device=self.device)[:, None]
        rows = torch.cat([points.flatten(1), leaves])
        return embedding_bag(torch.cat([begin, reached + len(points)], 1), rows, mode="sum").view(points.shape)

    def _turned(self, points: Tensor, offsets: Tensor) -> Tensor:
        """(F, 2) offsets in the mean face -> (K, F, 2) in each face: turned and scaled as brings the mean closest to it."""
        to = points.double() - points.double().mean(1, keepdim=True)
        (u, v), (x, y) = self.centred.unbind(-1), to.unbind(-1)
        c, s = (((u * x + v * y).sum(1) / self.spread).float(), ((u * y - v * x).sum(1) / self.spread).float())
        turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], 1)  # (K, 2, 2)
        return (offsets[:, None] * turn[:, None]).sum(-1)

    def _grey(self, images: Tensor, owner: Tensor, places: Tensor) -> Tensor:
        """(K, F) float32 brightness of the pixels at (K, F, 2); zero outside of the picture."""
        height, width = images.shape[1:3]
        x, y = (places + 0.5).floor().long().unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        colours = images[owner[:, None], y.clamp(0, height - 1), x.clamp(0, width - 1)]
        return torch.where(inside, colours.sum(-1, dtype=torch.int32) // 3, 0).float()
