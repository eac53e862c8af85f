"""What the settings of a run may be: the names that there are, the numbers that make sense, and what goes together.

Whatever makes a `RunConfig`, a command line or a stranger's file, comes through here before anything is built.
"""

import math
import re
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from ..store.errors import UnknownName, UsageError
from .balance.table import BALANCES
from .balance.table import entry as balance_entry
from .models.table import BOTH, MODELS, OWN, OWN_READS
from .models.table import entry as model_entry
from .ratio import MODES, parse_ratio

if TYPE_CHECKING:
    from .config import RunConfig

# Fields that have one of a few values: what an error calls them, and the values.
CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ratio_mode": ("ratio mode", MODES),
    "norm": ("norm", ("pre", "post")),
    "attention": ("attention", ("cross", "bilinear")),
    "gate_input": ("gate input", ("reliability", "brff", "encoder")),
    "mix": ("mix", ("log-probabilities", "probabilities")),
    "head": ("head", ("linear", "cosine")),
    "probe_mean": ("probe mean", ("valid", "all")),
    "precision": ("precision", ("fp32", "bf16")),
    "fold_by": ("fold by", ("group", "speaker", "session")),
}
RESNET_DEPTHS = (18, 34)
TASK = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}=[0-9a-f]{10}"
LEAST_FOLDS = 3  # one to test, one to choose, the rest to train
# Fields that have a number: the least and the greatest that it may be.
LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "width": (1, 8192),
    "layers": (1, 64),
    "heads": (1, 64),
    "convolution": (0, 255),
    "brff_layers": (1, 64),
    "cosine_scale": (1e-3, 1e6),
    "gru_units": (1, 8192),
    "gru_layers": (1, 64),
    "front_width": (1, 1024),
    "crop": (0.1, 1),
    "flip": (0, 1),
    "time_mask": (0, 1),
    "mixup": (0, 100),
    "probe_width": (1, 8192),
    "dropout": (0, 0.99),
    "pretrain_epochs": (0, 100_000),
    "epochs": (0, 100_000),
    "finetune_epochs": (0, 100_000),
    "batch_size": (1, 1_000_000),
    "warmup_steps": (0, 1_000_000),
    "patience": (0, 100_000),
    "label_smoothing": (0, 0.99),
    "modality_dropout": (0, 1),
    "noise_share": (0, 0.5),
    "holdout": (0, 0.9),
    "pmr_momentum": (0, 1),
    "pmr_entropy_epochs": (0, 100_000),
    "mmpareto_lift": (1e-6, 1e6),
    "gblend_epochs": (1, 100_000),
    "opm_base": (0, 1),
    "opm_share": (0, 1),
    "mla_alpha": (1e-12, 1e6),
    "adaptive_smoothing": (0, 0.999),
    "adaptive_floor": (0, 1),
    **dict.fromkeys(("ogm_alpha", "agm_alpha", "pmr_alpha", "pmr_entropy", "umt_weight", "opm_slope"), (0, 1e6)),
    "folds": (0, 1000),
    "pretrain_lr": (1e-12, 100),
    "lr": (1e-12, 100),
    "finetune_lr": (1e-12, 100),
    "clip_norm": (1e-12, 1e12),
    **dict.fromkeys(("weight_decay", "lambda_audio", "lambda_visual", "lr_scale_audio", "lr_scale_visual"), (0, 1e6)),
}
# The settings that only some models look at, and those that only some models or balance methods do.
OF_MODELS = frozenset(name for model in MODELS.values() for name in model.reads) | {*OWN_READS}
SPECIFIC = OF_MODELS | {name for method in BALANCES.values() for name in method.reads}


def check_names(config: "RunConfig") -> None:
    """Raises UnknownName or UsageError, naming the field."""
    model_entry(config.model)
    balance_entry(config.balance)
    for name, (what, known) in CHOICES.items():
        if getattr(config, name) not in known:
            raise UnknownName(what, getattr(config, name), known)
    parse_ratio(config.ratio)
    if config.tasks and (
        len(config.tasks) == 1
        or len(set(config.task_names)) < len(config.tasks)
        or not all(re.fullmatch(TASK, task) for task in config.tasks)
    ):
        raise UsageError(f"tasks is {list(config.tasks)}, expected two or more of the form NAME=DIGEST, none twice")
    if config.balance != "none" and not fits(config.balance, config.model):
        known_to_fit = " or ".join(fitting(config.balance))
        raise UsageError(f"balance {config.balance} does not go with {config.model}; expected {known_to_fit}")
    plain = {f.name: f.default for f in fields(config)}
    for name, value in balance_entry(config.balance).sets.items():
        if plain[name] not in (value, MISSING) and getattr(config, name) == plain[name]:
            raise UsageError(f"balance {config.balance} needs {name} to be other than {plain[name]}, such as {value}")
    for name, value in balance_entry(config.balance).only.items():
        if getattr(config, name) != value:
            raise UsageError(f"balance {config.balance} needs {name} {value}, not {getattr(config, name)}")


def fitting(balance: str) -> tuple[str, ...]:
    """The models of the table that a balance method goes with."""
    return tuple(name for name in MODELS if fits(balance, name))


def fits(balance: str, name: str) -> bool:
    """Whether a balance method goes with a model: with none that is put together from trained branches and trained no further.

    What a model of the user's own gives is seen when it is built; see `balance.table.build`.
    """
    model, method = model_entry(name), balance_entry(balance)
    return (
        model.takes == BOTH
        and (not model.starts or "finetune_epochs" in model.reads)
        and (not method.models or name in method.models or name.startswith(OWN))
        and (model.heads or "lambda_audio" in model.reads or not method.heads)
        and all(setting in model.reads or setting not in OF_MODELS for setting in method.sets)
    )


def check_numbers(config: "RunConfig") -> None:
    """Raises UsageError where a number is out of its range: what a stranger's file says is checked before it is built."""
    for name, (low, high) in {**LIMITS, "fold": (0, max(config.folds - 1, 0))}.items():
        value = getattr(config, name)
        if not low <= value <= high:  # NaN lands here too
            raise UsageError(f"{name.replace('_', ' ')} is {value}, expected {low:g} to {high:g}")
    if config.resnet_depth not in RESNET_DEPTHS:
        raise UsageError(f"resnet depth is {config.resnet_depth}, expected {' or '.join(map(str, RESNET_DEPTHS))}")
    if config.convolution and config.convolution % 2 == 0:
        raise UsageError(f"convolution is {config.convolution} steps, expected an odd number, or 0 for none")
    if 0 < config.folds < LEAST_FOLDS:
        raise UsageError(
            f"folds is {config.folds}, expected at least {LEAST_FOLDS}: one to test, one to choose, the rest to train"
        )
    step = math.lcm(2, config.heads)  # a head has whole units, and a sine its cosine
    if config.width % step:
        raise UsageError(
            f"width {config.width} can't be shared among {config.heads} heads: expected a multiple of {step}"
        )
    entry = model_entry(config.model)
    complete = entry.starts and "finetune_epochs" not in entry.reads  # the branches that it starts from are all of it
    if config.total_epochs == 0 and not (complete and config.pretrain_epochs):
        raise UsageError("epochs and fine-tuning epochs are both 0: nothing would be trained")
