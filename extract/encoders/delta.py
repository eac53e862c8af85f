"""Time derivatives by regression over neighbouring steps: (T, …) in, (T, …) out.

*Source:* the HTK Book, section 5.9 (Young et al. 2006): d_t = sum_k k (x_{t+k} - x_{t-k}) / (2 sum_k k^2), k = 1 … reach,
with the first and the last step repeated beyond the ends. A ramp of slope 1 a step has derivative 1 away from the ends.
"""

import numpy as np

REACH = 2  # steps to each side


def delta(values: np.ndarray, reach: int = REACH) -> np.ndarray:
    """The derivative along the first axis, per step. One step alone has derivative 0."""
    steps = len(values)
    padded = np.concatenate([values[:1]] * reach + [values] + [values[-1:]] * reach)
    total = np.zeros_like(values)
    for k in range(1, reach + 1):
        total += k * (padded[reach + k :][:steps] - padded[reach - k :][:steps])
    return total / (2 * sum(k * k for k in range(1, reach + 1)))
