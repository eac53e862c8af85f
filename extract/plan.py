"""What an extraction would do: the clips, the streams with their specifications, and the shards that are still missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..store import Store, create_store, open_store
from ..store.clips import ClipTable
from ..store.errors import StoreNotFound, UsageError
from ..store.spec import StreamSpec
from .datasets import table as datasets
from .datasets.base import DataSet
from .pipeline import Task
from .tools import ToolConfig, Tools

LIMIT_SEED = 0


@dataclass(frozen=True)
class ExtractConfig:
    """One extraction.

    Attributes:
        dataset: the adapter's name.
        root: the data set's folder.
        store: where the store is or will be.
        tools: streams, device, weights.
        options: the adapter's own options.
        limit: only so many clips, drawn evenly at random (seeded); None: all.
        shard_size: clips a shard; None: chosen by the number of clips.
        compression: "none" or "zstd", of new streams.
        workers: processes; 1 works in this process.
    """

    dataset: str
    root: Path
    store: Path
    tools: ToolConfig
    options: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    shard_size: int | None = None
    compression: str = "none"
    workers: int = 1


@dataclass(frozen=True)
class PlannedStream:
    """A stream to make: its specification and T, the steps of its longest clip."""

    spec: StreamSpec
    steps: int

    def bytes(self, clips: int, mean_share: float = 1.0) -> int:
        """Size on disk if clips are as long as `mean_share` of the longest one."""
        step = int(np.prod(self.spec.feature_shape)) * np.dtype(self.spec.dtype).itemsize
        return round(clips * self.steps * mean_share * step)


@dataclass(frozen=True)
class Plan:
    """See the module. `dataset` is as found on disk, `clips` after the limit."""

    config: ExtractConfig
    dataset: DataSet
    clips: ClipTable
    streams: tuple[PlannedStream, ...]

    @property
    def mean_share(self) -> float:
        """Mean clip length over the longest."""
        durations = self.clips.column("end_s") - self.clips.column("start_s")
        return float(durations.mean() / durations.max())


def make_plan(config: ExtractConfig) -> Plan:
    """Looks at the data set and loads the models' descriptions; writes nothing.

    Raises:
        UsageError, UnknownName, WeightsNotFound: naming what is missing.
    """
    dataset = datasets.find(config.dataset).adapter()(config.root, **config.options)
    if not dataset.clips:
        reasons = "; ".join(f"{d.item}: {d.reason}" for d in dataset.dropped[:3]) or "no reason known"
        raise UsageError(
            f"{config.dataset}: no usable clip in this root ({len(dataset.dropped)} items left out: {reasons})"
        )
    clips = ClipTable.from_clips(dataset.clips)
    if config.limit is not None and config.limit < len(clips):
        clips = clips.select(np.sort(np.random.default_rng(LIMIT_SEED).permutation(len(clips))[: config.limit]))
    tools = Tools(config.tools)
    longest_s = float((clips.column("end_s") - clips.column("start_s")).max())
    streams = tuple(
        PlannedStream(tools.specification(name), tools.encoders[name].steps(longest_s)) for name in config.tools.streams
    )
    return Plan(config, dataset, clips, streams)


def open_target(plan: Plan) -> Store:
    """Makes the store, or opens the one that is there. Raises StoreMismatch where it was made from something else."""
    config, found = plan.config, plan.dataset
    limited = {} if config.limit is None else {"limit": config.limit, "limit_seed": LIMIT_SEED}
    return create_store(
        config.store,
        dataset=found.name,
        task=found.task,
        classes=found.classes,
        clips=plan.clips,
        options={**found.options, **limited},
        shard_size=config.shard_size,
    )


def add_streams(plan: Plan, store: Store) -> None:
    """Adds the plan's streams to the store: all of them or, where one does not fit (StoreMismatch), none."""
    for stream in plan.streams:
        store.check_stream(stream.spec, stream.steps)
    for stream in plan.streams:
        store.add_stream(stream.spec, stream.steps, plan.config.compression)


def tasks_of(plan: Plan, store: Store) -> list[Task]:
    """The shards that some stream of the plan still lacks."""
    missing: dict[int, list[str]] = {}
    for stream in plan.streams:
        for shard in store.pending(stream.spec.name):
            missing.setdefault(shard, []).append(stream.spec.name)
    return [
        Task(shard, tuple(plan.clips.rows(range(*store.extent(shard)))), tuple(names))
        for shard, names in sorted(missing.items())
    ]


def streams_of(store: Path) -> Sequence[str]:
    """The streams of the store at this path; none where there is no store yet."""
    try:
        return open_store(store).streams()
    except StoreNotFound:
        return ()
