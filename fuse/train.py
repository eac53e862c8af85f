"""Training one model: a flat function with its epoch loop in sight.

*Source:* Sec. 4.1.2 for the phases, learning rates and batch sizes (see `recipes.py`). Ours: AdamW, a constant learning rate
within a phase, clipping of the gradient's norm, and the choice of the epoch by accuracy on the dev split, ties by lower loss. The
test split is not looked at here.

The same seed, features, thread count and libraries give the same weights, bit for bit, on a CPU.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..store.errors import BmlaError, UsageError
from .config import RunConfig
from .data import Features
from .evaluate import Predictions, predict
from .metrics import branch_accuracy, mean, own_class_alpha
from .models.balancemla import BalanceMLA
from .models.base import FusionModel, loss
from .models.single import SingleModality
from .models.table import build, takes

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


def train(
    config: RunConfig,
    features: Features,
    *,
    branches: Mapping[str, SingleModality] | None = None,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Trains one model and keeps the weights of its best epoch on dev.

    Args:
        branches: trained single-modality models that a BalanceMLA run starts from; None: fresh weights.
        device: where the features are.
        on_epoch: called with each entry of the history.

    Raises:
        Diverged: the loss became NaN or infinite.
        UsageError: a split has no clip with the model's modality.
    """
    modalities = takes(config.model)
    train_clips, dev_clips = (clips_of(features, split, config) for split in ("train", "dev"))
    lambdas = {"audio": config.lambda_audio, "visual": config.lambda_visual}
    class_weights = inverse_frequency(features, train_clips).to(device) if config.class_weights else None
    labels = features.labels.to(device)
    order = torch.Generator().manual_seed(config.seed)
    history: list[Epoch] = []
    best: Epoch = {"dev_accuracy": -1.0, "dev_loss": math.inf}
    best_weights: dict[str, Tensor] = {}

    with seeded(config.seed, torch.device(device)):
        model = fresh_model(config, features, train_clips).to(device)
        if branches:
            assert isinstance(model, BalanceMLA)
            model.start_from(branches)
        for phase, epochs, lr in (
            ("train", config.epochs, config.lr),
            ("finetune", config.finetune_epochs, config.finetune_lr),
        ):
            groups = model.parameter_groups()
            parameters = [p for group in groups.values() for p in group]
            scale = {"audio": config.lr_scale_audio, "visual": config.lr_scale_visual, "shared": 1.0}
            optimiser = torch.optim.AdamW(
                [{"params": group, "lr": lr * scale[owner]} for owner, group in groups.items()],
                weight_decay=config.weight_decay,
                fused=True,
            )
            for _ in range(epochs):
                model.train()
                shuffled = torch.from_numpy(train_clips)[torch.randperm(len(train_clips), generator=order)]
                summed_loss = torch.zeros((), device=device)
                summed_norms = torch.zeros(len(groups), device=device)
                batches = shuffled.split(config.batch_size)
                for clips, audio, visual in features.batches(batches, modalities):
                    batch_loss = loss(
                        model(audio, visual), audio, visual, labels[clips.to(labels.device)], lambdas, class_weights
                    )
                    optimiser.zero_grad()
                    batch_loss.backward()
                    norms = torch.stack([gradient_norm(group) for group in groups.values()])
                    clip_grads_with_norm_(parameters, config.clip_norm, norms.square().sum().sqrt())
                    optimiser.step()
                    summed_loss += batch_loss.detach() * len(
                        clips
                    )  # read once an epoch: a look at every step would wait
                    summed_norms += norms
                epoch: Epoch = {"phase": phase, "epoch": len(history) + 1, "lr": lr}
                epoch["train_loss"] = float(summed_loss) / len(train_clips)
                if not math.isfinite(epoch["train_loss"]):
                    raise Diverged(
                        f"{config.model}, seed {config.seed}: the loss is no number any more in epoch {epoch['epoch']} "
                        f"(learning rate {lr:g}, batches of {config.batch_size}): try a lower --lr"
                    )
                epoch |= dev_scores(predict(model, features, dev_clips, modalities))
                epoch |= {
                    f"grad_norm_{owner}": norm / len(batches)
                    for owner, norm in zip(groups, summed_norms.tolist(), strict=True)
                }
                history.append(epoch)
                if (epoch["dev_accuracy"], -epoch["dev_loss"]) > (best["dev_accuracy"], -best["dev_loss"]):
                    best = epoch
                    best_weights = {name: value.clone() for name, value in model.state_dict().items()}
                on_epoch(epoch)

    model.load_state_dict(best_weights)
    return Trained(model.eval(), history, best)


def clips_of(features: Features, split: str, config: RunConfig) -> np.ndarray:
    """The clips of a split that the model can be trained on or tested with."""
    modalities = takes(config.model)
    clips = features.clips(split, modalities)
    if len(clips) == 0:
        raise UsageError(f"{config.model}: no clip of the {split} split has {' or '.join(modalities)} features")
    return clips


def fresh_model(config: RunConfig, features: Features, train_clips: np.ndarray) -> FusionModel:
    """A model with weights from torch's global generator and statistics of the training clips."""
    modalities = takes(config.model)
    model = build(config, {m: features.stream(m).input for m in modalities}, len(features.classes))
    for modality in modalities:
        model.set_statistics(modality, *features.stream(modality).statistics(train_clips))
    return model


def dev_scores(predictions: Predictions) -> Epoch:
    """What an epoch is judged by, and what is drawn as learning curves."""
    truth = predictions.labels
    alpha = own_class_alpha(predictions)
    return {
        "dev_loss": float(-predictions.result[np.arange(len(truth)), truth].mean(dtype=np.float64)),
        "dev_accuracy": float((predictions.predicted == truth).mean()),
        "dev_accuracy_audio": branch_accuracy(predictions, "audio"),
        "dev_accuracy_visual": branch_accuracy(predictions, "visual"),
        "alpha": mean(alpha[~np.isnan(alpha)]),
    }


def inverse_frequency(features: Features, train_clips: np.ndarray) -> Tensor:
    """(c,) weights n / (c n_c): a batch drawn at random has a mean weight of one. Zero for a class that never occurs."""
    counts = np.bincount(features.labels.numpy()[train_clips], minlength=len(features.classes))
    weights = np.divide(len(train_clips), len(counts) * counts, out=np.zeros(len(counts)), where=counts > 0)
    return torch.from_numpy(weights).float()


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Zero where nothing has a gradient."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return get_total_norm(gradients) if gradients else torch.zeros((), device=parameters[0].device)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators begin at the seed inside, and are as they were outside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
