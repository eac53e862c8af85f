"""Dlib's 68 landmarks of many faces at once, on a GPU: there the pictures lie already, and dlib takes one face at a time on a CPU.

*Source:* dlib's image_processing/shape_predictor.h, step by step and sum by sum, so that the pixels are the same. See `landmarks` for what
the model is and where its square lies.

Shape legend: B pictures, K faces, P points, F pixels, N trees, I splits of a tree.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from .landmarks import dlib_square
from .shape_model import read_shape_model


class DeviceLandmarks:
    """A shape predictor on a device. A stage is few and plain steps there: a GPU takes longer to be asked for one than to do it.

    Attributes:
        turns: (2 P, 4) float64: what takes the points to the turn and scale that bring the mean face closest to them.
        children: (2 N I,) where a split leads to if its answer is no, and if it is yes: another split, or a leaf.

    Raises:
        BmlaError: the file is none of one.
    """

    def __init__(self, file: Path, device: torch.device):
        self.device, self.model = device, read_shape_model(file, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # 2 GB, taken for a second to read the file
        model = self.model
        stages, trees, splits = model.first.shape
        self.depth = (splits + 1).bit_length() - 1
        self.roots = torch.arange(trees, device=device) * splits
        self.first, self.second, self.thresholds = (
            t.view(stages, -1) for t in (model.first, model.second, model.thresholds)
        )
        self.leaves = model.leaves.view(stages, trees * (splits + 1), -1)
        u, v = (model.mean.double() - model.mean.double().mean(0)).T
        c, s = torch.stack([u, v], -1).flatten(), torch.stack([-v, u], -1).flatten()
        self.turns = torch.stack([c, -s, s, c], -1) / (c @ c)
        split, tree = torch.arange(splits, device=device), torch.arange(trees, device=device)[:, None, None]
        after = 2 * split[:, None] + torch.tensor([2, 1], device=device)  # (I, 2)
        is_leaf = after >= splits
        self.children = torch.where(is_leaf, tree * (splits + 1) + after - splits, tree * splits + after).flatten()

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
        if not len(boxes):
            return model.mean.new_empty(0, *model.mean.shape)
        look = _Pixels(images, owner)
        squares = torch.tensor([dlib_square(box) for box in boxes], dtype=torch.float64, device=self.device)
        # 1 lies on the last pixel of the side; the half makes the whole part of a number what it rounds to.
        corner, side = squares[:, None, :2] + 0.5, squares[:, None, 2:] - 1
        points = model.mean.expand(len(boxes), -1, -1)
        for stage in range(len(self.leaves)):
            turn = (points.flatten(1).double() @ self.turns).float().view(-1, 1, 2, 2)
            places = (model.offsets[stage][:, None] * turn).sum(-1) + points[:, model.anchors[stage]]  # (K, F, 2)
            grey = look.at((corner + side * places.double()).floor().long())
            differences = grey[:, self.first[stage]] - grey[:, self.second[stage]]
            answers = (differences > self.thresholds[stage]).long()  # (K, N I)
            reached = self.roots.expand(len(boxes), -1)
            for _ in range(self.depth):
                reached = self.children[torch.add(answers.gather(1, reached), reached, alpha=2)]
            points = self._moved(points, reached, self.leaves[stage])
        return (corner + side * points.double()).floor().float()

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


class _Pixels:
    """How bright pixels are, of which some may lie beyond the border, where it is dark: pictures in grey with a dark pixel all around."""

    def __init__(self, images: Tensor, owner: Tensor):
        grey = (images.sum(-1, dtype=torch.int32) // 3).to(torch.uint8)
        _, height, width = grey.shape
        self.grey = pad(grey, (1, 1, 1, 1)).flatten()
        row = width + 2
        self.least, self.most = (torch.tensor(xy, device=grey.device) for xy in ([-1, -1], [width, height]))
        self.strides = torch.tensor([1, row], device=grey.device)
        self.first = (owner * row * (height + 2) + row + 1)[:, None]

    def at(self, places: Tensor) -> Tensor:
        """(K, F, 2) x y in pixels -> (K, F) float32, 0 to 255."""
        return self.grey[self.first + (places.clamp(self.least, self.most) * self.strides).sum(-1)].float()
