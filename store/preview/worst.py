"""Which clips of a stream are the worst, in what: from validity, from the crops themselves and from the ledger's `quality`."""

from collections.abc import Callable

import numpy as np

from .facts import StreamFacts
from .sample import robust_z

WORST = 6

# Which end of a fact's numbers is the bad one.
LOWEST, HIGHEST, FURTHEST = "lowest", "highest", "furthest from 0"
BAD_END = {
    "detector_score": LOWEST,
    "face_width_px": LOWEST,
    "track_jump": HIGHEST,
    "sound_level_dbfs": LOWEST,
    "clipped_share": HIGHEST,
    "silent_share": HIGHEST,
    "audio_minus_video_s": FURTHEST,
}
BADNESS: dict[str, Callable[[np.ndarray], np.ndarray]] = {LOWEST: np.negative, HIGHEST: np.positive, FURTHEST: np.abs}

Ranking = list[tuple[int, str]]  # rows of clips, the worst first, and a note on each


def worst_by_validity(rows: np.ndarray, shares: np.ndarray) -> dict[str, Ranking]:
    """Clips with the largest share of steps that are not valid; none of those whose steps all are."""
    worst = [i for i in top(shares) if shares[i] > 0]
    return {"most steps not valid (interpolated)": [(int(rows[i]), f"{shares[i]:.0%} not valid") for i in worst]}


def worst_by_jumps(rows: np.ndarray, jumps: np.ndarray) -> dict[str, Ranking]:
    """Clips whose crop changes most between two frames, and how far that lies from the other clips."""
    z = robust_z(jumps)
    worst = [i for i in top(jumps) if jumps[i] > 0]
    notes = [f"{jumps[i]:.1f} grey levels" + (f", robust z {z[i]:.1f}" if np.isfinite(z[i]) else "") for i in worst]
    return {"jumpiest crops": [(int(rows[i]), note) for i, note in zip(worst, notes, strict=True)]}


def worst_by_quality(stream: StreamFacts, quality: dict[str, np.ndarray]) -> dict[str, Ranking]:
    """The bad end of every fact that is known, among clips with features; a share or difference of 0 is not bad."""
    worst = {}
    for name, end in BAD_END.items():
        if name in quality:
            rows = np.flatnonzero((stream.lengths > 0) & np.isfinite(quality[name]))
            if end != LOWEST:
                rows = rows[quality[name][rows] != 0]
            found = rows[top(BADNESS[end](quality[name][rows]))]
            worst[f"{name}: {end}"] = [(int(row), f"{quality[name][row]:.4g}") for row in found]
    return worst


def top(badness: np.ndarray) -> np.ndarray:
    """(at most WORST,) places of the highest numbers, the highest first and the first of equal ones; none of a NaN."""
    order = np.argsort(-badness, kind="stable")  # NaN last
    return order[np.isfinite(badness[order])][:WORST]
