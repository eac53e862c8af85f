"""How a sweep is best trained, and how long it will take: a few steps of each way are measured, none of which is kept.

The estimate is the speed of those few times the steps that are to come. An evaluated clip counts as a third of a trained one (a pass back
costs about two passes forward), and is evaluated run by run, in a stack too, but for one on a GPU. A branch that runs start from is a run
of its own.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch

from ..store.errors import BmlaError
from .config import RunConfig
from .contribution import QUICK_CLIPS
from .learner import clips_of, set_apart
from .lockstep import AllSteps, Forward, Training, alone
from .models.table import takes
from .obtain import Task
from .stacked.executor import divided
from .stacked.group import grouped, stack_of
from .stacked.stack import in_one_go_on, run_stacked
from .stream import Stored
from .training import Trained, training

WARM, TIMED = 1, 4  # steps
AT_ONCE = 32  # steps of a short epoch
LONG_S = 2.0  # a measurement ends after so long
LARGEST_TRIAL = 8  # runs of a stack that is only tried
FORWARD_SHARE = 1 / 3
WORTH_S, WORTH_SHARE = 20.0, 0.2  # what a stack must save
START_S = 4.0  # for a process to import and to be sent the features


@dataclass(frozen=True)
class Plan:
    """Attributes:
    executor: of `sweep.EXECUTORS`, but for "auto".
    seconds: expected; None: not measured.
    lines: for a person.
    """

    executor: str
    seconds: float | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speed:
    """Of a group of runs that are alike.

    Attributes:
        runs: how many.
        steps: of all of them together.
        judged: what their evaluation costs, in steps of a run alone.
        alone_s: a step of one run alone.
        stacked_s: a run's share of a step in a stack; None: it is not for a stack.
        width: of that stack.
        together: it evaluates its runs in one go.
    """

    name: str
    runs: int
    steps: float
    judged: float
    alone_s: float
    stacked_s: float | None
    width: int
    together: bool = False

    def seconds(self, executor: str, workers: int) -> float:
        if executor == "stacked" and self.stacked_s is not None:
            return self.steps * self.stacked_s + self.judged * (self.stacked_s if self.together else self.alone_s)
        return (self.steps + self.judged) * self.alone_s / min(workers, self.runs)


def plan(configs: Sequence[RunConfig], task: Task, workers: int, threads: int, executor: str) -> Plan:
    """Args:
    configs: the runs to be trained.
    workers, threads: of the processes; see `sweep.run_sweep`.
    executor: "auto", or the one that it must be.
    """
    given = "processes" if executor == "auto" else executor
    if len(configs) < 2 or executor == "dask" or not (executor == "auto" or task.progress.talks):
        return Plan(given)
    if any(isinstance(task.features.stream(m), Stored) for c in configs for m in takes(c.model)):
        return Plan(given)  # each trial would read them all for their statistics
    together, others, _ = divided(configs, task.features, task.device)
    groups = [*together, *grouped(others, task.device)]
    speeds = {i: s for i, group in enumerate(groups) if (s := measured(group, task, threads)) is not None}
    if not speeds:
        return Plan(given)
    totals = totals_of(speeds.values(), workers)
    if executor == "stacked" or (executor == "auto" and totals["processes"] > WORTH_S):  # else it could not save that
        stackable = [i for i in range(len(together)) if i in speeds]
        speeds |= {i: in_a_stack(speeds[i], groups[i], task, workers * threads) for i in stackable}
        totals = totals_of(speeds.values(), workers)
    torch.set_num_threads(threads)
    best = chosen(totals) if executor == "auto" else executor
    return Plan(best, totals[best], lines_of(best, totals, [*speeds.values()], len(configs), workers, threads))


def chosen(totals: Mapping[str, float]) -> str:
    """Processes, whose weights are always the same to the last bit, unless stacks are much quicker: no noise of a measurement decides."""
    saved_s = totals["processes"] - totals["stacked"]
    return "stacked" if saved_s > max(WORTH_S, WORTH_SHARE * totals["processes"]) else "processes"


def totals_of(speeds: Iterable[Speed], workers: int) -> dict[str, float]:
    """Seconds of all runs together, by executor."""
    totals = {name: sum(s.seconds(name, workers) for s in speeds) for name in ("processes", "stacked")}
    if workers > 1:
        totals["processes"] += START_S
    return totals


def measured(group: Sequence[RunConfig], task: Task, threads: int) -> Speed | None:
    """A run alone; None for runs that learn from others which may not be there yet, and for those that can't be trained: the sweep will
    say why."""
    config = group[0]
    try:
        alone_s = step_seconds([partial(trial, config, task)], task, threads)
    except BmlaError:
        return None
    name = config.model if config.balance == "none" else f"{config.model} + {config.balance}"
    steps, judged = map(sum, zip(*(steps_of(c, task) for c in group), strict=True))
    return Speed(name, len(group), steps, judged, alone_s, None, 1)


def in_a_stack(speed: Speed, group: Sequence[RunConfig], task: Task, cores: int) -> Speed:
    """The same with that of a stack, on so many threads; without, where none can be trained."""
    width = min(len(group), LARGEST_TRIAL, stack_of(group, task.features, task.device))
    try:
        stacked_s = step_seconds([partial(trial, c, task) for c in group[:width]], task, cores) / width
    except BmlaError:
        return speed
    return replace(speed, stacked_s=stacked_s, width=width, together=in_one_go_on(torch.device(task.device)))


def trial(config: RunConfig, task: Task) -> Training[Trained]:
    """A training that keeps nothing, from fresh weights."""
    features = task.features.folded(config.folds, config.fold, config.fold_by)
    return training(config, features, builder=task.builders.get(config.model), device=task.device)


def step_seconds(
    trials: Sequence[Callable[[], Training[Trained]]], task: Task, threads: int, whole: bool | None = None
) -> float:
    """How long a step of all of them together takes; 0 where nothing is trained.

    Args:
        whole: one in a stack of its own is measured there, as a sweep of stacks would train it; else see `run_stacked`.
    """
    torch.set_num_threads(threads)
    clocks: list[list[float]] = [[] for _ in trials]
    starts = [partial(few_steps, start, clock, task) for start, clock in zip(trials, clocks, strict=True)]
    if len(starts) == 1 and not whole:
        alone(starts[0]())
    else:
        for _, outcome in run_stacked(enumerate(starts), len(starts), task.device, whole):
            if isinstance(outcome, BmlaError):
                raise outcome
    times = clocks[0][WARM:]
    return statistics.median(b - a for a, b in pairwise(times)) if len(times) > 1 else 0.0


def few_steps(start: Callable[[], Training[Trained]], clock: list[float], task: Task) -> Training[None]:
    """The first steps of a training; `clock` gets the time at which each begins.

    Where all steps of an epoch are taken in one go, those of a short one are timed, the second time that it is trained.
    """
    whole = start()
    try:
        request = next(whole)
        while True:
            if isinstance(request, AllSteps):
                short = shortened(request)
                if (yield short) is not None:
                    began = now(task)
                    yield short
                    step_s = (now(task) - began) / len(short.draws)
                    clock[:] = [began + i * step_s for i in range(WARM + TIMED + 1)]
                    return
                request = whole.send(None)
                continue
            if isinstance(request, Forward):
                clock.append(now(task))
                if len(clock) > WARM + TIMED or (len(clock) > WARM + 1 and clock[-1] - clock[0] > LONG_S):
                    return
            request = whole.send((yield request))
    except StopIteration:
        return
    finally:
        whole.close()


def now(task: Task) -> float:
    """Seconds, when the device has done all that it was asked."""
    if torch.device(task.device).type == "cuda":
        torch.cuda.synchronize(task.device)
    return time.perf_counter()


def shortened(epoch: AllSteps) -> AllSteps:
    """The first steps of an epoch, over and over where it has too few. Epochs of different length stay so, but for one in AT_ONCE."""
    steps = [i % len(epoch.draws) for i in range(AT_ONCE + len(epoch.draws) % AT_ONCE)]
    rates = {owner: [each[i] for i in steps] for owner, each in epoch.rates.items()}
    return replace(epoch, draws=[epoch.draws[i] for i in steps], rates=rates)


def steps_of(config: RunConfig, task: Task) -> tuple[int, float]:
    """Steps of a run, and what its evaluation costs, in steps."""
    features = task.features.folded(config.folds, config.fold, config.fold_by)
    train, dev = (clips_of(features, split, config) for split in ("train", "dev"))
    train, held = set_apart(train, features, config)
    judged = (len(dev) + len(held)) * (2 if config.augment else 1)
    judged += 3 * QUICK_CLIPS if len(takes(config.model)) == 2 else 0
    epochs, size = config.total_epochs, config.batch_size
    return epochs * math.ceil(len(train) / size), epochs * FORWARD_SHARE * judged / size


def lines_of(
    best: str, totals: Mapping[str, float], speeds: Sequence[Speed], runs: int, workers: int, threads: int
) -> tuple[str, ...]:
    """The plan in one line, and one for each group of runs that train together."""
    how = (
        "in stacks"
        if best == "stacked"
        else f"in {several(workers, 'process', 'es')} of {several(threads, 'thread', 's')}"
    )
    tried = [s for s in speeds if s.stacked_s is not None]
    other = "processes" if best == "stacked" else "stacked"
    against = f"; {'in processes' if other == 'processes' else 'in stacks'} {duration(totals[other])}" if tried else ""
    lines = [f"{runs} runs to train, about {duration(totals[best])} {how}{against} (by a few steps of each)"]
    for s in speeds:
        stacked = "" if s.stacked_s is None else f", {1000 * s.stacked_s:.0f} in a stack of {s.width}"
        lines.append(
            f"  {s.runs} x {s.name}: {duration(s.seconds(best, workers))}; ms a step: {1000 * s.alone_s:.0f} alone{stacked}"
        )
    if left := runs - sum(s.runs for s in speeds):
        lines.append(f"  {left} not measured")
    return tuple(lines)


def several(count: int, name: str, ending: str) -> str:
    return f"{count} {name}{ending if count != 1 else ''}"


def duration(seconds: float) -> str:
    """For a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
