"""Features of many clips in foreign arrays, padded or end to end, and their conversion to a store's types.

Shape legend: N clips, T steps, F the shape of one step's feature.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import StoreError, UsageError
from .arrays import ArrayFile, Rows, fetch, fetch_column, whole_numbers
from .choice import ArrayImport

KEPT = ("float16", "float32", "uint8")


class Features(Protocol):
    """One array's clips. where: file and key, for messages; lengths: (N,) int64; shape: F."""

    @property
    def where(self) -> str: ...

    @property
    def lengths(self) -> np.ndarray: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def block(self, start: int, stop: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Values (n, *F) and validity (n,) of clips start to stop - 1, as they are in the file."""


@dataclass(frozen=True)
class Padded:
    """values (N, T, *F), or (N, layers, T, L) of which one layer is taken; valid (N, T) or None."""

    where: str
    values: Rows
    valid: Rows | None
    lengths: np.ndarray
    layer: int | None

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[2 if self.layer is None else 3 :])

    def block(self, start: int, stop: int) -> list[tuple[np.ndarray, np.ndarray]]:
        lengths = self.lengths[start:stop].tolist()
        clips, steps = slice(start, stop), slice(0, max(lengths, default=0))
        values = fetch(self.values, (clips, steps) if self.layer is None else (clips, self.layer, steps), self.where)
        valid = None if self.valid is None else truths(fetch(self.valid, (clips, steps), self.where), self.where)
        return [(values[i, :n], np.ones(n, bool) if valid is None else valid[i, :n]) for i, n in enumerate(lengths)]


@dataclass(frozen=True)
class Ragged:
    """values (steps, *F); offsets (N + 1,); valid (steps,) or None."""

    where: str
    values: Rows
    valid: Rows | None
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def block(self, start: int, stop: int) -> list[tuple[np.ndarray, np.ndarray]]:
        begin, *ends = self.offsets[start : stop + 1].tolist()
        values = fetch(self.values, slice(begin, ends[-1]), self.where)
        valid = np.ones(len(values), bool)
        if self.valid is not None:
            valid = truths(fetch(self.valid, slice(begin, ends[-1]), self.where), self.where)
        cuts = [end - begin for end in ends[:-1]]
        return list(zip(np.split(values, cuts), np.split(valid, cuts), strict=True))


def open_features(file: ArrayFile, choice: ArrayImport, group: str) -> Features:
    """The features of one group ("" for the file itself).

    Raises:
        UsageError: an array is missing, or its shape asks for an option that was not given.
        StoreError: shapes, lengths or offsets contradict each other.
    """
    features: Features = (open_ragged if choice.offsets else open_padded)(file, choice, group)
    if len(features.lengths) == 0 or features.lengths.max() < 1:
        raise StoreError(f"{features.where}: no clip has a step")
    return features


def open_padded(file: ArrayFile, choice: ArrayImport, group: str) -> Padded:
    key = choice.path(group, choice.values)
    values, where = file.array(key), f"{file.name}: {key}"
    axis = layer_axis(choice, values, where)
    clips, steps = values.shape[0], values.shape[axis]
    lengths = np.full(clips, steps, np.int64)
    if choice.lengths:
        name = choice.path(group, choice.lengths)
        lengths = whole_numbers(fetch_column(file, name, clips), f"{file.name}: {name}")
        if clips and not 0 <= lengths.min() <= lengths.max() <= steps:
            raise StoreError(
                f"{file.name}: {name}: lengths from {lengths.min()} to {lengths.max()}, "
                f"expected 0 to the {steps} steps of {choice.values} {values.shape}"
            )
    return Padded(where, values, open_valid(file, choice, group, (clips, steps)), lengths, choice.layer)


def open_ragged(file: ArrayFile, choice: ArrayImport, group: str) -> Ragged:
    assert choice.offsets
    key, name = choice.path(group, choice.values), choice.path(group, choice.offsets)
    values, rows, where = file.array(key), file.array(name), f"{file.name}: {name}"
    if len(values.shape) not in (2, 3) or len(rows.shape) != 1 or rows.shape[0] < 2:
        raise StoreError(f"{where}: shape {rows.shape} for values {values.shape}, expected (N + 1,) for (steps, *F)")
    offsets, steps = whole_numbers(fetch(rows, slice(None), where), where), values.shape[0]
    if offsets[0] != 0 or offsets[-1] != steps or (np.diff(offsets) < 0).any():
        raise StoreError(
            f"{where}: expected numbers that ascend from 0 to the {steps} steps of {choice.values}, "
            f"got {offsets[0]} to {offsets[-1]}"
        )
    return Ragged(f"{file.name}: {key}", values, open_valid(file, choice, group, (steps,)), offsets)


def open_valid(file: ArrayFile, choice: ArrayImport, group: str, expected: tuple[int, ...]) -> Rows | None:
    if not choice.valid:
        return None
    name = choice.path(group, choice.valid)
    valid = file.array(name)
    if valid.shape != expected:
        raise StoreError(f"{file.name}: {name}: shape {valid.shape}, expected {expected}: one value a step")
    return valid


def layer_axis(choice: ArrayImport, values: Rows, where: str) -> int:
    """Which axis of padded values counts steps. Raises UsageError where --layer or --offsets is missing or wrong."""
    axes, picture = len(values.shape), values.dtype == np.uint8
    if choice.layer is not None:
        if axes != 4:
            raise UsageError(f"--layer: {where} has shape {values.shape}, expected (N, layers, T, L)")
        if not 0 <= choice.layer < values.shape[1]:
            raise UsageError(f"--layer {choice.layer}: {where} has layers 0 to {values.shape[1] - 1}")
        return 2
    if axes == 4 and not picture:
        raise UsageError(
            f"{where}: shape {values.shape}: four axes are read as (N, layers, T, L): give --layer 0 to "
            f"{values.shape[1] - 1}; pictures (N, T, H, W) must be uint8"
        )
    if axes not in (3, 4):
        raise UsageError(f"{where}: shape {values.shape}, expected (N, T, L), or (steps, L) with --offsets")
    return 1


def truths(values: np.ndarray, where: str) -> np.ndarray:
    """As bool. Raises StoreError for anything but truth values and the numbers 0 and 1."""
    if values.dtype != bool and not (values.dtype.kind in "iuf" and np.isin(values, (0, 1)).all()):
        raise StoreError(f"{where}: its validity holds other values than true, false, 0 and 1")
    return values.astype(bool)


def dtype_for(features: Features, asked: str | None) -> str:
    """The dtype to be stored. Raises UsageError where it has to be said."""
    name = features.dtype.newbyteorder("=").name
    if features.dtype.kind not in "iufb":
        raise StoreError(f"{features.where}: {features.dtype}, expected numbers")
    if asked is not None:
        return asked
    if name in KEPT:
        return name
    if name == "float64":
        return "float32"
    raise UsageError(f"{features.where}: {name} can't be stored: give --dtype float32, float16 or uint8")


def converted(values: np.ndarray, dtype: str, where: str) -> np.ndarray:
    """Values in another dtype. Floats are rounded; what would overflow or change a whole number is refused."""
    if values.dtype == dtype:
        return np.array(values, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(dtype)
    if values.dtype.kind == "f" and result.dtype.kind == "f":
        if (np.isinf(result) & np.isfinite(values)).any():
            raise StoreError(
                f"{where}: a value beyond the largest {dtype} ({np.finfo(dtype).max:g}): give another --dtype"
            )
    elif not np.array_equal(result.astype(np.float64), values.astype(np.float64)):
        raise StoreError(f"{where}: {values.dtype} does not go into {dtype} unchanged: give another --dtype")
    return result
