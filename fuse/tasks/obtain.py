"""Runs of several tasks in one model: each task has a run of its own on disk, as if it had been trained alone.

    <out>/<task>/<run>      a plain run: its settings name the tasks that it was trained with, its weights are a whole model

So a run of several tasks is read, tested and tabulated as any other, and stands beside those that were trained on its task alone.
The runs are written when all tasks are trained; where a kill leaves only some of them, the same command writes the rest.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..config import RunConfig
from ..data import Features
from ..learner import clips_of
from ..lockstep import alone
from ..models.table import takes
from ..obtain import Task, is_finished, judge, obtain, origin_of, single_models
from ..prerequisites import prerequisites, starting_points, teachers
from ..run import Run, run_name, save_run
from ..standing import Diverged
from ..unfinished import FOLDER, Unfinished
from .part import Part, check_parts, divided
from .train import train_together

Together = Mapping[str, RunConfig]  # by task: the settings of one training


def train_tasks(
    trainings: Sequence[Together], tasks: Mapping[str, Task]
) -> tuple[dict[str, list[Run]], dict[RunConfig, str]]:
    """Trains and tests what is not there yet, one training after another.

    Args:
        trainings: each with the settings of every task, as for a training of that task alone.
        tasks: by the same names: its features, its folder and what else its runs share. One progress tells of all.

    Returns:
        By task, the finished runs in the order asked for; and what went wrong with the other trainings, by their first settings.

    Raises:
        UsageError: these can't be tasks of one model, before anything is trained.
    """
    for training in trainings:
        parts = parts_of(tagged(training, tasks), tasks)
        check_parts(parts)
        for part in parts:
            for split in ("train", "dev", "test"):
                clips_of(part.features, split, part.config)
        divided(parts)
    wanted = [together for training in trainings for together in (*before(training), training)]
    named = {tuple(one.values()): one for one in (tagged(training, tasks) for training in wanted)}
    missing = [one for one in named.values() if not finished(one, tasks)]
    asked = [one for training in trainings if (one := tagged(training, tasks)) not in missing]
    reused = [run_name(config, tasks[name].features) for one in asked for name, config in one.items()]
    progress = next(iter(tasks.values())).progress
    progress.begin(sum(map(work, missing)), reused)
    runs: dict[str, list[Run]] = {name: [] for name in tasks}
    failed: dict[RunConfig, str] = {}
    try:
        for training in trainings:
            try:
                for name, run in obtain_tasks(training, tasks).items():
                    runs[name].append(run)
            except Diverged as error:
                failed[next(iter(tagged(training, tasks).values()))] = str(error)
    finally:
        progress.end()
    return runs, failed


def obtain_tasks(training: Together, tasks: Mapping[str, Task]) -> dict[str, Run]:
    """The finished runs of one training, by task, tested under every condition: those on disk, or new ones."""
    together = tagged(training, tasks)
    if not finished(together, tasks):
        fresh_runs(together, tasks)
    return {name: obtain(config, tasks[name]) for name, config in together.items()}


def fresh_runs(together: Together, tasks: Mapping[str, Task]) -> None:
    """Trains, chooses on dev, tests, and writes the runs."""
    silent = {name: replace(task, conditions=()) for name, task in tasks.items()}
    starts, taught = (
        by_task({m: obtain_tasks(one, silent) for m, one in of_modalities(together, points).items()}, together)
        for points in (starting_points, teachers)
    )
    began = time.monotonic()
    first, config = next(iter(together.items()))
    task = tasks[first]
    task.progress.start(config)
    unfinished = Unfinished(task.out / FOLDER / run_name(config, task.features))
    if not task.resume:
        unfinished.remove()
    parts = parts_of(together, tasks)
    everything = train_together(
        parts,
        branches=[single_models(starts[name], task.device) for name in together],
        teachers=[single_models(taught[name], task.device) for name in together],
        device=task.device,
        on_epoch=lambda epoch: task.progress.advance(config, epoch, len(parts) * len(takes(config.model))),
        unfinished=unfinished,
    )
    names = {part.name: run_name(part.config, tasks[part.name].features) for part in parts}
    for part, trained in zip(parts, everything, strict=True):
        mine = tasks[part.name]
        results, predictions = alone(judge(trained, part.config, part.features))
        origin = {"tasks": names, **origin_of(starts[part.name], taught[part.name], began, mine.executor)}
        run = save_run(mine.out, part.config, part.features, trained, results, predictions, mine.provenance | origin)
        mine.progress.finish(run)
    unfinished.remove()


def tagged(training: Together, tasks: Mapping[str, Task]) -> dict[str, RunConfig]:
    """The same settings, each with the tasks that are trained together in its `tasks`, in the order of their names."""
    marks = {name: f"{name}={digest(training[name], tasks[name].features)}" for name in sorted(training)}
    return {
        name: replace(training[name], tasks=(mark, *(other for other in marks.values() if other != mark)))
        for name, mark in marks.items()
    }


def digest(config: RunConfig, features: Features) -> str:
    """Stands for what a task trains on."""
    variants = [features.variant_digests[name] for name in (*config.augment, *config.gate_augment)]
    return hashlib.sha256(json.dumps([features.digest, *variants]).encode()).hexdigest()[:10]


def before(training: Together) -> list[Together]:
    """The trainings of one modality that must be there before this one."""
    each = {name: prerequisites(config) for name, config in training.items()}
    return [dict(zip(each, configs, strict=True)) for configs in zip(*each.values(), strict=True)]


def of_modalities(
    together: Together, points: Callable[[RunConfig], Mapping[str, RunConfig]]
) -> dict[str, dict[str, RunConfig]]:
    """By modality: the training that this one starts or learns from."""
    found: dict[str, dict[str, RunConfig]] = {}
    for name, config in together.items():
        for modality, earlier in points(config).items():
            found.setdefault(modality, {})[name] = earlier
    return found


def by_task(runs: Mapping[str, Mapping[str, Run]], together: Together) -> dict[str, dict[str, Run]]:
    """By task, then modality."""
    return {name: {modality: found[name] for modality, found in runs.items()} for name in together}


def parts_of(together: Together, tasks: Mapping[str, Task]) -> list[Part]:
    return [
        Part(name, config, tasks[name].features.folded(config.folds, config.fold, config.fold_by))
        for name, config in together.items()
    ]


def finished(together: Together, tasks: Mapping[str, Task]) -> bool:
    return all(is_finished(config, tasks[name].features, tasks[name].out) for name, config in together.items())


def work(together: Together) -> int:
    """What a training costs, in epochs of one modality and task."""
    return sum(config.total_epochs * len(takes(config.model)) for config in together.values())
