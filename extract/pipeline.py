"""One clip's way to features, in four stages; a clip that fails becomes a record, never a guess.

    decode   file -> sound and pictures            one clip, no model
    detect   pictures -> faces                     clips together, on the device
    prepare  sound and pictures -> network inputs  one clip: track, landmarks, noise, crops; all of a spectrogram
    finish   network inputs -> features            clips together, on the device

The last one is in `finishing`. Which process runs which stage is the executors' business. Clips go through in batches of
fixed size and order, so memory does not grow with the shard, and the same shard gives the same bytes on the same machine,
whoever runs it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..store.clips import Clip
from ..store.errors import MediaError, StoreError
from ..store.ledger import Failure
from ..store.shard import ClipFeatures
from . import media, noise
from .encoders.base import Both, Pictures, Sight, Sound, inputs_of
from .faces.detections import Faces
from .faces.finding import FaceFinding, wanted_frames
from .faces.quality import quality_of_sight
from .failures import attempt
from .finishing import BATCH_CLIPS, Ready, Results
from .quality import quality_of_files, quality_of_sound
from .times import Times
from .tools import Kit, Tools


@dataclass(frozen=True)
class Task:
    """A shard to do: its number, its clips and the streams that still lack it."""

    shard: int
    clips: tuple[Clip, ...]
    streams: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A shard's results: per stream one result a clip; how long it took, and what with."""

    task: Task
    results: dict[str, list[ClipFeatures]]
    seconds: float
    times: Times = field(default_factory=Times)


@dataclass(frozen=True)
class Decoded:
    """What was read of a clip, or the failure in its place; None: nobody wants it."""

    clip: Clip
    sound: Sound | Failure | None = None
    frames: media.Frames | Failure | None = None
    files: dict[str, float] = field(default_factory=dict)  # facts on both modalities


def run_shard(task: Task, tools: Tools, root: Path, advance: Callable[[int], None]) -> Done:
    """All stages of one shard in this process.

    Args:
        root: the folder that the clips' sources are relative to.
        advance: called with a number of clips as they get done.

    Raises:
        MemoryError, torch.OutOfMemoryError, torch.AcceleratorError: nothing of the shard is kept.
        StoreError: the data set's folder is gone.
    """
    began, times = time.perf_counter(), Times()
    results = Results(task.streams, tools.encoders)
    for clips in batches(task.clips):
        with times.of("decode"):
            decoded = [decode(clip, task.streams, tools.kit, root) for clip in clips]
        with times.of("detect"):
            found = detect(decoded, task.streams, tools)
        ready = [prepare(d, faces, task.streams, tools.kit, times) for d, faces in zip(decoded, found, strict=True)]
        del decoded
        results.add(ready, times)
        advance(len(clips))
    results.close(times)
    return Done(task, results.by_stream, time.perf_counter() - began, times)


def batches(clips: Sequence[Clip]) -> list[Sequence[Clip]]:
    """The clips that go through together."""
    return [clips[i : i + BATCH_CLIPS] for i in range(0, len(clips), BATCH_CLIPS)]


def decode(clip: Clip, streams: Sequence[str], kit: Kit, root: Path) -> Decoded:
    """Reads what the encoders take of one clip; sound and sight fail independently."""
    wanted = kit.wanted(streams)
    sound = frames = None
    if "sound" in wanted:
        sound = attempt(clip, "sound", hear, clip, root)
    if wanted & {"sight", "pictures"}:
        frames = attempt(clip, "video", watch, clip, root)
    if (isinstance(sound, Failure) or isinstance(frames, Failure)) and not root.is_dir():
        raise StoreError(
            f"{root}: the data set's folder is gone (an unmounted disk?): run the same command again to go on"
        )
    return Decoded(clip, sound, frames, quality_of_files(clip, root))


def detect(decoded: Sequence[Decoded], streams: Sequence[str], tools: Tools) -> list[list[Faces]]:
    """The faces in the frames of each clip that has any, where a stream wants them; detection is batched across clips."""
    wanted = [i for i, d in enumerate(decoded) if isinstance(d.frames, media.Frames)]
    found: list[list[Faces]] = [[] for _ in decoded]
    if wanted and tools.config.finding.detects and "sight" in tools.kit.wanted(streams):
        images = [decoded[i].frames.images for i in wanted]  # type: ignore[union-attr]
        pictures = [looked_at(frames, tools.config.finding) for frames in images]
        for i, faces in zip(wanted, tools.measuring_detector.detect_many(pictures), strict=True):
            found[i] = faces
    return found


def prepare(decoded: Decoded, faces: Sequence[Faces], streams: Sequence[str], kit: Kit, times: Times) -> Ready:
    """Follows the face, adds the streams' noise, and lets each encoder take what it needs of sound or sight."""
    clip = decoded.clip
    quality = {takes: dict(decoded.files) for takes in ("sound", "sight", "pictures")}
    taken: dict[str, Sound | Sight | Pictures | Failure | None] = {"sound": decoded.sound, "sight": None}
    if isinstance(decoded.sound, Sound):
        quality["sound"] |= quality_of_sound(decoded.sound)
    if isinstance(decoded.frames, Failure):
        taken["sight"] = taken["pictures"] = decoded.frames
    elif decoded.frames is not None:
        frames = decoded.frames
        taken["pictures"] = Pictures(frames.images, frames.present)
        if "sight" in kit.wanted(streams):
            with times.of("landmarks"):
                taken["sight"] = sight = attempt(clip, "face", follow, clip, frames, faces, kit)
            if isinstance(sight, Sight):
                quality["sight"] |= quality_of_sight(sight)
    inputs: dict[str, Any] = {}
    for name in streams:
        preparer, variant = kit.preparers[name], kit.variants.get(name)
        inputs[name] = joined([taken[part] for part in inputs_of(kit.takes[name])])
        if variant and not isinstance(inputs[name], Failure):
            with times.of("noise"):
                inputs[name] = attempt(clip, "noise", noise.apply, variant, clip, inputs[name], kit.noise_context)
        if not isinstance(inputs[name], Failure):
            with times.of(f"prepare: {name}"):
                inputs[name] = attempt(clip, "encode", preparer.prepare, inputs[name])
    return Ready(clip, inputs, quality)


def joined(parts: Sequence[Any]) -> Any:
    """What an encoder takes, of one part or of both; the first failure where a part failed: half a clip is none."""
    if failed := [part for part in parts if isinstance(part, Failure)]:
        return failed[0]
    return parts[0] if len(parts) == 1 else Both(*parts)


def looked_at(frames: np.ndarray, finding: FaceFinding) -> np.ndarray:
    """The pictures of a clip that the detector has to see."""
    wanted = wanted_frames(len(frames), finding)
    return frames if len(wanted) == len(frames) else frames[wanted]


def hear(clip: Clip, root: Path) -> Sound:
    """The clip's sound. Raises MediaError."""
    return Sound(media.read_audio(source(root, clip.audio), *clip.sound_cut))


def watch(clip: Clip, root: Path) -> media.Frames:
    """The clip's pictures. Raises MediaError."""
    return media.read_frames(source(root, clip.video), clip.start_s, clip.end_s, fps=clip.fps, crop=clip.crop)


def follow(clip: Clip, frames: media.Frames, faces: Sequence[Faces], kit: Kit) -> Sight:
    """The clip's face. Steps for which the file had no frame are not valid. Raises NoFace, MediaError."""
    sight = kit.look(clip, frames.images, faces)
    return replace(sight, valid=sight.valid & frames.present)


def source(root: Path, relative: str | None) -> Path:
    if relative is None:
        raise MediaError("the data set has no file for this modality of the clip")
    return root / relative
