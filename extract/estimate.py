"""How long an extraction will take here, from a few clips."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from .executors import FEEDERS_PER_GPU
from .pipeline import DEVICE_STAGES, Task, run_shard
from .plan import LIMIT_SEED, Plan
from .tools import Tools

SAMPLE_CLIPS = 6


@dataclass(frozen=True)
class Estimate:
    """seconds: of all clips of the plan, done before or not; clips: how many were tried; failed: how many of them failed in some stream."""

    seconds: float
    clips: int
    failed: int


def estimate(plan: Plan) -> Estimate:
    """Runs a few clips, drawn at random, through all stages in this process. Two first ones warm up and do not count."""
    config = plan.config
    rows = np.random.default_rng(LIMIT_SEED).permutation(len(plan.clips))[: SAMPLE_CLIPS + 2].tolist()
    clips = tuple(plan.clips.rows(rows))
    names = tuple(s.spec.name for s in plan.streams)
    tools = Tools(config.tools if not config.devices else replace(config.tools, device=config.devices[0]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for part in (clips[:2], clips[2:] or clips):
            done = run_shard(Task(0, part, names), tools, plan.dataset.root, lambda n: None)
    finally:
        torch.set_num_threads(threads)
    measured = len(done.task.clips)
    device_s = sum(s for stage, s in done.times.seconds.items() if stage.startswith(DEVICE_STAGES))
    if config.devices:  # feeders and devices work side by side: the slower ones decide
        feeders = min(config.workers, FEEDERS_PER_GPU * len(config.devices))
        a_clip = max((done.seconds - device_s) / feeders, device_s / len(config.devices)) / measured
    else:
        a_clip = done.seconds / measured / config.workers
    failed = sum(any(r[i].failure for r in done.results.values()) for i in range(measured))
    return Estimate(a_clip * len(plan.clips), measured, failed)
