"""From detections to the one face of a clip: the largest, most persistent one, followed from frame to frame.

Ours; the paper does not say which face is taken where there are several. Faces are linked by overlap with where they
were last seen, however long ago: clips are short, and a face that the detector loses reappears about where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...store.errors import NoFace
from .detections import Faces
from .smoothing import fill_gaps

MIN_IOU = 0.3  # a head at 25 frames a second overlaps itself by far more, two heads side by side by less


@dataclass(frozen=True)
class Track:
    """One face over T frames.

    Attributes:
        boxes: (T, 4) float32, x0 y0 x1 y1 in pixels; interpolated where the face was not found, nearest at the ends.
        valid: (T,) bool: the face was found in this very frame.
        scores: (T,) float32; 0 where it was not found.
        points: of each frame (68, 2) landmarks, where the detector gave them.
    """

    boxes: np.ndarray
    valid: np.ndarray
    scores: np.ndarray
    points: list[np.ndarray | None]


def describe_track() -> dict[str, Any]:
    """What shapes a track, for the stream specification."""
    return {"rule": "largest sum of areas x share of frames", "link_iou": MIN_IOU}


def choose_track(frames: Sequence[Faces], of: int | None = None) -> Track:
    """The track whose summed area, times the share of frames in which it was found, is largest; the earliest of equals.

    Args:
        frames: those that the detector looked at.
        of: how many frames the clip has, where it did not look at all; for the error.

    Raises:
        NoFace: no frame has a face; says how many frames there were and the best score that fell short.
    """
    candidates = _link(frames)
    if not candidates:
        looked = f" looked at, of {of}" if of is not None and of != len(frames) else ""
        best = f"; the best score was {max(f.best for f in frames):.2f}" if frames else ""
        raise NoFace(f"no face in any of {len(frames)} frames{looked}{best}")
    chosen = max(candidates, key=lambda c: c.weight(len(frames)))
    boxes, scores = np.zeros((len(frames), 4), np.float32), np.zeros(len(frames), np.float32)
    valid = np.zeros(len(frames), bool)
    points: list[np.ndarray | None] = [None] * len(frames)
    for t, k in chosen.found:
        boxes[t], scores[t], valid[t] = frames[t].boxes[k], frames[t].scores[k], True
        given = frames[t].points
        points[t] = None if given is None else given[k]
    return Track(fill_gaps(boxes, valid), valid, scores, points)


def spread(track: Track, looked_at: Sequence[int], n_frames: int) -> Track:
    """A track over the frames that the detector looked at -> over all T frames of the clip.

    Boxes lie between those of the nearest frames in which the face was found, in proportion to time. A frame that was not
    looked at is valid where the face was found in both of the looked-at frames around it; its score is NaN.

    Args:
        looked_at: (K,) ascending, the first and the last frame among them.
    """
    looked = np.asarray(looked_at)
    boxes, found = np.zeros((n_frames, 4), np.float32), np.zeros(n_frames, bool)
    scores = np.full(n_frames, np.nan, np.float32)
    boxes[looked], found[looked], scores[looked] = track.boxes, track.valid, track.scores
    frames = np.arange(n_frames)
    before = looked[np.searchsorted(looked, frames, side="right") - 1]
    after = looked[np.searchsorted(looked, frames)]
    points: list[np.ndarray | None] = [None] * n_frames
    for t, known in zip(looked, track.points, strict=True):
        points[t] = known
    return Track(fill_gaps(boxes, found), found[before] & found[after], scores, points)


@dataclass
class _Candidate:
    """A face being followed: (frame, index) of its detections, where it was last seen, and its summed area."""

    last: np.ndarray
    found: list[tuple[int, int]] = field(default_factory=list)
    area: float = 0.0

    def weight(self, frames: int) -> float:
        return self.area * len(self.found) / frames


def _link(frames: Sequence[Faces]) -> list[_Candidate]:
    """All faces of a clip, in the order in which they appear. In each frame the pair that overlaps most is linked first."""
    candidates: list[_Candidate] = []
    for t, faces in enumerate(frames):
        if len(faces.boxes) == 0:
            continue
        overlaps = _iou(np.array([c.last for c in candidates]).reshape(-1, 4), faces.boxes)
        owner: dict[int, _Candidate] = {}
        while overlaps.size and overlaps.max() >= MIN_IOU:
            c, k = divmod(int(overlaps.argmax()), len(faces.boxes))
            owner[k] = candidates[c]
            overlaps[c, :] = overlaps[:, k] = -1.0
        for k, box in enumerate(faces.boxes):
            if k not in owner:
                owner[k] = _Candidate(box)
                candidates.append(owner[k])
            x0, y0, x1, y1 = box.astype(float)
            owner[k].last = box
            owner[k].found.append((t, k))
            owner[k].area += (x1 - x0) * (y1 - y0)
    return candidates


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(m, 4) and (n, 4) boxes -> (m, n) intersection over union."""
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    inner = np.clip(size, 0, None).prod(axis=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
    return inner / (area_a[:, None] + area_b[None, :] - inner)
