"""Facts on how well a clip's face was seen, for the ledger: one finite number a name (see `store.quality`)."""

import numpy as np

from ..encoders.base import Sight


def quality_of_sight(sight: Sight) -> dict[str, float]:
    """What is known of one clip; what is not known is left out. The clip has a frame at least.

    Returns:
        interpolated_share: share of frames that are not valid.
        detector_score: mean of the detector's scores over the frames in which it found the face; absent where it never looked.
        face_width_px: median width of the face box over the valid frames (over all where none is).
        track_jump: how far the middle of the box moves from one frame to the next at most, in face widths; 0 for one frame.
            The last two are absent where nothing but the box of the mouth is known.
    """
    facts = {"interpolated_share": float(1 - sight.valid.mean())}
    found = sight.scores > 0  # False for NaN: not looked at
    if found.any():
        facts["detector_score"] = float(sight.scores[found].mean(dtype=np.float64))
    boxes = sight.boxes.astype(np.float64)
    if np.isfinite(boxes).all():
        width = float(np.median((boxes[:, 2] - boxes[:, 0])[sight.valid if sight.valid.any() else slice(None)]))
        moves = np.hypot(*np.diff((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0).T)  # (T - 1,)
        facts["face_width_px"] = width
        facts["track_jump"] = float(moves.max(initial=0.0)) / width
    return facts
