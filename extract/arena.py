"""Pictures in memory that processes share: slots of one large unnamed file, of which only what is written, or locked, takes memory.

A clip's pictures are decoded in one process, looked at by the detector of another and cropped in a third; they are too
large to be sent from one to the next. The first bytes of each slot, enough for an LRW clip, can be locked into memory: a GPU
then reads them by itself, where this process would have to copy them first (a sixth of its time on an H200).
"""

import logging
import mmap
import weakref
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from ..store.reading.memory import SharedBlock

SLOT_BYTES = 1 << 30  # address space, not memory: 40 s of 720 x 480 at 25 a second
KEPT_BYTES = 64 << 20  # of a slot; what a larger clip took is given back
LOCKED_BYTES = 8 << 20  # of a slot, at its start: 80 slots lock 0.7 GB
PORTABLE = 1  # locked for all devices of this process


@dataclass(frozen=True)
class Stored:
    """An array of bytes that lies in a slot."""

    slot: int
    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + prod(self.shape)


class Arena:
    """Slots of shared memory. Goes to other processes when they are started."""

    def __init__(self, slots: int, slot_bytes: int = SLOT_BYTES):
        self.slots, self.slot_bytes = slots, slot_bytes
        self.block = SharedBlock(slots * slot_bytes)

    def lock(self, device: torch.device) -> bool:
        """Locks the first part of each slot for a GPU, for as long as this process has the arena.

        Returns:
            False, with a line in the log: the system allows no more; what is not locked is read all the same, more slowly.
        """
        runtime, size = torch.cuda.cudart(), min(LOCKED_BYTES, self.slot_bytes)

        def unlock(at: int) -> None:
            with torch.cuda.device(device):
                runtime.cudaHostUnregister(at)

        with torch.cuda.device(device):  # or the first GPU would be taken into use too
            for slot in range(self.slots):
                at = self.block.array[slot * self.slot_bytes :].ctypes.data
                if (code := int(runtime.cudaHostRegister(at, size, PORTABLE))) != 0:
                    logging.getLogger("bmla").warning(
                        "memory can't be locked for the GPU (CUDA error %d): going on without", code
                    )
                    # CUDA tells of the error once more, to whoever asks for something next.
                    with suppress(RuntimeError):
                        torch.zeros(1, device=device).add_(1)
                    return False
                weakref.finalize(self, unlock, at)
        return True

    def put(self, slot: int, start: int, array: np.ndarray) -> Stored | None:
        """Copies uint8 numbers into a slot; None where there is no room for them behind `start`."""
        stored = Stored(slot, start, array.shape)
        if start < LOCKED_BYTES < stored.stop:  # a GPU reads what is locked or what is not, not both in one
            stored = Stored(slot, LOCKED_BYTES, array.shape)
        if stored.stop > self.slot_bytes:
            return None
        np.copyto(self.view(stored), array)
        return stored

    def view(self, stored: Stored) -> np.ndarray:
        """The array where it lies: valid until the slot is used again."""
        first = stored.slot * self.slot_bytes
        return self.block.array[first + stored.start : first + stored.stop].reshape(stored.shape)

    def release(self, slot: int) -> None:
        """Gives back the memory of a slot beyond KEPT_BYTES; for whoever hands the slots out."""
        if self.slot_bytes > KEPT_BYTES and hasattr(mmap, "MADV_REMOVE"):
            self.block.map.madvise(mmap.MADV_REMOVE, slot * self.slot_bytes + KEPT_BYTES, self.slot_bytes - KEPT_BYTES)
