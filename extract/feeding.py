"""One process with the device, fed by others: these decode and prepare clips, it detects and encodes them in batches.

The pictures lie in shared memory (`arena`). Batches keep their order, so the features are those of `pipeline.run_shard`.
Several batches are on their way at once, also across shards: the device waits only where the feeders are slower than it.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..store.clips import Clip
from ..store.errors import WorkerDied
from ..store.processes import begin, parcel, worker_context
from . import media
from .arena import Arena, Stored
from .encoders.base import Crops
from .finishing import BATCH_CLIPS, Ready, Results
from .pipeline import Decoded, Done, Task, batches, decode, detect, prepare
from .threads import one_thread
from .times import HAND_OVER, Times, time_of_device
from .tools import Kit, Tools

AHEAD = 2  # batches that are being decoded, and as many that are being prepared, while one is on the device


@dataclass(frozen=True)
class Placed:
    """Frames in the arena; images None: they are larger than a slot."""

    images: Stored | None
    present: Any


@dataclass
class Batch:
    """Clips on their way, the last of their task or not. `steps` are the feeders' answers to what was last asked for."""

    job: "Job"
    clips: Sequence[Clip]
    slots: list[int]
    last: bool
    steps: list[Future[Any]] = field(default_factory=list)


@dataclass
class Job:
    """A task and what is known of its results."""

    task: Task
    results: Results
    times: Times = field(default_factory=Times)

    @property
    def worked_s(self) -> float:
        """Summed over processes: several tasks are on their way at once."""
        return sum(seconds for stage, seconds in self.times.seconds.items() if not stage.startswith("wait"))


class Feeders:
    """Processes that decode and prepare clips.

    Args:
        kit, root: what they work with.
        count: how many, of one thread each.
        slot_bytes: shared memory for one clip's pictures.
    """

    def __init__(self, kit: Kit, root: Path, count: int, **sizes: int):
        self.kit, self.root = kit, root
        self.arena = Arena((2 * AHEAD + 1) * BATCH_CLIPS, **sizes)
        self.free = deque(range(self.arena.slots))
        arguments = (parcel(kit), root, self.arena, dict(os.environ))
        self.pool = ProcessPoolExecutor(count, worker_context(), _start, arguments)
        if (device := torch.device(kit.config.device)).type == "cuda":
            self.arena.lock(device)

    def decode(self, batch: Batch) -> None:
        """Asks for the clips of a batch."""
        streams = batch.job.task.streams
        batch.steps = [
            self.pool.submit(_decode, clip, streams, slot) for clip, slot in zip(batch.clips, batch.slots, strict=True)
        ]

    def prepare(self, batch: Batch, decoded: Sequence[Decoded], faces: Sequence[Any]) -> None:
        """Asks for their network inputs."""
        streams = batch.job.task.streams
        batch.steps = [
            self.pool.submit(_prepare, placed, found, streams, slot)
            for placed, found, slot in zip(decoded, faces, batch.slots, strict=True)
        ]

    def seen(self, decoded: Decoded, job: Job) -> Decoded:
        """The same with its pictures; one that had no room is decoded here."""
        if not isinstance(decoded.frames, Placed):
            return decoded
        if decoded.frames.images is None:
            return decode(decoded.clip, job.task.streams, self.kit, self.root)
        return replace(decoded, frames=media.Frames(self.arena.view(decoded.frames.images), decoded.frames.present))

    def release(self, batch: Batch) -> None:
        """The batch's pictures are needed no more."""
        for slot in batch.slots:
            self.arena.release(slot)
        self.free.extend(batch.slots)


def run_fed(
    tasks: Iterable[Task], tools: Tools, root: Path, advance: Callable[[int], None], feeders: int, **sizes: int
) -> Iterator[Done]:
    """The tasks' results in their order.

    Args:
        root: the folder that the clips' sources are relative to.
        advance: called with a number of clips as they get done.
        feeders: processes beside this one.
        sizes: `slot_bytes`, for tests.

    Raises:
        WorkerDied: a feeder was killed.
        MemoryError, torch.OutOfMemoryError.
    """
    if tools.config.device == "cpu":
        one_thread()  # as everywhere on a CPU: the same shard gives the same bytes
    feeding = Feeders(tools.kit, root, feeders, **sizes)
    coming = batches_of(tasks, tools)
    decoding: deque[Batch] = deque()
    preparing: deque[Batch] = deque()
    mark = time.perf_counter()  # every second of this process from here on is counted once: see `HAND_OVER`
    try:
        while True:
            while len(decoding) < AHEAD and (batch := next(coming, None)):
                batch.slots = [feeding.free.popleft() for _ in batch.clips]
                feeding.decode(batch)
                decoding.append(batch)
            if not decoding and not preparing:
                return
            looks = decoding and len(preparing) < AHEAD
            batch = (decoding if looks else preparing).popleft()
            times = batch.job.times
            known = time_of_device(times.seconds)
            if looks:
                look_for_faces(batch, tools, feeding)
                preparing.append(batch)
            else:
                encode(batch, feeding)
                advance(len(batch.clips))
            now, known = time.perf_counter(), time_of_device(times.seconds) - known
            times.add(HAND_OVER, max(0.0, now - mark - known))
            mark = now
            if not looks and batch.last:
                job = batch.job
                yield Done(job.task, job.results.by_stream, job.worked_s, job.times)
    except BrokenProcessPool as error:
        raise WorkerDied("a feeding process died (out of memory?): run the same command again to go on") from error
    finally:
        feeding.pool.shutdown(wait=True, cancel_futures=True)


def batches_of(tasks: Iterable[Task], tools: Tools) -> Iterator[Batch]:
    """All clips in batches that end with their task, as in `run_shard`."""
    for task in tasks:
        job = Job(task, Results(task.streams, tools.encoders))
        groups = batches(task.clips)
        for i, clips in enumerate(groups, 1):
            yield Batch(job, clips, [], i == len(groups))


def look_for_faces(batch: Batch, tools: Tools, feeding: Feeders) -> None:
    """Detection on the device; the clips go on to be prepared."""
    times = batch.job.times
    placed = answers(batch, "wait: decode")
    with times.of("detect"):
        seen = [feeding.seen(decoded, batch.job) for decoded in placed]
        found = detect(seen, batch.job.task.streams, tools)
    for i, decoded in enumerate(placed):
        if isinstance(decoded.frames, Placed) and decoded.frames.images is None:
            placed[i] = seen[i]  # no room in the arena: it travels by itself
    feeding.prepare(batch, placed, found)


def encode(batch: Batch, feeding: Feeders) -> None:
    """The networks on the device; the batch's features join those of its task."""
    ready = [in_place(r, feeding.arena) for r in answers(batch, "wait: prepare")]
    batch.job.results.add(ready, batch.job.times)
    feeding.release(batch)
    if batch.last:
        batch.job.results.close(batch.job.times)


def answers(batch: Batch, waiting: str) -> list[Any]:
    """What the feeders made of the clips of a batch, in order; their times and the time that was waited are noted."""
    times = batch.job.times
    with times.of(waiting):
        found = [step.result() for step in batch.steps]
    for _, spent in found:
        times.join(spent)
    return [answer for answer, _ in found]


def in_place(ready: Ready, arena: Arena) -> Ready:
    """The same with its crops."""
    inputs = {
        name: replace(x, images=arena.view(x.images)) if isinstance(x, Crops) and isinstance(x.images, Stored) else x
        for name, x in ready.inputs.items()
    }
    return replace(ready, inputs=inputs)


_feeder: dict[str, Any] = {}


def _start(kit: Kit, root: Path, arena: Arena, environment: Mapping[str, str]) -> None:
    begin(environment)
    one_thread()
    _feeder.update(kit=kit, root=root, arena=arena)


def _decode(clip: Clip, streams: Sequence[str], slot: int) -> tuple[Decoded, Times]:
    times = Times()
    with times.of("decode"):
        decoded = decode(clip, streams, _feeder["kit"], _feeder["root"])
        if isinstance(frames := decoded.frames, media.Frames):
            images = _feeder["arena"].put(slot, 0, frames.images)
            decoded = replace(decoded, frames=Placed(images, frames.present))  # type: ignore[arg-type]
    return decoded, times


def _prepare(decoded: Decoded, faces: Sequence[Any], streams: Sequence[str], slot: int) -> tuple[Ready, Times]:
    times, arena = Times(), _feeder["arena"]
    if isinstance(decoded.frames, Placed):
        decoded = replace(decoded, frames=media.Frames(arena.view(decoded.frames.images), decoded.frames.present))
    ready = prepare(decoded, faces, streams, _feeder["kit"], times)
    start = 0  # the pictures are not needed any more
    for name, taken in ready.inputs.items():
        if isinstance(taken, Crops) and (images := arena.put(slot, start, taken.images)):
            ready.inputs[name], start = replace(taken, images=images), images.stop
    return ready, times
