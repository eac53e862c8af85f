"""The runs of a sweep in stacks, in this process."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from ...store.errors import BmlaError
from ..config import RunConfig
from ..data import Features
from ..obtain import Task, fresh_run
from ..prerequisites import prerequisites
from ..run import Run
from ..standing import Diverged
from .group import grouped, reasons_of, stack_of
from .stack import run_stacked


def divided(
    configs: Iterable[RunConfig], features: Features, device: torch.device | str
) -> tuple[list[list[RunConfig]], list[RunConfig], list[str]]:
    """Groups of at least two runs that stack; the runs that stay alone; and what of some of those does not stack, each once."""
    reasons = reasons_of(configs, features)
    groups = grouped((c for c, reason in reasons.items() if reason is None), device)
    together = [group for group in groups if len(group) > 1]
    stacked = {c for group in together for c in group}
    return (
        together,
        [c for c in reasons if c not in stacked],
        list(dict.fromkeys(r for r in reasons.values() if r)),
    )


def run_stacks(
    groups: Sequence[Sequence[RunConfig]], task: Task, failed: Mapping[RunConfig, str]
) -> dict[RunConfig, str]:
    """Trains each group of runs, as many of it at once as memory allows; those that need a failed one are left out.

    Returns:
        What went wrong, by configuration, where a loss became NaN.
    """
    stacked = replace(task, executor="stacked")
    wrong: dict[RunConfig, str] = {}
    for group in groups:
        ready = [c for c in group if not any(p in failed for p in prerequisites(c))]
        if not ready:
            continue
        width = stack_of(ready, task.features, task.device)
        starts = ((c, partial(fresh_run, c, stacked)) for c in ready)
        for config, outcome in run_stacked(starts, width, task.device):
            match outcome:
                case Run():
                    task.progress.finish(outcome)
                case Diverged():
                    wrong[config] = str(outcome)
                case BmlaError():
                    raise outcome
    return wrong
