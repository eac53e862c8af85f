"""Training one model: a flat function with its epoch loop in sight.

*Source:* Sec. 4.1.2 for the phases, learning rates and batch sizes (see `recipes.py`). Ours: AdamW, a learning rate that is
constant within a phase after its warm-up, clipping of the gradient's norm, and the choice of the epoch by accuracy on the dev
split, ties by lower loss; where training clips are given noise, dev clips are judged once clean and once with it. The test split
is not looked at here.

The same seed, features, thread count and libraries give the same weights, bit for bit, on a CPU; also after a kill.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from ..store.errors import BmlaError, UsageError
from .balance.base import Step
from .balance.table import build as build_balance
from .config import RunConfig
from .contribution import quick_contribution
from .data import Draw, Features
from .decision_fit import fit_decision
from .diagnostics import Running, dev_figures, gradient_norm, held_figures
from .mixup import mixup
from .models.balancemla import BalanceMLA
from .models.base import FusionModel
from .models.own import Builder
from .models.single import SingleModality
from .models.table import build, check_inputs, takes
from .noise import noise, with_noisy_copies
from .predictions import predict
from .splits import carve
from .unfinished import (
    Unfinished,
    below,
    load_optimiser,
    optimiser_tensors,
    prefixed,
    random_states,
    set_random_states,
)

Epoch = dict[str, Any]


class Diverged(BmlaError, ArithmeticError):
    """The loss is no number any more."""


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        model: with the weights of the best epoch.
        history: one entry an epoch: phase, epoch, lr, train_loss, dev_…, alpha, grad_norm_….
        best: the entry of the chosen epoch.
    """

    model: FusionModel
    history: list[Epoch]
    best: Epoch


@dataclass
class Standing:
    """How far a training is.

    Attributes:
        phase, epoch: the phase, and how many of its epochs are done.
        stale: epochs of this phase since a better one.
        best: the entry of the best epoch so far, and its weights.
    """

    phase: int = 0
    epoch: int = 0
    stale: int = 0
    history: list[Epoch] = field(default_factory=list)
    best: Epoch = field(default_factory=lambda: {"dev_accuracy": -1.0, "dev_loss": math.inf})
    weights: dict[str, Tensor] = field(default_factory=dict)


def train(
    config: RunConfig,
    features: Features,
    *,
    branches: Mapping[str, SingleModality] | None = None,
    teachers: Mapping[str, SingleModality] | None = None,
    builder: Builder | None = None,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    unfinished: Unfinished | None = None,
) -> Trained:
    """Trains one model and keeps the weights of its best epoch on dev.

    Args:
        features: with the splits to use (`Features.folded` has been called).
        branches: trained single-modality models that a run starts from; None: fresh weights.
        teachers: trained single-modality models that a balance method learns from.
        builder: makes the model, where it is the user's own; see `models/own.py`.
        device: where the features are.
        on_epoch: called with each entry of the history.
        unfinished: where to keep the state of the training, and to go on from where there is one; None: nowhere.

    Raises:
        Diverged: the loss became NaN or infinite; the best weights before it are in `unfinished`.
        UsageError: a split has no clip with the model's modality, the model does not take what a step of a stream is, or it is not
            trained itself and no branches were given.
    """
    place = torch.device(device)
    modalities = takes(config.model)
    train_clips, dev_clips = (clips_of(features, split, config) for split in ("train", "dev"))
    train_clips, held_clips = set_apart(train_clips, features, config)
    class_weights = inverse_frequency(features, train_clips).to(place) if config.class_weights else None
    labels = features.labels.to(place)
    order = torch.Generator().manual_seed(config.seed)
    judged, versions = with_noisy_copies(dev_clips, features, config.augment)
    held, held_versions = with_noisy_copies(held_clips, features, config.augment)
    now = Standing()

    with seeded(config.seed, place):
        model = fresh_model(config, features, train_clips, builder).to(place)
        if branches:
            model.start_from(branches)
        balance = build_balance(config, model, len(features.classes), teachers or {}).to(place)
        resumed = go_on(unfinished, model, balance, order, place, now)

        def judge() -> Epoch:
            answers = predict(model, features, judged, modalities, versions=versions, augment=config.augment)
            return dev_figures(answers) | quick_contribution(
                model, features, dev_clips, modalities, answers, len(train_clips)
            )

        if config.total_epochs == 0:  # no more than the trained branches that it starts from
            if not branches:
                raise UsageError(
                    f"{config.model} is not trained itself: it needs the trained branches that it starts from"
                )
            now.best = {"phase": "start", "epoch": 0, "lr": 0.0, **judge()}
            now.history, now.weights = [now.best], model.state_dict()
        for phase, (name, epochs, lr) in enumerate(phases(config)):
            if phase < now.phase:
                continue
            groups = model.parameter_groups() | {"balance": [p for p in balance.parameters() if p.requires_grad]}
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
                if 0 < config.patience <= now.stale:  # asked first: a state may have been kept just before the end
                    break
                model.train()
                running = Running(tuple(groups), place)
                draws = [draw for draw in shuffled(train_clips, config, features, order) for _ in range(balance.turns)]
                for step_number, (clips, audio, visual) in enumerate(
                    features.batches(draws, modalities, config.augment), epoch_number * len(draws)
                ):
                    audio, visual = balance.inputs(audio, visual)
                    truth = labels[clips.to(place)]
                    mixed = mixup(audio, visual, truth, config.mixup) if config.mixup > 0 else None
                    if mixed is not None:
                        audio, visual = mixed.audio, mixed.visual
                    with torch.autocast(place.type, torch.bfloat16, enabled=config.precision == "bf16"):
                        output = model(audio, visual)
                    step = Step(model, audio, visual, truth, output, class_weights, config.label_smoothing, mixed)
                    optimiser.zero_grad()
                    loss = balance.backward(step)
                    norms = torch.stack([gradient_norm(group) for group in groups.values()])
                    clip_grads_with_norm_(parameters, config.clip_norm, norms.square().sum().sqrt())
                    warm = min(1.0, (step_number + 1) / config.warmup_steps) if config.warmup_steps else 1.0
                    scales = balance.scales(step)
                    for group, owner in zip(optimiser.param_groups, groups, strict=True):
                        group["lr"].copy_(torch.as_tensor(scales.get(owner, 1.0)) * (rates[owner] * warm))
                    optimiser.step()
                    balance.updated(step)
                    running.add(step, loss, norms, scales)
                epoch: Epoch = {"phase": name, "epoch": len(now.history) + 1, "lr": lr, **running.figures()}
                if not math.isfinite(epoch["train_loss"]):
                    raise Diverged(diverged(config, epoch, lr, unfinished, now))
                epoch |= judge()
                if len(held):
                    epoch |= held_figures(
                        predict(model, features, held, modalities, versions=held_versions, augment=config.augment)
                    )
                epoch |= balance.figures()
                balance.end_epoch(epoch)
                now.history.append(epoch)
                now.stale += 1
                if rank(epoch) > rank(now.best):
                    now.best, now.stale = epoch, 0
                    now.weights = {key: value.clone() for key, value in model.state_dict().items()}
                now.epoch = epoch_number + 1
                if unfinished is not None and unfinished.due():
                    keep(unfinished, config, model, balance, optimiser, order, place, now)
                on_epoch(epoch)
            now.phase, now.epoch, now.stale = phase + 1, 0, 0

    model.load_state_dict(now.weights)
    if isinstance(model, BalanceMLA):
        fit_decision(model.eval(), features, dev_clips, config.gate_augment or config.augment)
    return Trained(model.eval(), now.history, now.best)


def phases(config: RunConfig) -> tuple[tuple[str, int, float], ...]:
    """Name, epochs and learning rate of each."""
    return ("train", config.epochs, config.lr), ("finetune", config.finetune_epochs, config.finetune_lr)


def rate_scales(config: RunConfig, owners: Mapping[str, Any]) -> dict[str, float]:
    """By parameter group: its factor on the learning rate."""
    scales = {"audio": config.lr_scale_audio, "visual": config.lr_scale_visual}
    return {owner: scales.get(owner, 1.0) for owner in owners}


def shuffled(train_clips: np.ndarray, config: RunConfig, features: Features, order: torch.Generator) -> list[Draw]:
    """An epoch's batches: every training clip once, with noise that is drawn anew."""
    index = torch.from_numpy(train_clips)[torch.randperm(len(train_clips), generator=order)]
    versions = noise(len(index), features, config.augment, order)
    parts = torch.arange(len(index)).split(config.batch_size)
    return [Draw(index[part], {m: v[part] for m, v in versions.items()}) for part in parts]


def rank(epoch: Epoch) -> tuple[float, float]:
    """The better epoch has the greater rank."""
    return epoch["dev_accuracy"], -epoch["dev_loss"]


def keep(
    unfinished: Unfinished,
    config: RunConfig,
    model: nn.Module,
    balance: nn.Module,
    optimiser: torch.optim.Optimizer,
    order: torch.Generator,
    device: torch.device,
    now: Standing,
) -> None:
    """Writes all that the next epoch depends on."""
    tensors = {
        **prefixed("model", model.state_dict()),
        **prefixed("balance", balance.state_dict()),
        **prefixed("optimiser", optimiser_tensors(optimiser)),
        **prefixed("random", random_states(order, device)),
        **prefixed("best", now.weights),
    }
    unfinished.write(tensors, {"torch": torch.__version__, "config": config.to_dict(), **standing_document(now)})


def standing_document(now: Standing) -> dict[str, Any]:
    return {"phase": now.phase, "epoch": now.epoch, "stale": now.stale, "history": now.history, "best": now.best}


def go_on(
    unfinished: Unfinished | None,
    model: nn.Module,
    balance: nn.Module,
    order: torch.Generator,
    device: torch.device,
    now: Standing,
) -> dict[str, Tensor]:
    """Puts a state that was kept back into everything but the optimiser; returns its tensors, empty where there is none.

    A state of another torch is not used: its weights would not be those of an uninterrupted run.
    """
    state = unfinished.read() if unfinished is not None else None
    if state is None or state[1].get("torch") != torch.__version__ or not state[1]["history"]:
        return {}
    tensors, document = state
    model.load_state_dict(below("model", tensors))
    balance.load_state_dict(below("balance", tensors))
    set_random_states(below("random", tensors), order, device)
    now.phase, now.epoch, now.stale = document["phase"], document["epoch"], document["stale"]
    now.history, now.best = document["history"], document["best"]
    now.weights = {name: value.to(device) for name, value in below("best", tensors).items()}
    return tensors


def diverged(config: RunConfig, epoch: Epoch, lr: float, unfinished: Unfinished | None, now: Standing) -> str:
    """Keeps the best weights so far, and says what happened."""
    line = (
        f"{config.model}, seed {config.seed}: the loss is no number any more in epoch {epoch['epoch']} "
        f"(learning rate {lr:g}, batches of {config.batch_size}): try a lower --lr"
    )
    if unfinished is None or not now.weights:
        return line
    unfinished.write(prefixed("best", now.weights), {"diverged": epoch["epoch"], **standing_document(now)})
    return f"{line}; the weights of epoch {now.best['epoch']} are kept in {unfinished.path}"


def clips_of(features: Features, split: str, config: RunConfig) -> np.ndarray:
    """The clips of a split that the model can be trained on or tested with. Raises UsageError where it can't."""
    modalities = takes(config.model)
    clips = features.clips(split, modalities)
    check_inputs(config.model, {m: features.stream(m).input for m in modalities})
    if len(clips) == 0:
        raise UsageError(f"{config.model}: no clip of the {split} split has {' or '.join(modalities)} features")
    return clips


def set_apart(train_clips: np.ndarray, features: Features, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """The clips to train on, and those that `config.holdout` keeps from it. Whole groups; the same in all runs of a sweep."""
    if config.holdout == 0:
        return train_clips, train_clips[:0]
    inside = np.zeros(len(features), bool)
    inside[train_clips] = True
    held = carve(features.groups, inside, features.dataset, config.holdout)
    return np.setdiff1d(train_clips, held), held


def fresh_model(
    config: RunConfig, features: Features, train_clips: np.ndarray, builder: Builder | None = None
) -> FusionModel:
    """A model with weights from torch's global generator and statistics of the training clips."""
    modalities = takes(config.model)
    model = build(config, {m: features.stream(m).input for m in modalities}, len(features.classes), builder)
    for modality in modalities:
        model.set_statistics(modality, *features.stream(modality).statistics(train_clips))
    return model


def inverse_frequency(features: Features, train_clips: np.ndarray) -> Tensor:
    """(c,) weights n / (c n_c): a batch drawn at random has a mean weight of one. Zero for a class that never occurs."""
    counts = np.bincount(features.labels.numpy()[train_clips], minlength=len(features.classes))
    weights = np.divide(len(train_clips), len(counts) * counts, out=np.zeros(len(counts)), where=counts > 0)
    return torch.from_numpy(weights).float()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators begin at the seed inside, and are as they were outside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
