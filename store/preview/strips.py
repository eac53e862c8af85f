"""A clip's crops as one picture: frames evenly spaced in time, side by side, as JPEG.

Shape legend: n frames of a clip, k of them shown, H x W a crop.
"""

from io import BytesIO

import numpy as np

FRAMES = 8
LARGEST_SIDE = 112  # pixels of a shown crop; a larger one is shrunk by a whole factor
GAP, MARK = 2, 4  # pixels between frames; height of the mark under a frame that is not valid
GROUND_COLOUR, MARK_COLOUR = (128, 128, 128), (230, 97, 0)
QUALITY = 85


def frames_shown(steps: int) -> np.ndarray:
    """Which steps of a clip of so many are shown: the first, the last and evenly spaced ones between, each once."""
    return np.unique(np.linspace(0, steps - 1, min(FRAMES, steps)).round().astype(int))


def strip(pictures: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The shown frames in a row; an orange mark stands under those that are not valid.

    Args:
        pictures: (n, H, W) grey or (n, H, W, 3) RGB, uint8; n >= 1.
        valid: (n,) bool.

    Returns:
        (H' + MARK, k (W' + GAP) - GAP, 3) uint8; H', W' at most LARGEST_SIDE.
    """
    shown = frames_shown(len(pictures))
    frames = [shrunk(pictures[i]) for i in shown]
    height, width = frames[0].shape[:2]
    row = np.full((height + MARK, len(frames) * (width + GAP) - GAP, 3), GROUND_COLOUR, np.uint8)
    for place, (i, frame) in enumerate(zip(shown, frames, strict=True)):
        x = place * (width + GAP)
        row[:height, x : x + width] = frame
        if not valid[i]:
            row[height:, x : x + width] = MARK_COLOUR
    return row


def shrunk(picture: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) as (H', W', 3): mean over squares of the smallest whole factor that makes it fit."""
    height, width = picture.shape[:2]
    k = min(-(-max(height, width) // LARGEST_SIDE), height, width)
    coloured = np.broadcast_to(picture.reshape(height, width, -1), (height, width, 3))
    cut = coloured[: height // k * k, : width // k * k]
    return cut.reshape(height // k, k, width // k, k, 3).mean((1, 3)).round().astype(np.uint8)


def jpeg(picture: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a file: the same picture gives the same bytes."""
    from matplotlib.image import imsave

    buffer = BytesIO()
    imsave(buffer, picture, format="jpg", pil_kwargs={"quality": QUALITY, "subsampling": 0})
    return buffer.getvalue()
