"""Which runs of a sweep can train in one stack, and how many at once.

Runs stack when their models have the same layers: the same model and sizes. Seeds, learning rates, lambdas, folds, noise, dropout and
every schedule may differ, and so may the ratio, as long as the sum of both lengths is the same.
"""

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import torch

from ...store.errors import BmlaError, UsageError
from ...store.reading.memory import available_bytes
from ..balance.table import BALANCES as BALANCE_METHODS
from ..config import RunConfig
from ..data import Features
from ..models.base import FusionModel
from ..models.table import OWN as USERS
from ..models.table import build, takes
from ..ratio import parse_ratio, widths
from .mirror import unknown_parts

BALANCES = {
    *("none", "joint-aux", "modality-dropout", "mmcosine", "ogm", "ogm-ge", "agm", "pmr", "g-blending", "opm"),
    "adaptive",
}
OTHERS = {  # why some do not
    **dict.fromkeys(("mmpareto", "mla"), "it goes back loss by loss"),
    "umt": "it trains maps of its own",
}
# What the epoch loop, and not the model's layers, looks at: each run of a stack may have its own.
OWN = {
    *("seed", "ratio", "ratio_mode", "dropout", "pretrain_epochs", "pretrain_lr", "epochs", "lr", "finetune_epochs"),
    *("finetune_lr", "weight_decay", "clip_norm", "lambda_audio", "lambda_visual", "lr_scale_audio", "lr_scale_visual"),
    *("class_weights", "label_smoothing", "warmup_steps", "patience", "modality_dropout", "augment", "gate_augment"),
    *("noise_share", "holdout", "folds", "fold", "fold_by"),
    *(name for method in BALANCE_METHODS.values() for name in method.reads),
}
# What runs must share besides for their epochs to be taken in one go; see `whole.py`.
EPOCH = ("folds", "fold", "fold_by", "holdout", "augment", "noise_share", "modality_dropout")
BYTES = 4
COPIES = 6  # of the parameters: values, gradients, both moments, the layers' gradients, the best weights
PASSES = 24  # numbers that a layer keeps for each step and unit until the pass back (feed-forward is four wide)
CONVOLVED = 10  # so many more where it has a convolution (gates are two wide)


def check_stacks(configs: Iterable[RunConfig], features: Features) -> None:
    """Raises UsageError where some of these runs do not stack; one that is put together without training is no matter."""
    found = reasons_of([c for c in configs if c.total_epochs], features)
    if reasons := list(dict.fromkeys(reason for reason in found.values() if reason)):
        raise UsageError(
            f"--executor stacked: {', '.join(reasons)}: can't be trained in a stack; leave it out, or take --executor auto"
        )


def reasons_of(configs: Iterable[RunConfig], features: Features) -> dict[RunConfig, str | None]:
    """`why_not` of each; runs of the same key are asked once."""
    known: dict[tuple[Any, ...], str | None] = {}
    reasons = {}
    for config in configs:
        key = config.total_epochs == 0, *key_of(config)
        if key not in known:
            known[key] = why_not(config, features)
        reasons[config] = known[key]
    return reasons


def why_not(config: RunConfig, features: Features) -> str | None:
    """What of a run does not stack, and why, in a few words; None: it stacks."""
    if config.balance not in BALANCES:
        return f"balance {config.balance} ({OTHERS.get(config.balance, 'not known to')})"
    if config.model.startswith(USERS):
        return f"{config.model} (a model of your own)"
    if config.tasks:
        return f"{config.model} (of several tasks)"
    if config.total_epochs == 0:
        return f"{config.model} (nothing of it is trained)"
    width = math.lcm(2, config.heads)
    small = replace(config, layers=1, brff_layers=1, width=width, ratio="1:1")  # of the same kinds of parts
    try:
        unknown = unknown_parts(fresh(small, features))
    except BmlaError:  # what is wrong with it is for its training to say
        return config.model
    return f"{config.model} ({', '.join(unknown)} works for one run at a time)" if unknown else None


def key_of(config: RunConfig) -> tuple[Any, ...]:
    """Runs with the same key stack."""
    same = [getattr(config, f.name) for f in fields(config) if f.name not in OWN]
    answered = config.lambda_audio > 0, config.lambda_visual > 0  # a head without a loss has no gradient
    return (*same, *answered, total_width(config))


def total_width(config: RunConfig) -> int:
    """Of both projections side by side, on which the size of the concat Transformer's encoder depends."""
    if len(takes(config.model)) < 2:
        return config.width
    return sum(widths(parse_ratio(config.ratio), config.width, config.heads, config.ratio_mode))


def grouped(configs: Iterable[RunConfig], device: torch.device | str) -> list[list[RunConfig]]:
    """The runs that stack, together, in the order of the first of each group; on a GPU those whose epochs can be taken in one go."""
    groups: dict[tuple[Any, ...], list[RunConfig]] = {}
    whole = EPOCH if torch.device(device).type == "cuda" else ()
    for config in configs:
        groups.setdefault((*key_of(config), *(getattr(config, name) for name in whole)), []).append(config)
    return list(groups.values())


def largest_stack(config: RunConfig, steps: int, parameters: int, free_bytes: int) -> int:
    """E: how many runs like this one there is room for, at least one. A generous guess: a stack that is too small costs little.

    Args:
        steps: of the longest clip, of all modalities together.
        parameters: of a run.
    """
    layers = PASSES * (config.layers + config.brff_layers) + (CONVOLVED * config.layers if config.convolution else 0)
    activations = config.batch_size * steps * total_width(config) * layers
    return max(1, free_bytes // (BYTES * (COPIES * parameters + activations)))


def stack_of(configs: Iterable[RunConfig], features: Features, device: torch.device | str) -> int:
    """E for a group of runs, by the memory that is free on the device."""
    config = next(iter(configs))
    steps = sum(int(features.stream(m).lengths.max()) for m in takes(config.model))
    parameters = sum(p.numel() for p in fresh(config, features).parameters())
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()  # what trials and the group before have left
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = available_bytes()
    return largest_stack(config, steps, parameters, free // 2)


def fresh(config: RunConfig, features: Features) -> FusionModel:
    """A model to be looked at; torch's generator is left as it was."""
    with torch.random.fork_rng([]):
        return build(config, {m: features.stream(m).input for m in takes(config.model)}, len(features.classes))
