"""Features and labels as people have them in memory -> what `arrays.py` lays out.

Numpy or torch; padded arrays (n, t, …) with a mask or lengths, or a list of n arrays. See `api.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..store.errors import UsageError
from .splits import fold_splits

Given = np.ndarray | Tensor | Sequence[Any]
NUMBER = (int, np.integer)
SPLIT_FOLDS = 5  # where no splits are given: one fifth tests, one fifth chooses the epoch


def class_numbers(labels: Given, classes: Sequence[str] | None) -> tuple[np.ndarray, Sequence[str] | None]:
    """(n,) int64 and the names of the classes; -1 where a label is None."""
    try:
        plain = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    except ValueError as error:
        raise UsageError("labels are lists of unequal lengths, expected one label for each clip: (n,)") from error
    if plain.ndim != 1:
        raise UsageError(f"labels {plain.shape}, expected one for each clip: (n,)")
    if not len(plain):
        raise UsageError("labels are empty: there is no clip")
    known = [label for label in plain if label is not None]
    if plain.dtype == object and known and all(isinstance(label, NUMBER) for label in known):
        plain = np.array([-1 if label is None else label for label in plain])
    if plain.dtype.kind in "iu":
        return plain.astype(np.int64), classes
    texts = [None if label is None else str(label) for label in plain.tolist()]
    if plain.dtype.kind not in "US" and any(not isinstance(label, str | None) for label in plain.tolist()):
        raise UsageError(f"labels are {plain.dtype}, expected whole numbers or names")
    names = tuple(sorted({t for t in texts if t is not None})) if classes is None else tuple(classes)
    if unknown := sorted({t for t in texts if t is not None} - set(names)):
        raise UsageError(f'the label "{unknown[0]}" is none of the classes {", ".join(names)}')
    place = {name: i for i, name in enumerate(names)}
    return np.array([-1 if t is None else place[t] for t in texts], np.int64), names


def dealt(n: int, ids: Sequence[str] | None, groups: Sequence[str] | None) -> np.ndarray:
    """(n,) splits where none are given; the same for the same names. Raises UsageError for fewer groups than there are parts."""
    what, names = ("groups", groups) if groups is not None else ("ids", ids)
    if names is not None and len(names) != n:
        raise UsageError(f"{what} has {len(names)} entries, expected one for each of the {n} labels")
    if (count := n if names is None else len(set(map(str, names)))) < SPLIT_FOLDS:
        raise UsageError(
            f"{count} {'clips' if names is None else what} can't be dealt into train, dev and test: expected at least "
            f"{SPLIT_FOLDS}, or a split"
        )
    units = np.array([f"{i:09d}" for i in range(n)] if names is None else [str(name) for name in names], object)
    return fold_splits(units, SPLIT_FOLDS, 0)


def clips_of(what: str, values: Given | None, mask: Given | None, lengths: Given | None) -> tuple[Any, Any]:
    """Arrays and validity of each clip, cut behind its last valid step; None for a clip without any.

    Returns:
        two `arrays.Arrays`, the second None where all steps are valid; two None where no clip has any step.

    Raises:
        UsageError: masks or lengths do not fit.
    """
    if values is None:
        return None, None
    if not hasattr(values, "__len__") or getattr(values, "shape", None) == ():
        raise UsageError(f"{what} is {type(values).__name__}, expected an array or a list of them, one for each clip")
    arrays = [None if clip is None else plain_array(clip) for clip in values]
    if flat := [i for i, array in enumerate(arrays) if array is not None and array.ndim == 0]:
        raise UsageError(f"{what} of clip {flat[0]}: a single {arrays[flat[0]].dtype}, expected (T, l)")  # type: ignore[union-attr]
    if mask is None and lengths is None:
        return (arrays, None) if any(a is not None for a in arrays) else (None, None)
    if mask is not None and lengths is not None:
        raise UsageError(f"{what}: a mask and lengths are given, expected one of them")
    told: Any = mask if lengths is None else lengths
    if len(told) != len(arrays):
        raise UsageError(f"{what}: {len(told)} masks or lengths for {len(arrays)} clips")
    pairs = [
        cut(f"{what} of clip {i}", array, own, lengths is not None)
        for i, (array, own) in enumerate(zip(arrays, told, strict=True))
    ]
    if all(array is None for array, _ in pairs):
        return None, None
    return [array for array, _ in pairs], [valid for _, valid in pairs]


def cut(
    where: str, array: np.ndarray | None, told: Any, is_length: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """One clip and its validity."""
    if array is None or told is None:
        return array, None
    steps = len(array)
    if is_length:
        length = whole(where, told)
        if not 0 <= length <= steps:
            raise UsageError(f"{where}: length {length}, expected 0 to {steps}, the steps that there are")
        valid = np.arange(steps) < length
    else:
        valid = plain_array(told)
        if valid.dtype != bool or valid.shape != (steps,):
            raise UsageError(f"{where}: a mask {valid.dtype} {valid.shape}, expected bool ({steps},)")
    end = int(np.flatnonzero(valid).max(initial=-1)) + 1
    return (array[:end], valid[:end]) if end else (None, None)


def whole(where: str, told: Any) -> int:
    """Raises UsageError for a length that is none."""
    try:
        length = int(told)
        if length == told:
            return length
    except (TypeError, ValueError, OverflowError, RuntimeError):  # a text, several numbers (numpy, torch), NaN
        pass
    raise UsageError(f"{where}: length {told}, expected a whole number")


def plain_array(values: Any) -> np.ndarray:
    """On the CPU; floats of other widths as float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype == np.float64 else array
