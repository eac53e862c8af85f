"""From network inputs to a shard's results: clips go through the networks together, and come out in their order.

Pictures of any clips share batches. Sound shares one only with sound of the same length (see `encoders.speech`), so where
lengths differ it waits, for company from the whole shard: a length is run as soon as a batch of it is full, and what
is left at the end of the shard is run in the order of length, the longest first. Where all clips are equally long nothing waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..store.clips import Clip
from ..store.ledger import Failure
from ..store.shard import ClipFeatures
from .encoders.base import SAMPLE_RATE_HZ, Encoder, Features, inputs_of
from .failures import NO_CLIPS_FAULT, attempt
from .times import Times

BATCH_CLIPS = 16  # 16 LRW clips hold 91 MB of frames
HELD_SAMPLES = 1800 * SAMPLE_RATE_HZ  # that wait at most, a stream: 115 MB


@dataclass(frozen=True)
class Ready:
    """A clip before the networks.

    Attributes:
        inputs: per stream what its encoder's first step gave, or the failure in its place.
        quality: facts on its "sound" and its "sight".
    """

    clip: Clip
    inputs: dict[str, Any]
    quality: dict[str, dict[str, float]]


class Results:
    """What is known of the results of a task's clips.

    Attributes:
        by_stream: per stream one result a clip; None while its sound waits.
    """

    def __init__(self, streams: Sequence[str], encoders: Mapping[str, Encoder]):
        self.encoders = encoders
        self.by_stream: dict[str, list[Any]] = {name: [] for name in streams}
        self.waiting = {name: Waiting() for name in streams if encoders[name].waits is not None}

    def add(self, ready: Sequence[Ready], times: Times) -> None:
        """The next clips of the task."""
        for name, kept in self.by_stream.items():
            encoder = self.encoders[name]
            with times.of(f"encode: {name}"):
                if encoder.waits is None:
                    kept += finish(encoder, name, ready)
                    continue
                for r in ready:
                    one = replace(r, inputs={name: r.inputs[name]})  # holds none of the clip's crops
                    if isinstance(one.inputs[name], Failure):
                        kept += finish(encoder, name, [one])
                    else:
                        self.waiting[name].add(len(one.inputs[name]), (len(kept), one))
                        kept.append(None)
                for group in self.waiting[name].full(encoder.waits.size):
                    self._run(name, group)

    def close(self, times: Times) -> None:
        """No clips follow: nothing waits any more."""
        for name, waiting in self.waiting.items():
            with times.of(f"encode: {name}"):
                for group in waiting.rest():
                    self._run(name, group)

    def _run(self, name: str, group: "Group") -> None:
        found = finish(self.encoders[name], name, [r for _, r in group])
        for (place, _), result in zip(group, found, strict=True):
            self.by_stream[name][place] = result


Group = list[tuple[int, Ready]]  # clips of one length with their places among the results


@dataclass
class Waiting:
    """Sound that waits for other sound of its length."""

    by_length: dict[int, Group] = field(default_factory=dict)

    def add(self, length: int, waiter: tuple[int, Ready]) -> None:
        self.by_length.setdefault(length, []).append(waiter)

    def full(self, batch: int) -> list[Group]:
        """Those that need not wait: lengths of which there is a batch of BATCH_CLIPS or of so many samples; all, where too much waits."""
        if sum(n * len(group) for n, group in self.by_length.items()) > HELD_SAMPLES:
            return self.rest()
        ripe = [n for n, group in self.by_length.items() if len(group) >= min(BATCH_CLIPS, max(1, batch // n))]
        return [self.by_length.pop(n) for n in ripe]

    def rest(self) -> list[Group]:
        """All, the longest first: if one does not fit in memory it is known at once."""
        lengths = sorted(self.by_length, reverse=True)
        return [self.by_length.pop(n) for n in lengths]


def finish(encoder: Encoder, stream: str, ready: Sequence[Ready]) -> list[ClipFeatures]:
    """One stream's results for a batch, in order. Where a batch fails, its clips are tried one by one."""
    inputs = [r.inputs[stream] for r in ready]
    usable = [i for i, x in enumerate(inputs) if not isinstance(x, Failure)]
    results = [ClipFeatures(None, None, x if isinstance(x, Failure) else None) for x in inputs]
    try:
        found: Sequence[Features | Failure] = encoded(encoder, [inputs[i] for i in usable])
    except NO_CLIPS_FAULT:
        raise
    except Exception:  # each clip's own is kept: as its failure, where it fails alone too
        found = [attempt(ready[i].clip, "encode", alone, encoder, inputs[i]) for i in usable]
    for i, one in zip(usable, found, strict=True):
        results[i] = ClipFeatures(None, None, one) if isinstance(one, Failure) else ClipFeatures(one.values, one.valid)
    return [
        replace(checked(encoder, r.clip, result), quality=facts_for(encoder, r.quality))
        for r, result in zip(ready, results, strict=True)
    ]


def encoded(encoder: Encoder, prepared: Sequence[Any]) -> list[Features]:
    """Raises ValueError where there are not as many results as clips: which is whose could not be told."""
    found = encoder.finish(prepared) if prepared else []
    if len(found) != len(prepared):
        raise ValueError(f"{len(found)} results of {len(prepared)} clips")
    return found


def alone(encoder: Encoder, prepared: Any) -> Features:
    return encoded(encoder, [prepared])[0]


def facts_for(encoder: Encoder, quality: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The facts on what the encoder takes."""
    return {name: fact for part in inputs_of(encoder.takes) for name, fact in quality.get(part, {}).items()}


def checked(encoder: Encoder, clip: Clip, result: ClipFeatures) -> ClipFeatures:
    """The result, or a failure where the features are not finite or not as long as the frame law says."""
    if result.failure or result.values is None:
        return result
    expected = encoder.steps(clip.duration_s)
    problem = None
    if len(result.values) != expected:
        problem = f"{len(result.values)} steps, expected {expected} ({encoder.frame_law})"
    elif result.values.dtype.kind == "f" and not np.isfinite(result.values).all():
        problem = f"features overflow {result.values.dtype} or are not numbers"
    return ClipFeatures(None, None, Failure(clip.id, "encode", "BadFeatures", problem)) if problem else result
