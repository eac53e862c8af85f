"""The epoch loop, in sight as two flat functions: of a model of one task, or of several tasks in one model.

Each batch is of one task and has that task's loss alone; its balance method is the task's own too, with a state of its own. A
parameter without a gradient is left as it is, so that a step moves what is shared and what is its task's, and nothing of another's.

An epoch is every task's training clips once, each task's batches spread evenly over it: in strict turns where tasks are of a size,
and a task of ten times the clips has ten times the steps. (Equal turns would repeat the clips of the smaller task that often, and
make it memorise them while the larger one has still to learn.) The epoch is chosen by accuracy on dev, ties by lower loss; of
several tasks by their means: every task counts the same, however many clips it has.

The loop is a generator: passes, updates and answers are left to whoever drives it, so that it serves a training alone and one of many in
lockstep; see `lockstep.py`.

*Source:* ours: AdamW, a learning rate that is constant within a phase after its warm-up, and clipping of the gradient's norm.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .balance.base import Step
from .config import RunConfig
from .contribution import quick_contribution
from .data import Batch, Draw
from .decision_fit import fit_decision
from .diagnostics import Running, dev_figures, held_figures
from .learner import Learner
from .lockstep import AllSteps, Backward, Forward, Groups, Optimise, Optimiser, Training, Update
from .mixup import mixup
from .models.balancemla import BalanceMLA
from .models.base import FusionModel
from .models.table import takes
from .noise import noise
from .predictions import Ask
from .standing import Epoch, Standing, diverged, go_on, keep, rank
from .unfinished import Unfinished, below, load_optimiser

MEANS = ("train_loss", "dev_accuracy", "dev_loss")  # of several tasks, in the figures of an epoch


def run_epochs(
    learners: Sequence[Learner],
    device: torch.device,
    on_epoch: Callable[[Epoch], None],
    unfinished: Unfinished | None,
) -> Training[Standing]:
    """Trains the tasks' models, as it is driven (`lockstep.alone`, or a stack).

    They are left with the weights of the best epoch, ready to answer.

    Args:
        learners: of the same settings but for streams and noise; their models may share parts.
        on_epoch: called with each epoch's figures, see `joined`.
        unfinished: where to keep the state of the training, and to go on from where there is one; None: nowhere.

    Returns:
        With the figures of every epoch. Random numbers come from torch's global generators, which the caller seeds.

    Raises:
        Diverged: a task's loss became NaN or infinite; the best weights before it are in `unfinished`.
    """
    config = learners[0].config
    model = together([learner.model for learner in learners])
    balances = together([learner.balance for learner in learners])
    order = torch.Generator().manual_seed(config.seed)
    now = Standing()
    resumed = go_on(unfinished, model, balances, order, device, now)

    if config.total_epochs == 0:  # no more than the trained branches that it starts from
        start = {"phase": "start", "epoch": 0, "lr": 0.0}
        judged: list[Epoch] = []
        for learner in learners:
            judged.append({**start, **(yield from judge(learner))})
        now.best = joined(learners, judged)
        now.history, now.weights = [now.best], model.state_dict()
    for phase, (name, epochs, lr) in enumerate(phases(config)):
        if phase < now.phase:
            continue
        groups = parameter_groups([learner.model for learner in learners])
        groups |= {"balance": [p for p in balances.parameters() if p.requires_grad]}
        groups = {owner: parameters for owner, parameters in groups.items() if parameters}
        rates = {owner: lr * scale for owner, scale in rate_scales(config, groups).items()}
        optimiser = yield Optimise(groups, rates, config.weight_decay)
        if resumed:
            load_optimiser(optimiser, below("optimiser", resumed))
            resumed = {}
        for epoch_number in range(now.epoch, epochs):
            if 0 < config.patience <= now.stale:  # asked first: a state may have been kept just before the end
                break
            model.train()
            draws = [shuffled(learner, order) for learner in learners]
            paces = warmed(rates, config.warmup_steps, epoch_number, sum(map(len, draws)))
            running = None
            if len(learners) == 1:
                running = yield AllSteps(learners[0], draws[0], optimiser, groups, paces, len(now.history))
            if running is None:
                running = yield from step_by_step(learners, draws, optimiser, groups, paces, device)
            head: Epoch = {"phase": name, "epoch": len(now.history) + 1, "lr": lr}
            own: list[Epoch] = [{**head, **sums.figures()} for sums in running]
            if not all(math.isfinite(figures["train_loss"]) for figures in own):
                raise diverged(config, [learner.name for learner in learners], head, unfinished, now)
            for learner, figures in zip(learners, own, strict=True):
                figures |= (yield from judge(learner)) | (yield from judge_held(learner)) | learner.balance.figures()
                learner.balance.end_epoch(figures)
            epoch = joined(learners, own)
            now.history.append(epoch)
            now.stale += 1
            if rank(epoch) > rank(now.best):
                now.best, now.stale = epoch, 0
                now.weights = {key: value.clone() for key, value in model.state_dict().items()}
            now.epoch = epoch_number + 1
            if unfinished is not None and unfinished.due():
                keep(unfinished, config, model, balances, optimiser, order, device, now)
            on_epoch(epoch)
        now.phase, now.epoch, now.stale = phase + 1, 0, 0

    model.load_state_dict(now.weights)
    model.eval()
    for learner in learners:
        if isinstance(learner.model, BalanceMLA):
            augment = learner.config.gate_augment or learner.config.augment
            fit_decision(learner.model, learner.features, learner.clips.dev, augment)
    return now


def step_by_step(
    learners: Sequence[Learner],
    draws: Sequence[Sequence[Draw]],
    optimiser: Optimiser,
    groups: Groups,
    rates: Mapping[str, Sequence[float]],
    device: torch.device,
) -> Training[list[Running]]:
    """The steps of an epoch.

    Args:
        rates: by group, the learning rate of each step.

    Returns:
        The sums of each task.
    """
    config = learners[0].config
    modalities = takes(config.model)
    running = [Running(tuple(groups), device) for _ in learners]
    batches = [
        learner.features.batches(own, modalities, learner.config.augment)
        for learner, own in zip(learners, draws, strict=True)
    ]
    turns = spread([len(own) for own in draws])
    for number, (k, batch) in enumerate(by_turns(batches, turns)):
        learner, balance = learners[k], learners[k].balance
        audio, visual = balance.inputs(batch.audio, batch.visual)
        truth = learner.clips.labels[batch.clips.to(device)]
        mixed = mixup(audio, visual, truth, config.mixup) if config.mixup > 0 else None
        if mixed is not None:
            audio, visual = mixed.audio, mixed.visual
        output = yield Forward(learner.model, audio, visual, config.precision == "bf16")
        weights = learner.clips.class_weights
        step = Step(learner.model, audio, visual, truth, output, weights, config.label_smoothing, mixed)
        optimiser.zero_grad()  # to None: what this task has no part in is not even decayed
        loss = balance.backward(step)
        yield Backward()
        balance.gradients(step)
        scales = balance.scales(step)
        now_rates = {owner: torch.as_tensor(scales.get(owner, 1.0)) * rates[owner][number] for owner in groups}
        norms = yield Update(optimiser, groups, config.clip_norm, now_rates)
        balance.updated(step)
        running[k].add(step, loss, norms, scales)
    return running


def warmed(rates: Mapping[str, float], warmup_steps: int, epoch: int, steps: int) -> dict[str, list[float]]:
    """The learning rates of the steps of an epoch of a phase, which begin small and grow evenly for so many steps.

    Args:
        epoch: how many of as many steps there were before.
    """
    shares = [min(1.0, (epoch * steps + n + 1) / warmup_steps) if warmup_steps else 1.0 for n in range(steps)]
    return {owner: [rate * share for share in shares] for owner, rate in rates.items()}


def together(modules: Sequence[nn.Module]) -> nn.Module:
    """All in one; one alone is itself, so that its weights keep their names on disk."""
    return modules[0] if len(modules) == 1 else nn.ModuleList(modules)


def phases(config: RunConfig) -> tuple[tuple[str, int, float], ...]:
    """Name, epochs and learning rate of each."""
    return ("train", config.epochs, config.lr), ("finetune", config.finetune_epochs, config.finetune_lr)


def parameter_groups(models: Sequence[FusionModel]) -> dict[str, list[nn.Parameter]]:
    """Those of all models by owner (see `FusionModel.parameter_groups`), each parameter once."""
    groups: dict[str, dict[nn.Parameter, None]] = {}
    for model in models:
        for owner, parameters in model.parameter_groups().items():
            groups.setdefault(owner, {}).update(dict.fromkeys(parameters))
    return {owner: list(parameters) for owner, parameters in groups.items()}


def rate_scales(config: RunConfig, owners: Mapping[str, Any]) -> dict[str, float]:
    """By parameter group: its factor on the learning rate."""
    scales = {"audio": config.lr_scale_audio, "visual": config.lr_scale_visual}
    return {owner: scales.get(owner, 1.0) for owner in owners}


def shuffled(learner: Learner, order: torch.Generator) -> list[Draw]:
    """A task's batches of an epoch: every training clip once, with noise that is drawn anew, as often as its balance method asks."""
    clips, config = learner.clips.train, learner.config
    index = torch.from_numpy(clips)[torch.randperm(len(clips), generator=order)]
    versions = noise(len(index), learner.features, config.augment, order, config.noise_share)
    parts = torch.arange(len(index)).split(config.batch_size)
    draws = [Draw(index[part], {m: v[part] for m, v in versions.items()}) for part in parts]
    return [draw for draw in draws for _ in range(learner.balance.turns)]


def spread(counts: Sequence[int]) -> list[int]:
    """Which task each batch of an epoch is of.

    Args:
        counts: batches of each task; batch i of n is in the middle of the i-th of n equal parts of the epoch.
    """
    places = [((2 * i + 1) / (2 * n), task) for task, n in enumerate(counts) for i in range(n)]
    return [task for _, task in sorted(places)]


def by_turns(batches: Sequence[Iterable[Batch]], turns: Sequence[int]) -> Iterator[tuple[int, Batch]]:
    """Each task's batches in their own order, in turns."""
    sources = [iter(source) for source in batches]
    for task in turns:
        yield task, next(sources[task])


def judge(learner: Learner) -> Training[Epoch]:
    """A task's figures on dev."""
    config, clips = learner.config, learner.clips
    model, features, modalities = learner.model, learner.features, takes(config.model)
    answers = yield Ask(model, features, clips.judged, modalities, clips.versions, config.augment)
    worth = yield from quick_contribution(model, features, clips.dev, modalities, answers, len(clips.train))
    return dev_figures(answers) | worth


def judge_held(learner: Learner) -> Training[Epoch]:
    """A task's figures on the clips that are set apart; empty where none are."""
    config, clips = learner.config, learner.clips
    model, features, modalities = learner.model, learner.features, takes(config.model)
    if not len(clips.held):
        return {}
    answers = yield Ask(model, features, clips.held_judged, modalities, clips.held_versions, config.augment)
    return held_figures(answers)


def joined(learners: Sequence[Learner], own: Sequence[Epoch]) -> Epoch:
    """The figures of an epoch.

    Those of the one task; or the means of several, by which the epoch is chosen, with each task's own in `tasks`, where
    `tasks_dev_accuracy` is that mean.
    """
    if len(own) == 1:
        return own[0]
    means = {name: statistics.fmean(figures[name] for figures in own) for name in MEANS}
    for figures in own:
        figures["tasks_dev_accuracy"] = means["dev_accuracy"]
    head = {name: own[0][name] for name in ("phase", "epoch", "lr")}
    return {**head, **means, "tasks": {learner.name: each for learner, each in zip(learners, own, strict=True)}}
