"""Tracks in time: gaps filled by interpolation, jitter taken out by a short centred window.

Shape legend: T frames; values are (T, ...) whatever is measured in each frame.
"""

import numpy as np


def fill_gaps(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Values with the frames that are not valid interpolated from those that are; nearest before the first and after the last.

    Args:
        values: (T, ...); what stands in frames that are not valid is ignored.
        valid: (T,) bool, at least one True.

    Returns:
        (T, ...) in the dtype of `values`.
    """
    if valid.all():
        return values.copy()
    known = np.flatnonzero(valid)
    frames = np.arange(len(values))
    flat = values[known].reshape(len(known), -1)
    filled = [np.interp(frames, known, column) for column in flat.T]
    return np.stack(filled, axis=1).reshape(values.shape).astype(values.dtype)


def smooth(values: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Gaussian mean over neighbouring frames, cut at 3 sigma and at the ends of the clip.

    Args:
        values: (T, ...) float.
        sigma_frames: 0 leaves the values as they are.
    """
    return smooth_valid(values, np.ones(len(values), bool), sigma_frames)


def smooth_valid(values: np.ndarray, valid: np.ndarray, sigma_frames: float) -> np.ndarray:
    """The same with weights on valid frames only; frames that are not valid are then interpolated (see `fill_gaps`)."""
    if sigma_frames > 0:
        T = len(values)
        reach = min(T - 1, int(np.ceil(3 * sigma_frames)))
        weight = np.where(valid, 1.0, 0.0).reshape(T, *[1] * (values.ndim - 1))
        measured = np.where(weight > 0, values, 0.0)
        total, norm = np.zeros(values.shape), np.zeros(weight.shape)
        for shift in range(-reach, reach + 1):
            gain = np.exp(-0.5 * (shift / sigma_frames) ** 2)
            to, of = slice(max(0, -shift), T - max(0, shift)), slice(max(0, shift), T - max(0, -shift))
            total[to] += gain * measured[of]
            norm[to] += gain * weight[of]
        values = (total / np.where(norm > 0, norm, 1.0)).astype(values.dtype)
    return fill_gaps(values, valid)
