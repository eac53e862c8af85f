"""Training one model on several tasks: batches by turns, one optimiser, one choice of the epoch.

The loop is that of `fuse/training.py` with a task at every step: with one task, both give the same weights, bit for bit (a test keeps
them together). Each batch is of one task and has that task's loss alone; its balance method is the task's own too, with a state of
its own. A parameter without a gradient is left as it is, so that a step moves what is shared and what is its task's, and nothing
of another's.

An epoch is every task's training clips once, each task's batches spread evenly over it: in strict turns where tasks are of a size,
and a task of ten times the clips has ten times the steps. (Equal turns would repeat the clips of the smaller task that often, and
make it memorise them while the larger one has still to learn.) The epoch is chosen by the mean of the tasks' accuracies on dev, ties
by the lower mean loss: every task counts the same, however many clips it has.

The same seed, tasks, features, thread count and libraries give the same weights, bit for bit, on a CPU; also after a kill.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from ..balance.base import Balance, Step
from ..balance.table import build as build_balance
from ..contribution import quick_contribution
from ..data import Batch
from ..decision_fit import fit_decision
from ..diagnostics import Running, dev_figures, gradient_norm, held_figures
from ..mixup import mixup
from ..models.balancemla import BalanceMLA
from ..models.base import FusionModel
from ..models.single import SingleModality
from ..models.table import takes
from ..noise import with_noisy_copies
from ..predictions import predict
from ..training import (
    Diverged,
    Epoch,
    Standing,
    Trained,
    clips_of,
    diverged,
    fresh_model,
    go_on,
    inverse_frequency,
    keep,
    phases,
    rank,
    rate_scales,
    seeded,
    set_apart,
    shuffled,
)
from ..unfinished import Unfinished, below, load_optimiser
from .part import Part, check_parts
from .share import parameter_groups, share


@dataclass(frozen=True)
class Clips:
    """What a task trains on and is judged by.

    Attributes:
        train, dev, held: indices of clips; held: those that `config.holdout` sets apart.
        judged, versions: the dev clips with their noisy copies; held_judged, held_versions: likewise.
        labels, class_weights: on the device.
    """

    train: np.ndarray
    dev: np.ndarray
    held: np.ndarray
    judged: np.ndarray
    versions: dict[str, Tensor]
    held_judged: np.ndarray
    held_versions: dict[str, Tensor]
    labels: Tensor
    class_weights: Tensor | None


def train_together(
    parts: Sequence[Part],
    *,
    branches: Sequence[Mapping[str, SingleModality]] = (),
    teachers: Sequence[Mapping[str, SingleModality]] = (),
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    unfinished: Unfinished | None = None,
) -> list[Trained]:
    """Trains the tasks' models, which share all that `share.py` says, and keeps the weights of the epoch that is best for all.

    Args:
        branches, teachers: one entry a task, see `train.train`; branches that were trained together.
        on_epoch: called with each epoch: `dev_accuracy` and `dev_loss` are means over tasks, `tasks` has each task's own figures.
        unfinished: where to keep the state of the training, and to go on from where there is one; None: nowhere.

    Returns:
        One entry a task, as `train.train` gives it; in every epoch's figures, `tasks_dev_accuracy` is what it was chosen by.

    Raises:
        Diverged: a task's loss became NaN or infinite; the best weights before it are in `unfinished`.
        UsageError: the tasks' settings differ, a split is empty, or clips that train one task choose or test another.
    """
    check_parts(parts)
    place = torch.device(device)
    config = parts[0].config
    modalities = takes(config.model)
    clips = [clips_of_part(part, place) for part in parts]
    order = torch.Generator().manual_seed(config.seed)
    now = Standing()

    with seeded(config.seed, place):
        models = [fresh_model(p.config, p.features, c.train) for p, c in zip(parts, clips, strict=True)]
        share(models, [{m: part.features.stream(m).digest for m in modalities} for part in parts])
        whole = nn.ModuleList(models).to(place)
        for model, mine in zip(models, branches, strict=False):
            model.start_from(mine)
        balances: list[Balance] = []
        for number, (part, model) in enumerate(zip(parts, models, strict=True)):
            taught = teachers[number] if teachers else {}
            balances.append(build_balance(part.config, model, len(part.features.classes), taught).to(place))
        all_balances = nn.ModuleList(balances)
        resumed = go_on(unfinished, whole, all_balances, order, place, now)

        for phase, (name, epochs, lr) in enumerate(phases(config)):
            if phase < now.phase:
                continue
            groups = parameter_groups(models)
            groups |= {"balance": list(dict.fromkeys(p for p in all_balances.parameters() if p.requires_grad))}
            groups = {owner: parameters for owner, parameters in groups.items() if parameters}
            rates = {owner: lr * scale for owner, scale in rate_scales(config, groups).items()}
            parameters = [p for group in groups.values() for p in group]
            optimiser = torch.optim.AdamW(
                [{"params": group, "lr": torch.tensor(rates[owner], device=place)} for owner, group in groups.items()],
                weight_decay=config.weight_decay,
                fused=True,
            )
            if resumed:
                load_optimiser(optimiser, below("optimiser", resumed))
                resumed = {}
            for epoch_number in range(now.epoch, epochs):
                if 0 < config.patience <= now.stale:
                    break
                whole.train()
                running = [Running(tuple(groups), place) for _ in parts]
                draws = [
                    [draw for draw in shuffled(c.train, p.config, p.features, order) for _ in range(balance.turns)]
                    for p, c, balance in zip(parts, clips, balances, strict=True)
                ]
                batches = [
                    p.features.batches(d, modalities, p.config.augment) for p, d in zip(parts, draws, strict=True)
                ]
                turns = spread([len(d) for d in draws])
                for step_number, (k, batch) in enumerate(by_turns(batches, turns), epoch_number * len(turns)):
                    model, balance = models[k], balances[k]
                    audio, visual = balance.inputs(batch.audio, batch.visual)
                    truth = clips[k].labels[batch.clips.to(place)]
                    mixed = mixup(audio, visual, truth, config.mixup) if config.mixup > 0 else None
                    if mixed is not None:
                        audio, visual = mixed.audio, mixed.visual
                    with torch.autocast(place.type, torch.bfloat16, enabled=config.precision == "bf16"):
                        output = model(audio, visual)
                    weights = clips[k].class_weights
                    step = Step(model, audio, visual, truth, output, weights, config.label_smoothing, mixed)
                    optimiser.zero_grad()  # to None: what this task has no part in is not even decayed
                    loss = balance.backward(step)
                    norms = torch.stack([gradient_norm(group) for group in groups.values()])
                    clip_grads_with_norm_(parameters, config.clip_norm, norms.square().sum().sqrt())
                    warm = min(1.0, (step_number + 1) / config.warmup_steps) if config.warmup_steps else 1.0
                    scales = balance.scales(step)
                    for group, owner in zip(optimiser.param_groups, groups, strict=True):
                        group["lr"].copy_(torch.as_tensor(scales.get(owner, 1.0)) * (rates[owner] * warm))
                    optimiser.step()
                    balance.updated(step)
                    running[k].add(step, loss, norms, scales)
                head = {"phase": name, "epoch": len(now.history) + 1, "lr": lr}
                own: dict[str, Epoch] = {p.name: {**head, **r.figures()} for p, r in zip(parts, running, strict=True)}
                if not all(math.isfinite(figures["train_loss"]) for figures in own.values()):
                    line = diverged(config, head, lr, unfinished, now)  # what one task spoils is soon spoilt for all
                    raise Diverged(f"{' + '.join(own)}: {line}")
                for part, c, model, balance in zip(parts, clips, models, balances, strict=True):
                    own[part.name] |= {**judge(part, c, model), **balance.figures()}
                    balance.end_epoch(own[part.name])
                epoch = {**head, **mean_of(list(own.values())), "tasks": own}
                for figures in own.values():
                    figures["tasks_dev_accuracy"] = epoch["dev_accuracy"]
                now.history.append(epoch)
                now.stale += 1
                if rank(epoch) > rank(now.best):
                    now.best, now.stale = epoch, 0
                    now.weights = {key: value.clone() for key, value in whole.state_dict().items()}
                now.epoch = epoch_number + 1
                if unfinished is not None and unfinished.due():
                    keep(unfinished, config, whole, all_balances, optimiser, order, place, now)
                on_epoch(epoch)
            now.phase, now.epoch, now.stale = phase + 1, 0, 0

    whole.load_state_dict(now.weights)
    whole.eval()
    for part, c, model in zip(parts, clips, models, strict=True):
        if isinstance(model, BalanceMLA):
            fit_decision(model, part.features, c.dev, part.config.gate_augment or part.config.augment)
    return [
        Trained(model, [epoch["tasks"][part.name] for epoch in now.history], now.best["tasks"][part.name])
        for part, model in zip(parts, models, strict=True)
    ]


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


def judge(part: Part, clips: Clips, model: FusionModel) -> Epoch:
    """A task's figures on dev, and on the clips that are set apart."""
    modalities, augment = takes(part.config.model), part.config.augment
    answers = predict(model, part.features, clips.judged, modalities, versions=clips.versions, augment=augment)
    figures = dev_figures(answers) | quick_contribution(
        model, part.features, clips.dev, modalities, answers, len(clips.train)
    )
    if len(clips.held):
        judged, versions = clips.held_judged, clips.held_versions
        figures |= held_figures(predict(model, part.features, judged, modalities, versions=versions, augment=augment))
    return figures


def mean_of(epochs: Sequence[Epoch]) -> dict[str, float]:
    """What an epoch is chosen by: means over tasks."""
    return {name: statistics.fmean(epoch[name] for epoch in epochs) for name in ("dev_accuracy", "dev_loss")}


def clips_of_part(part: Part, place: torch.device) -> Clips:
    config, features = part.config, part.features
    train, dev = (clips_of(features, split, config) for split in ("train", "dev"))
    train, held = set_apart(train, features, config)
    weights = inverse_frequency(features, train).to(place) if config.class_weights else None
    return Clips(
        train,
        dev,
        held,
        *with_noisy_copies(dev, features, config.augment),
        *with_noisy_copies(held, features, config.augment),
        features.labels.to(place),
        weights,
    )
