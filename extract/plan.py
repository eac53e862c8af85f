"""What an extraction would do: the clips, the streams with their specifications, and the shards that are still missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..store import Store, create_store, open_store
from ..store.clips import ClipTable
from ..store.errors import StoreNotFound, UsageError
from ..store.identity import default_shard_size
from ..store.spec import StreamSpec
from .datasets import table as datasets
from .datasets.base import DataSet
from .faces.finding import FaceFinding
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
        workers: processes; 1 works in this process. With GPUs: processes that feed them.
        devices: such as ("cuda:0", "cuda:1"), one process each; one that is named twice has two; none: the CPU.
        cluster: "local:N" or a Dask scheduler's address; None: this machine.
        retry_failed: also try the clips again that failed.
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
    devices: tuple[str, ...] = ()
    cluster: str | None = None
    retry_failed: bool = False


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
    """See the module. `dataset` is as found on disk, without its clips, of which there were `found`; `clips` after the limit."""

    config: ExtractConfig
    dataset: DataSet
    found: int
    clips: ClipTable
    streams: tuple[PlannedStream, ...]

    @property
    def mean_share(self) -> float:
        """Mean clip length over the longest."""
        durations = self.clips.column("end_s") - self.clips.column("start_s")
        return float(durations.mean() / durations.max())

    @property
    def shard_size(self) -> int:
        """Clips a shard: of the store that is there, or of the one that would be made."""
        try:
            return open_store(self.config.store).shard_size
        except StoreNotFound:
            return self.config.shard_size or default_shard_size(len(self.clips))


def make_plan(config: ExtractConfig) -> Plan:
    """Looks at the data set and loads the models' descriptions; writes nothing.

    Raises:
        UsageError, UnknownName, WeightsNotFound: naming what is missing, or of no use.
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
    if config.tools.babbles:
        config = replace(config, tools=replace(config.tools, voices=(clips, dataset.root)))
    tools = Tools(replace(config.tools, device="cpu", compiled=False))  # for its descriptions alone
    check_used(tools)
    longest_s = float((clips.column("end_s") - clips.column("start_s")).max())
    streams = tuple(
        PlannedStream(tools.specification(name), tools.encoders[name].steps(longest_s)) for name in config.tools.streams
    )
    return Plan(config, replace(dataset, clips=()), len(dataset.clips), clips, streams)


def check_used(tools: Tools) -> None:
    """Raises UsageError for noise or a way to find faces that no stream asks for: most likely a stream was forgotten."""
    config, kit = tools.config, tools.kit
    made = ", ".join(config.streams)
    kinds = {part.kind for variant in kit.variants.values() for part in variant.parts}
    if config.noise_file is not None and "file" not in kinds:
        raise UsageError(
            f"a noise file is given, and no stream has the noise file=, such as audio.hubert@file=10; streams: {made}"
        )
    if config.noise_seed and not kinds:
        raise UsageError(f"noise seed {config.noise_seed}: no stream has noise; streams: {made}")
    if (config.finding != FaceFinding() or config.detector_weights) and "sight" not in kit.wanted(config.streams):
        raise UsageError(f"how to find faces is said, and no stream looks for a face: {made}")
    if config.detector_weights and not config.finding.detects:
        raise UsageError(f'a detector is given, which the face policy "{config.finding.policy}" does not ask')


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


def streams_of(store: Path) -> Sequence[str]:
    """The streams that were extracted into the store at this path, not imported or derived; none where there is no store yet."""
    try:
        there = open_store(store)
    except StoreNotFound:
        return ()
    return [name for name in there.streams() if there.spec(name).source is None]
