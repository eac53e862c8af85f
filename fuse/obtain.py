"""One run of a sweep: trained, chosen on dev, tested and on disk; or the one that is there already."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..store.errors import UsageError
from .condition import CLEAN, Condition
from .config import RunConfig
from .contribution import contribution
from .data import Features
from .learner import clips_of
from .lockstep import Training, alone
from .metrics import scores
from .models.balancemla import BalanceMLA
from .models.base import FusionModel
from .models.own import Builder
from .models.single import SingleModality
from .models.table import takes
from .predictions import Ask, Predictions
from .prerequisites import starting_points, teachers
from .progress import Progress
from .run import Run, load_run, run_name, save_run
from .standing import Diverged
from .training import Trained, training
from .unfinished import FOLDER, Unfinished


@dataclass(frozen=True)
class Task:
    """What all runs of a sweep share; see `sweep.run_sweep`.

    Attributes:
        resume: a run that was killed goes on from its last state; False: such states are thrown away.
        builders: of models of the user's own, by name.
        executor: how the runs are trained, for their config.json; see `sweep.py`.
        asked: those that the conditions are for, and not what they start from; None: any run.
    """

    features: Features
    out: Path
    conditions: tuple[Condition, ...]
    device: torch.device | str
    provenance: dict[str, Any]
    progress: Progress
    resume: bool = True
    builders: Mapping[str, Builder] = field(default_factory=dict)
    executor: str = "processes"
    asked: frozenset[RunConfig] | None = None

    def finished(self, config: RunConfig) -> Run:
        """The run of a configuration, which is there."""
        return load_run(self.out / run_name(config, self.features), self.builders.get(config.model))

    def untested(self, config: RunConfig) -> list[Condition]:
        """The conditions under which a finished run is still to be tested; those that leave it nothing to see are not asked."""
        if self.asked is not None and config not in self.asked:
            return []
        run = self.finished(config)
        mine = dict.fromkeys(c.seen_by(run.streams) for c in self.conditions)
        asked = [c for c in mine if len(c.hidden) < len(run.streams)]
        return [c for c in asked if not run.was_tested(c, self.features.variant_digests)]


def obtain(config: RunConfig, task: Task) -> Run:
    """The finished run of this configuration, tested under every condition: the one on disk, or a new one."""
    features, out = task.features, task.out
    if is_finished(config, features, out):
        run = task.finished(config)
    else:
        run = alone(fresh_run(config, task))
        task.progress.finish(run)
    untested = task.untested(config)
    if untested:
        model = run.model(task.device)
        folded = features.folded(config.folds, config.fold, config.fold_by)
        clips = clips_of(folded, "test", config)
        for condition in untested:
            tested = alone(test(model, config, folded, clips, condition))
            run.add_condition(condition, features.variant_digests, *tested)
    return run


def fresh_run(config: RunConfig, task: Task) -> Training[Run]:
    """Trains, chooses on dev, tests, and writes the run. Passes, updates and answers are left to whoever drives it."""
    name = run_name(config, task.features)
    starts, taught = (
        {m: obtain(c, replace(task, conditions=())) for m, c in before(config).items()}
        for before in (starting_points, teachers)
    )
    began = time.monotonic()
    task.progress.start(config)
    share = len(takes(config.model))
    unfinished = Unfinished(task.out / FOLDER / name)
    if not task.resume:
        unfinished.remove()
    features = task.features.folded(config.folds, config.fold, config.fold_by)
    trained = yield from training(
        config,
        features,
        branches=single_models(starts, task.device),
        teachers=single_models(taught, task.device),
        builder=task.builders.get(config.model),
        device=task.device,
        on_epoch=lambda epoch: task.progress.advance(config, epoch, share),
        unfinished=unfinished,
    )
    check_finite(trained, config)
    results, predictions = yield from judge(trained, config, features)
    origin = origin_of(starts, taught, began, task.executor)
    run = save_run(task.out, config, features, trained, results, predictions, task.provenance | origin)
    unfinished.remove()
    return replace(run, builder=task.builders.get(config.model))


def check_finite(trained: Trained, config: RunConfig) -> None:
    """Raises Diverged where the answers on dev are no numbers, though the loss in training was one: a run can't be kept so."""
    for epoch in trained.history:
        if not math.isfinite(epoch["dev_loss"]):
            raise Diverged(
                f"{config.model}, seed {config.seed}: the loss on dev is no number in epoch {epoch['epoch']}: try a lower --lr, "
                "or see what the model answers in evaluation mode"
            )


def judge(trained: Trained, config: RunConfig, features: Features) -> Training[tuple[dict[str, Any], Predictions]]:
    """Scores of a run, and its answers about the test clips: the only look at them, after the epoch was chosen on dev."""
    results: dict[str, Any] = {"best": trained.best}
    for split in ("dev", "test"):
        clips = clips_of(features, split, config)
        figures, predictions = yield from test(trained.model, config, features, clips, CLEAN)
        worth = yield from contribution(trained.model, features, clips, takes(config.model), answers=predictions)
        results[split] = figures | worth
    return results, predictions


def origin_of(starts: Mapping[str, Run], taught: Mapping[str, Run], began_s: float, executor: str) -> dict[str, Any]:
    """What a run came from, and how, for its config.json."""
    origin: dict[str, Any] = {"branches": {m: run.name for m, run in starts.items()}}
    if taught:
        origin["teachers"] = {m: run.name for m, run in taught.items()}
    return origin | {"seconds": round(time.monotonic() - began_s, 2), "executor": executor}


def test(
    model: FusionModel, config: RunConfig, features: Features, clips: np.ndarray, condition: Condition
) -> Training[tuple[dict[str, Any], Predictions]]:
    """Scores and answers of a trained model under a condition; the clips that it leaves without any modality are not asked."""
    seen = features.under(condition.variants)
    modalities = takes(config.model)
    shown = [m for m in modalities if m not in condition.hidden]
    clips = clips[np.any([seen.stream(m).present[clips] for m in shown], axis=0)]
    if not len(clips):
        raise UsageError(f"{config.model}: under {condition} no test clip has {' or '.join(shown)} left: leave it out")
    question = Ask(model, seen, clips, modalities, hidden=condition.hidden)
    predictions: Predictions = yield question
    unmixed = None
    if isinstance(model, BalanceMLA) and config.brff:
        unmixed = yield replace(question, options={"brff": False})
    return scores(predictions, unmixed), predictions


def single_models(runs: Mapping[str, Run], device: torch.device | str) -> dict[str, SingleModality]:
    """The trained models of some runs of one modality each."""
    models: dict[str, SingleModality] = {}
    for modality, run in runs.items():
        model = run.model(device)
        assert isinstance(model, SingleModality)
        models[modality] = model
    return models


def is_finished(config: RunConfig, features: Features, out: Path) -> bool:
    return (out / run_name(config, features) / "config.json").is_file()
