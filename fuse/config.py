"""The settings of one run, flat and frozen: everything besides the features that decides the trained weights.

Numbers that the paper gives are marked with its section; every other default is ours.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args, get_type_hints

from ..store.errors import UnknownName, UsageError
from .models.table import MODELS, takes
from .ratio import MODES, parse_ratio

ATTENTIONS = ("cross", "bilinear")
NORMS = ("pre", "post")
GATE_INPUTS = ("brff", "encoder")
PARTS = ("brff", "adf", "clw")
MIXES = ("log-probabilities", "probabilities")


@dataclass(frozen=True)
class RunConfig:
    """One run.

    Attributes:
        model: a name of `models/table.py`.
        audio, visual: stream names; None where the model does not take that modality.
        seed: of the initial weights, the order of the clips and dropout.
        ratio: imbalance ratio A:V, audio first: the proportion of the feature lengths after projection.
        ratio_mode: "fixed-total" (D = 2 x width stays) or "fixed-base" (one side is scaled up from `width`).
        width: d, of one modality's features; the concat Transformer's total is 2 d.
        layers, heads: of every Transformer encoder (Sec. 4.1.2).
        dropout: on embeddings and on the outputs of attention and feed-forward (Sec. 4.1.2; where, is ours).
        norm: layer norm before ("pre", ours: it trains without a warm-up) or after each part ("post").
        attention: form of the BRFF, "cross" or "bilinear" (eq. 1-2 to the letter).
        brff_layers: cross-attention blocks (Sec. 4.1.2).
        brff, adf, clw: the parts of BalanceMLA (Table 3).
        gate_input: what the decision weights are computed from: the BRFF's outputs ("brff", Sec. 3.2) or the encoders' ("encoder").
        mix: what the decision weights mix (the paper says "prediction vectors").
        pretrain_epochs, pretrain_lr: of the single-modality models that BalanceMLA starts from (Sec. 4.1.2).
        epochs, lr: first phase of training.
        finetune_epochs, finetune_lr: second phase (Sec. 4.1.2: 5 epochs at 5e-5).
        batch_size: clips a step (Sec. 4.1.2).
        weight_decay: AdamW's.
        clip_norm: the gradient's norm is clipped to this.
        lambda_audio, lambda_visual: weights of the two modalities' own cross-entropies.
        lr_scale_audio, lr_scale_visual: factors on the learning rate of each modality's own parameters.
        class_weights: weigh the cross-entropy by 1 / class frequency in the training split.
    """

    model: str
    audio: str | None = None
    visual: str | None = None
    seed: int = 0
    ratio: str = "1:1"
    ratio_mode: str = "fixed-total"
    width: int = 256
    layers: int = 6
    heads: int = 8
    dropout: float = 0.1
    norm: str = "pre"
    attention: str = "cross"
    brff_layers: int = 3
    brff: bool = True
    adf: bool = True
    clw: bool = True
    gate_input: str = "brff"
    mix: str = "log-probabilities"
    pretrain_epochs: int = 0
    pretrain_lr: float = 3e-4
    epochs: int = 30
    lr: float = 1e-4
    finetune_epochs: int = 0
    finetune_lr: float = 5e-5
    batch_size: int = 32
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    lambda_audio: float = 1.0
    lambda_visual: float = 1.0
    lr_scale_audio: float = 1.0
    lr_scale_visual: float = 1.0
    class_weights: bool = False

    def __post_init__(self) -> None:
        check_names(self)
        check_numbers(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Raises UsageError for unknown keys and for values of another type, naming them."""
        hints = get_type_hints(cls)
        if unknown := sorted(set(values) - set(hints)):
            raise UsageError(f"run configuration: unknown keys {unknown}; known: {', '.join(hints)}")
        if "model" not in values:
            raise UsageError("run configuration: the key model is missing")
        checked: dict[str, Any] = {}
        for key, value in values.items():
            allowed = get_args(hints[key]) if isinstance(hints[key], types.UnionType) else (hints[key],)
            if type(value) not in allowed and not (float in allowed and type(value) is int):
                expected = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
                raise UsageError(f"run configuration: {key} is {value!r}, expected {expected}")
            checked[key] = float(value) if float in allowed else value  # 1 and 1.0 are the same run
        return cls(**checked)

    @property
    def removed(self) -> tuple[str, ...]:
        """The parts of BalanceMLA that are switched off."""
        return tuple(part for part in PARTS if not getattr(self, part))

    @property
    def total_epochs(self) -> int:
        """Without those of the single-modality models that it starts from."""
        return self.epochs + self.finetune_epochs


def pretraining(config: RunConfig, modality: str) -> RunConfig:
    """The run whose best weights a BalanceMLA run starts one branch from; the same for all that can share it."""
    model = {"audio": "balancemla-ao", "visual": "balancemla-vo"}[modality]
    return canonical(replace(config, model=model, epochs=config.pretrain_epochs, lr=config.pretrain_lr))


def canonical(config: RunConfig) -> RunConfig:
    """The configuration with every field that its model never looks at set to the default.

    Two requests for the same training thereby are equal, so that one run serves both.
    """
    default = RunConfig(config.model)
    taken = takes(config.model)
    unused: dict[str, Any] = {m: None for m in ("audio", "visual") if m not in taken}
    if config.model != "balancemla":
        names = (
            "attention",
            "brff_layers",
            "brff",
            "adf",
            "clw",
            "gate_input",
            "mix",
            "pretrain_epochs",
            "pretrain_lr",
        )
        unused |= {name: getattr(default, name) for name in (*names, "lambda_audio", "lambda_visual")}
    if not config.brff:
        unused["attention"] = default.attention
    if not config.brff or config.attention == "bilinear":
        unused["brff_layers"] = default.brff_layers
    if not config.adf:
        unused["gate_input"] = default.gate_input
    if config.pretrain_epochs == 0:
        unused["pretrain_lr"] = default.pretrain_lr
    if config.model != "balancemla":
        unused["finetune_epochs"] = 0
    if len(taken) == 1:
        if config.model.startswith("transformer"):
            unused["ratio"] = default.ratio
        unused |= {f"lr_scale_{m}": 1.0 for m in ("audio", "visual") if m not in taken}
    if config.epochs == 0:
        unused["lr"] = default.lr
    if unused.get("finetune_epochs", config.finetune_epochs) == 0:
        unused["finetune_lr"] = default.finetune_lr
    ratio = str(parse_ratio(unused.get("ratio", config.ratio)))
    unused |= {"ratio": ratio, "ratio_mode": default.ratio_mode if ratio == "1:1" else config.ratio_mode}
    return replace(config, **unused)


def check_names(config: RunConfig) -> None:
    """Raises UnknownName or UsageError, naming the field."""
    for what, value, known in (
        ("model", config.model, tuple(MODELS)),
        ("ratio mode", config.ratio_mode, MODES),
        ("norm", config.norm, NORMS),
        ("attention", config.attention, ATTENTIONS),
        ("gate input", config.gate_input, GATE_INPUTS),
        ("mix", config.mix, MIXES),
    ):
        if value not in known:
            raise UnknownName(what, value, known)
    parse_ratio(config.ratio)


def check_numbers(config: RunConfig) -> None:
    """Raises UsageError where a number is out of its range: what a stranger's file says is checked before it is built."""
    limits: dict[str, tuple[float, float]] = {
        "seed": (0, 2**32 - 1),
        "width": (1, 8192),
        "layers": (1, 64),
        "heads": (1, 64),
        "brff_layers": (1, 64),
        "dropout": (0, 0.99),
        "pretrain_epochs": (0, 100_000),
        "epochs": (0, 100_000),
        "finetune_epochs": (0, 100_000),
        "batch_size": (1, 1_000_000),
        "pretrain_lr": (1e-12, 100),
        "lr": (1e-12, 100),
        "finetune_lr": (1e-12, 100),
        "clip_norm": (1e-12, 1e12),
        **dict.fromkeys(
            ("weight_decay", "lambda_audio", "lambda_visual", "lr_scale_audio", "lr_scale_visual"), (0, 1e6)
        ),
    }
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not low <= value <= high:  # NaN lands here too
            raise UsageError(f"{name.replace('_', ' ')} is {value}, expected {low:g} to {high:g}")
    step = math.lcm(2, config.heads)  # a head has whole units, and a sine its cosine
    if config.width % step:
        raise UsageError(
            f"width {config.width} can't be shared among {config.heads} heads: expected a multiple of {step}"
        )
    if config.total_epochs == 0:
        raise UsageError("epochs and fine-tuning epochs are both 0: nothing would be trained")
