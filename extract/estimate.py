"""How long what is left of an extraction will take here, from a few clips."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..store import open_store
from ..store.errors import StoreNotFound
from .executors import FEEDERS_PER_GPU
from .pipeline import Done, Task, run_shard
from .plan import LIMIT_SEED, Plan, open_target
from .remaining import what_remains
from .threads import with_one_thread
from .times import DEVICE_STAGES
from .tools import Tools

SAMPLE_CLIPS = 6


@dataclass(frozen=True)
class Estimate:
    """seconds: of the clips that are left, of which there are `left`; clips: how many were tried; failed: how many of
    them failed in some stream."""

    seconds: float
    left: int
    clips: int
    failed: int


def estimate(plan: Plan) -> Estimate:
    """Runs a few of the clips that are left through all stages in this process, with the streams that they lack.

    Two first ones warm up and do not count. Writes nothing.

    Raises:
        StoreMismatch: the store that is there was made from something else.
    """
    config = plan.config
    groups = left_by_streams(plan)
    left = len({row for rows in groups.values() for row in rows})
    if not left:
        return Estimate(0.0, 0, 0, 0)
    tools = Tools(config.tools if not config.devices else replace(config.tools, device=config.devices[0]))
    seconds, tried, failed = 0.0, 0, 0
    with with_one_thread():  # as in a worker
        for streams, rows in groups.items():
            done = sample(plan, tools, streams, rows)
            measured = len(done.task.clips)
            seconds += seconds_a_clip(plan, done) * len(rows)
            tried += measured
            failed += sum(any(r[i].failure for r in done.results.values()) for i in range(measured))
    return Estimate(seconds, left, tried, failed)


def left_by_streams(plan: Plan) -> dict[tuple[str, ...], list[int]]:
    """Rows of the clips that are left, by the streams that they lack; of a store that is there, or all."""
    names = tuple(s.spec.name for s in plan.streams)
    try:
        open_store(plan.config.store)
    except StoreNotFound:
        return {names: list(range(len(plan.clips)))}
    store = open_target(plan)  # of one that is there it only compares what it was made from
    for stream in plan.streams:
        store.check_stream(stream.spec, stream.steps)
    groups: dict[tuple[str, ...], list[int]] = {}
    for remaining in what_remains(plan, store):
        groups.setdefault(remaining.streams, []).extend(remaining.rows)
    return groups


def sample(plan: Plan, tools: Tools, streams: tuple[str, ...], rows: Sequence[int]) -> Done:
    """A few of these clips, drawn at random, through all stages, after two others where there are more."""
    drawn = np.random.default_rng(LIMIT_SEED).permutation(len(rows))[: SAMPLE_CLIPS + 2].tolist()
    clips = tuple(plan.clips.rows([rows[i] for i in drawn]))
    run_shard(Task(0, clips[:2], streams), tools, plan.dataset.root, lambda n: None)
    return run_shard(Task(0, clips[2:] or clips, streams), tools, plan.dataset.root, lambda n: None)


def seconds_a_clip(plan: Plan, done: Done) -> float:
    """What a clip will take where the plan runs, by what some took in this process."""
    config, measured = plan.config, len(done.task.clips)
    device_s = sum(s for stage, s in done.times.seconds.items() if stage.startswith(DEVICE_STAGES))
    if config.devices:  # feeders and devices work side by side: the slower ones decide
        gpus = len(set(config.devices))  # two processes with one of them do not make two of it
        feeders = min(config.workers, FEEDERS_PER_GPU * gpus)
        return max((done.seconds - device_s) / feeders, device_s / gpus) / measured
    return done.seconds / measured / config.workers
