"""One shard's clips to features: decode, find the face, encode; a clip that fails becomes a record, never a guess.

Clips go through in small batches of fixed size, so memory does not grow with the shard and the same shard gives the
same bytes on the same machine, whoever runs it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..store.clips import Clip
from ..store.errors import MediaError
from ..store.ledger import Failure
from ..store.shard import ClipFeatures
from . import media
from .encoders.base import Encoder, Sight, Sound
from .faces.sight import see
from .tools import Tools

BATCH_CLIPS = 16  # 16 LRW clips hold 91 MB of frames
OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)  # no clip's fault: stops the extraction
MESSAGE_CHARS = 300


@dataclass(frozen=True)
class Task:
    """A shard to do: its number, its clips and the streams that still lack it."""

    shard: int
    clips: tuple[Clip, ...]
    streams: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A shard's results: per stream one result a clip."""

    task: Task
    results: dict[str, list[ClipFeatures]]
    seconds: float


@dataclass
class Prepared:
    """A clip on its way: what was decoded of it, or the failure that took its place."""

    clip: Clip
    sound: Sound | Failure | None = None
    frames: media.Frames | Failure | None = None
    sight: Sight | Failure | None = None


def run_shard(task: Task, tools: Tools, root: Path, advance: Callable[[int], None], decoders: int = 0) -> Done:
    """Extracts the clips of one shard.

    Args:
        root: the folder that the clips' sources are relative to.
        advance: called with a number of clips as they get done.
        decoders: threads that decode ahead while the models work; 0 decodes in between.

    Raises:
        MemoryError, torch.OutOfMemoryError: nothing of the shard is kept.
    """
    began = time.perf_counter()
    encoders = {name: tools.encoders[name] for name in task.streams}
    results: dict[str, list[ClipFeatures]] = {name: [] for name in task.streams}
    for batch in decode_ahead(task.clips, {e.takes for e in encoders.values()}, root, decoders):
        find_faces(batch, tools)
        for name, encoder in encoders.items():
            results[name] += encode(encoder, batch)
        advance(len(batch))
    return Done(task, results, time.perf_counter() - began)


def decode_ahead(clips: Sequence[Clip], takes: set[str], root: Path, threads: int) -> Iterator[list[Prepared]]:
    """The clips in batches, decoded; with threads, the next batch is being decoded while one is in use."""
    batches = [clips[i : i + BATCH_CLIPS] for i in range(0, len(clips), BATCH_CLIPS)]
    if threads == 0:
        for batch in batches:
            yield [decode(clip, takes, root) for clip in batch]
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        ahead = [pool.submit(decode, clip, takes, root) for clip in batches[0]]
        for following in [*batches[1:], ()]:
            now, ahead = ahead, [pool.submit(decode, clip, takes, root) for clip in following]
            yield [future.result() for future in now]


def decode(clip: Clip, takes: set[str], root: Path) -> Prepared:
    """Reads what the encoders take of one clip; sound and sight fail independently."""
    prepared = Prepared(clip)
    if "sound" in takes:
        prepared.sound = attempt(
            clip, "sound", lambda: Sound(media.read_audio(source(root, clip.audio), *clip.sound_cut))
        )
    if "sight" in takes:
        prepared.frames = attempt(
            clip,
            "video",
            lambda: media.read_frames(source(root, clip.video), *cut(clip), fps=clip.fps, crop=clip.crop),
        )
    return prepared


def find_faces(batch: Sequence[Prepared], tools: Tools) -> None:
    """Detects and tracks the face in every clip that has frames; detection is batched across clips."""
    seen = [p for p in batch if isinstance(p.frames, media.Frames)]
    if seen:
        found = see([p.frames.images for p in seen], tools.detector, tools.landmarks)  # type: ignore[union-attr]
        for prepared, result in zip(seen, found, strict=True):
            if isinstance(result, Sight):
                shown = prepared.frames.present  # type: ignore[union-attr]
                prepared.sight = Sight(**{**vars(result), "valid": result.valid & shown})
            else:
                prepared.sight = failure(prepared.clip, "face", result)
    for prepared in batch:
        if isinstance(prepared.frames, Failure):
            prepared.sight = prepared.frames
        prepared.frames = None  # the pictures live on in the sight alone


def encode(encoder: Encoder, batch: Sequence[Prepared]) -> list[ClipFeatures]:
    """One stream's results for a batch, in order. Where a batch fails, its clips are tried one by one."""
    inputs = [getattr(p, encoder.takes) for p in batch]
    ready = [i for i, x in enumerate(inputs) if not isinstance(x, Failure)]
    results = [ClipFeatures(None, None, x if isinstance(x, Failure) else None) for x in inputs]
    try:
        for i, features in zip(ready, encoder.encode([inputs[i] for i in ready]) if ready else [], strict=True):
            results[i] = ClipFeatures(features.values, features.valid)
    except OUT_OF_MEMORY:
        raise
    except Exception:
        for i in ready:
            one = attempt(batch[i].clip, "encode", lambda i=i: encoder.encode([inputs[i]])[0])  # type: ignore[misc]
            failed = isinstance(one, Failure)
            results[i] = ClipFeatures(None, None, one) if failed else ClipFeatures(one.values, one.valid)
    return [checked(encoder, p.clip, r) for p, r in zip(batch, results, strict=True)]


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


def attempt(clip: Clip, step: str, work: Callable[[], Any]) -> Any:
    """The work's result, or the record of its failure. One bad clip must not end the extraction of a million."""
    try:
        return work()
    except OUT_OF_MEMORY:
        raise
    except Exception as error:
        return failure(clip, step, error)


def failure(clip: Clip, step: str, error: Exception) -> Failure:
    return Failure(clip.id, step, type(error).__name__, " ".join(str(error).split())[:MESSAGE_CHARS])


def cut(clip: Clip) -> tuple[float, float]:
    return clip.start_s, clip.end_s


def source(root: Path, relative: str | None) -> Path:
    if relative is None:
        raise MediaError("the data set has no file for this modality of the clip")
    return root / relative
