"""A stream that stays on a torch device: batches are gathered there, by index arithmetic.

torch is imported when a device is named, not before: the store works without it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .files import StreamFiles
from .memory import zeros
from .tiers import Rows, load_valid, load_values

if TYPE_CHECKING:
    import torch


class Resident:
    """All values and their validity as tensors on a device.

    Attributes:
        values: (steps, *F) tensor in the stored dtype; valid: (steps,) bool tensor.
        starts, lengths: (n,) int64 tensors: clip i has values[starts[i] : starts[i] + lengths[i]].
    """

    def __init__(self, files: StreamFiles, rows: Rows, device: Any):
        import torch

        spec = files.head.spec
        what = f"{files.place}: stream {spec.name}"
        values = zeros((rows.steps, *spec.feature_shape), spec.dtype, what)
        valid = zeros((rows.steps,), "bool", what)
        load_values(files, rows, values)
        load_valid(files, rows, valid)
        self.values, self.valid, self.starts, self.lengths = (
            torch.from_numpy(a).to(device) for a in (values, valid, rows.starts, rows.lengths)
        )

    def batch(self, rows: np.ndarray) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """Values, lengths and validity of some clips, (b,) rows, as `reader.Batch`."""
        import torch

        chosen = torch.from_numpy(rows).to(self.starts.device)
        starts, lengths = self.starts[chosen], self.lengths[chosen]
        step = torch.arange(int(lengths.max()) if len(rows) else 0, device=starts.device)
        inside = step < lengths[:, None]
        at = torch.where(inside, starts[:, None] + step, 0)
        values = self.values[at] * inside.reshape(*inside.shape, *[1] * (self.values.ndim - 1))
        return values, lengths, self.valid[at] & inside


def pick_device(name: "torch.device | str") -> "torch.device":
    """Raises UsageError for a name that torch does not know, or a device that is not there."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f'device "{name}": expected cpu or cuda:N') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f'device "{name}": torch finds {torch.cuda.device_count()} GPUs on this machine')
    return device


def free_bytes(device: Any) -> int:
    """Free memory of a device; 0 where a tensor on it is nothing but memory of this machine."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if torch.device(device).type == "cuda" else 0


def on_device(arrays: Iterable[np.ndarray], device: Any) -> "list[torch.Tensor]":
    """The same as tensors on a device."""
    import torch

    return [torch.from_numpy(a).to(device) for a in arrays]
