"""Features of one's own as numpy arrays: training without a store."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..store.errors import UsageError
from .data import Features, units_of, usable
from .models.kinds import kind_of
from .stream import Resident, any_of_each

Arrays = Sequence[np.ndarray | None]
FASTEST_HZ = 1e5  # as a run's folder may say


def features_from_arrays(
    labels: Sequence[int] | np.ndarray,
    split: Sequence[str] | np.ndarray,
    *,
    audio: Arrays | None = None,
    visual: Arrays | None = None,
    audio_rate_hz: float = 50.0,
    visual_rate_hz: float = 25.0,
    audio_valid: Arrays | None = None,
    visual_valid: Arrays | None = None,
    variants: Mapping[str, Arrays | None] | None = None,
    classes: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    speakers: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> Features:
    """Lays arrays end to end as features to train on.

    Args:
        labels: (n,) class indices; -1: unknown, the clip is left out.
        split: (n,) "train", "dev" or "test".
        audio, visual: n arrays (T, l), float16 or float32, or pictures (T, height, width) or (T, height, width, 3), uint8, or stacks
            (T, k, l) of floats; None for a clip that lacks the modality.
        audio_valid, visual_valid: n arrays (T,) bool; None: all steps are valid.
        variants: other versions of the same clips, by names such as "audio.arrays@white=0" or "visual.arrays@blur": to train with
            (`augment`) or to test on.
        classes: names; default "0", "1", …
        ids, groups: n names; default the clip's number, and every clip a group of its own. No two clips have one id.
        speakers: n names, which cross-validation can keep together.

    Raises:
        UsageError: arrays that do not fit each other, or hold NaN at a valid step; no training or no test clips.
    """
    everything = laid_out(
        labels,
        split,
        audio=audio,
        visual=visual,
        audio_rate_hz=audio_rate_hz,
        visual_rate_hz=visual_rate_hz,
        audio_valid=audio_valid,
        visual_valid=visual_valid,
        variants=variants,
        classes=classes,
        ids=ids,
        groups=groups,
        speakers=speakers,
        device=device,
    )
    return usable(everything, "the arrays")


def laid_out(
    labels: Sequence[int] | np.ndarray,
    split: Sequence[str] | np.ndarray,
    *,
    audio: Arrays | None,
    visual: Arrays | None,
    audio_rate_hz: float,
    visual_rate_hz: float,
    audio_valid: Arrays | None = None,
    visual_valid: Arrays | None = None,
    variants: Mapping[str, Arrays | None] | None = None,
    classes: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    speakers: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> Features:
    """As `features_from_arrays`, of all clips, whatever their splits and labels."""
    n = len(labels)
    numbers = np.asarray(labels, np.int64)
    names = tuple(map(str, range(int(numbers.max(initial=0)) + 1) if classes is None else classes))
    given_ids = texts(range(n) if ids is None else ids)
    given_groups = given_ids if groups is None else texts(groups)
    given_split, given_speakers = texts(split), None if speakers is None else texts(speakers)
    for what, given in (
        ("split", split),
        ("audio", audio),
        ("visual", visual),
        ("ids", ids),
        ("groups", groups),
        ("speakers", speakers),
    ):
        if given is not None and len(given) != n:
            raise UsageError(f"{what} has {len(given)} entries, expected one for each of the {n} labels")
    if len(set(given_ids)) < n:
        twice = next(name for name, count in Counter(given_ids).items() if count > 1)
        raise UsageError(f'ids: two clips are called "{twice}", expected a name of its own for each')
    if n and not -1 <= numbers.min() <= numbers.max() < len(names):
        raise UsageError(f"labels reach from {numbers.min()} to {numbers.max()}, expected -1 to {len(names) - 1}")
    if audio is None and visual is None:
        raise UsageError("neither audio nor visual features were given")
    place = torch.device(device)
    given_streams = {"audio": (audio, audio_valid, audio_rate_hz), "visual": (visual, visual_valid, visual_rate_hz)}
    streams = {m: lay_out(m, a, v, hz, place) for m, (a, v, hz) in given_streams.items() if a is not None}
    others: dict[str, Resident] = {}
    for name, arrays in (variants or {}).items():
        modality = name.partition(".")[0]
        if modality not in streams or name.partition("@")[0] != streams[modality].name or "@" not in name:
            raise UsageError(f'variants: "{name}" names no version of {" or ".join(s.name for s in streams.values())}')
        if arrays is None:
            raise UsageError(f"{name}: no clip has any step")
        if len(arrays) != n:
            raise UsageError(f"{name} has {len(arrays)} entries, expected one for each of the {n} labels")
        _, valid, hz = given_streams[modality]
        others[name] = replace(lay_out(modality, arrays, valid, hz, place), name=name)
        if others[name].length != streams[modality].length:
            raise UsageError(f"{name} has {others[name].length} features, expected {streams[modality].length}")
    told = (numbers.tolist(), given_split, names, given_ids, given_groups)
    sha = hashlib.sha256(repr(told if given_speakers is None else (*told, given_speakers)).encode())
    for stream in streams.values():
        sha.update(content(stream))
    return Features(
        dataset="arrays",
        task="classification",
        classes=names,
        ids=np.asarray(given_ids, object),
        labels=torch.from_numpy(numbers),
        split=np.asarray(given_split, object),
        groups=np.asarray(given_groups, object),
        audio=streams.get("audio"),
        visual=streams.get("visual"),
        digest=sha.hexdigest(),
        variants=others,
        variant_digests={name: hashlib.sha256(content(stream)).hexdigest() for name, stream in others.items()},
        units={} if given_speakers is None else units_of(np.asarray(given_speakers, object)),
    )


def texts(values: Iterable[Any]) -> list[str | None]:
    """As plain text, whatever kind of text or number they are, so that the same names have the same digest."""
    return [None if value is None else str(value) for value in values]


def content(stream: Resident) -> bytes:
    """What stands for a stream and all its values."""
    sha = hashlib.sha256(f"{stream.digest} {stream.values.dtype} {len(stream.values)}".encode())
    for tensor in (stream.values, stream.valid, stream.lengths):
        sha.update(tensor.cpu().numpy().tobytes())
    return sha.digest()


def lay_out(modality: str, arrays: Arrays, valid: Arrays | None, rate_hz: float, device: torch.device) -> Resident:
    """One stream of arrays. Its specification is no more than modality, rate and length."""
    if not 0 < rate_hz <= FASTEST_HZ:
        raise UsageError(f"{modality}: {rate_hz} steps a second, expected more than 0, up to {FASTEST_HZ:g}")
    given = [i for i, a in enumerate(arrays) if a is not None and len(a)]
    if not given:
        raise UsageError(f"no clip has {modality} features")
    parts = [np.asarray(arrays[i]) for i in given]
    masks = [validity(None if valid is None else valid[i], part) for i, part in zip(given, parts, strict=True)]
    for i, part, mask in zip(given, parts, masks, strict=True):
        check(f"{modality} of clip {i}", part, mask, parts[0])
    lengths = np.zeros(len(arrays), np.int64)
    lengths[given] = [len(part) for part in parts]
    values, kept = np.concatenate(parts), np.concatenate(masks)
    offsets, pixels = np.append(0, np.cumsum(lengths)), values.dtype == np.uint8
    shape: tuple[int, ...] = values.shape[1:]
    step = (f"{shape} pixels" if pixels else f"{shape}") if len(shape) > 1 else f"{shape[0]}"
    return Resident(
        f"{modality}.arrays",
        rate_hz,
        shape,
        pixels,
        torch.from_numpy(lengths),
        any_of_each(kept, offsets),
        hashlib.sha256(f"arrays {modality} {rate_hz} {step}".encode()).hexdigest(),
        torch.from_numpy(values).to(device),
        torch.from_numpy(kept).to(device),
        torch.from_numpy(offsets[:-1]),
    )


def validity(mask: np.ndarray | None, part: np.ndarray) -> np.ndarray:
    """(T,) bool; all True where none was given."""
    return np.ones(len(part), bool) if mask is None else np.asarray(mask, bool)


def check(where: str, part: np.ndarray, mask: np.ndarray, first: np.ndarray) -> None:
    """Raises UsageError unless part is of the first one's layout, finite where mask is True."""
    pixels = first.dtype == np.uint8
    types = (np.uint8,) if pixels else (np.float16, np.float32)
    wanted = first.shape[1:] if kind_of(first.shape[1:], pixels) else ("l",)
    if part.shape[1:] != wanted or part.dtype not in types:
        expected = " or ".join(np.dtype(t).name for t in types)
        layout = "".join(f", {n}" for n in wanted)
        raise UsageError(f"{where}: {part.dtype} {part.shape}, expected {expected} (T{layout})")
    if mask.shape != part.shape[:1]:
        raise UsageError(f"{where}: validity {mask.shape}, expected ({len(part)},)")
    if not pixels and not np.isfinite(part[mask]).all():
        raise UsageError(f"{where}: valid steps hold NaN or infinite values")
