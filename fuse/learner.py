"""What one task brings to a training: its model, the clips that it learns from, and those that it is judged by."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..store.errors import UsageError
from .balance.base import Balance
from .balance.table import build as build_balance
from .config import RunConfig
from .data import Features
from .models.base import FusionModel
from .models.own import Builder
from .models.single import SingleModality
from .models.table import build, check_inputs, takes
from .noise import with_noisy_copies
from .splits import carve


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


@dataclass(frozen=True)
class Learner:
    """One task of a training.

    Attributes:
        name: for figures and messages, where there are several.
        features: with the splits to use (`Features.folded` has been called).
    """

    name: str
    config: RunConfig
    features: Features
    clips: Clips
    model: FusionModel
    balance: Balance


def clips_to_learn(
    config: RunConfig, features: Features, train: np.ndarray, held: np.ndarray, device: torch.device
) -> Clips:
    """Args: train, held: see `set_apart`. Raises UsageError where there are no dev clips."""
    dev = clips_of(features, "dev", config)
    return Clips(
        train,
        dev,
        held,
        *with_noisy_copies(dev, features, config.augment),
        *with_noisy_copies(held, features, config.augment),
        features.labels.to(device),
        inverse_frequency(features, train).to(device) if config.class_weights else None,
    )


def prepared(
    name: str,
    config: RunConfig,
    features: Features,
    clips: Clips,
    model: FusionModel,
    device: torch.device,
    branches: Mapping[str, SingleModality] | None,
    teachers: Mapping[str, SingleModality] | None,
) -> Learner:
    """Of a fresh model: on the device, begun from trained branches where there are any, and with its balance method.

    Raises:
        UsageError: the model is not trained itself, and no branches were given.
    """
    model.to(device)
    if branches:
        model.start_from(branches)
    elif config.total_epochs == 0:
        raise UsageError(f"{config.model} is not trained itself: it needs the trained branches that it starts from")
    balance = build_balance(config, model, len(features.classes), teachers or {}).to(device)
    return Learner(name, config, features, clips, model, balance)


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
