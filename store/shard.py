"""One shard of one stream: the results of S clips on their way to the disk, and back.

Shape legend: S clips of the shard, T steps the stream can hold, F the shape of one step's feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr

from .arrays import ARRAYS, file_key, open_array
from .errors import StoreError
from .head import Head
from .identity import Identity
from .ledger import Entry, Failure
from .place import Place
from .spec import StreamSpec

PENDING, DONE, FAILED = 0, 1, 2


@dataclass(frozen=True)
class ClipFeatures:
    """One clip's result: values (n, *F) and valid (n,), or the failure in its place.

    quality: facts on the clip's material, such as {"detector_score": 0.98}; see `quality`. A failed clip may have some.
    """

    values: np.ndarray | None
    valid: np.ndarray | None
    failure: Failure | None = None
    quality: dict[str, float] = field(default_factory=dict)


def check_features(spec: StreamSpec, steps: int, clip: ClipFeatures) -> None:
    """Raises ValueError where a clip's features would not be what the specification says."""
    if clip.failure is not None:
        if clip.values is not None or clip.valid is not None:
            raise ValueError(f"{spec.name}: a failed clip can't have features")
        return
    if clip.values is None or clip.valid is None:
        raise ValueError(f"{spec.name}: a clip has neither features nor a failure")
    values, valid = clip.values, clip.valid
    if values.shape[1:] != spec.feature_shape or values.dtype != spec.dtype:
        raise ValueError(
            f"{spec.name}: {values.dtype} {values.shape}, expected {spec.dtype} (T, *{spec.feature_shape})"
        )
    if not 1 <= len(values) <= steps or valid.shape != (len(values),) or valid.dtype != bool:
        raise ValueError(f"{spec.name}: {len(values)} steps and validity {valid.shape}, expected 1 to {steps} of both")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{spec.name}: features are not finite")


def write_files(
    place: Place, head: Head, identity: Identity, number: int, clips: Sequence[ClipFeatures]
) -> tuple[dict[str, dict[str, Any] | None], tuple[int, ...]]:
    """Writes the files of one shard, whole, over whatever a killed writer left.

    Returns:
        The digests of the files for the ledger, and the length of each clip.
    """
    spec = head.spec
    start, stop = identity.extent(number)
    block = {
        "values": np.zeros((len(clips), head.steps, *spec.feature_shape), spec.dtype),
        "length": np.zeros(len(clips), np.int32),
        "valid": np.zeros((len(clips), head.steps), bool),
        "status": np.zeros(len(clips), np.uint8),
    }
    for i, clip in enumerate(clips):
        block["status"][i] = FAILED if clip.failure else DONE
        if clip.values is not None and clip.valid is not None:
            n = len(clip.values)
            block["length"][i] = n
            block["values"][i, :n] = clip.values
            block["valid"][i, :n] = clip.valid
    files = {}
    for name in ARRAYS:
        place.remove(file_key(head, name, number))  # or zarr would read and merge what a killed writer left
        open_array(place, head, identity, name)[start:stop] = block[name]
        files[name] = place.digest(file_key(head, name, number))
    return files, tuple(int(n) for n in block["length"])


def read_part(array: "zarr.Array[Any]", entry: Entry) -> np.ndarray:
    """A finished shard's part of an open array; zarr checks each chunk's crc32c. Raises StoreError where it is damaged."""
    try:
        return np.asarray(array[entry.start : entry.stop])
    except (ValueError, RuntimeError) as error:
        raise StoreError(
            f"{array.path}, shard {entry.shard}: damaged ({error}); `bmla store verify --deep` finds all"
        ) from error
