"""The settings of one run, flat and frozen: everything besides the features that decides the trained weights.

Numbers that the paper gives are marked with its section; every other default is ours.
"""

import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, get_args, get_type_hints

from ..store.errors import UnknownName, UsageError
from .balance.table import BALANCES
from .balance.table import entry as balance_entry
from .models.table import BOTH, MODELS
from .models.table import entry as model_entry
from .ratio import MODES, parse_ratio

ATTENTIONS = ("cross", "bilinear")
NORMS = ("pre", "post")
GATE_INPUTS = ("reliability", "brff", "encoder")
PARTS = ("brff", "adf", "clw")
MIXES = ("log-probabilities", "probabilities")
PRECISIONS = ("fp32", "bf16")
HEADS = ("linear", "cosine")
RESNET_DEPTHS = (18, 34)
PROBE_MEANS = ("valid", "all")
FOLD_UNITS = ("group", "speaker", "session")
TASK = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}=[0-9a-f]{10}"


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
        gate_input: what the decision weights are computed from: "reliability", how sure each branch is and its encoder's output, fitted
            on held-out clips (ours; `docs/research.md`); or trained with the branches, from the BRFF's outputs ("brff", Sec. 3.2) or the
            encoders' ("encoder").
        gate_augment: noise variants that the held-out clips get for that; none: those of `augment`.
        mix: what the decision weights mix (the paper says "prediction vectors").
        head: of late fusion: a linear map of both modalities' features, or the cosines of each to every class.
        cosine_scale: what the cosines are multiplied by (10: MMCosine, Xu et al., 2023).
        gru_units, gru_layers: of each bidirectional GRU, the units of each direction (Sec. 4.2; for Con, Petridis et al., 2018).
        front_width: kernels of the 3-D convolution (Sec. 4.2); ResNet's first stage is as wide, its last 8 times.
        resnet_depth: 34 (Sec. 4.2) or 18.
        crop: share of the height and width of a picture that a model sees: anywhere in training, the middle in evaluation.
        flip: share of the training clips whose pictures are mirrored.
        time_mask: the longest span of a training clip that is hidden, over its length. The recipes of the models with a convolution
            set these three as Ma et al. (2022) do in lip reading; here they are off.
        mixup: alpha of the Beta(alpha, alpha) that draws in which share two training clips are mixed (Zhang et al., 2018); 0: never.
        probe_width: what the probe projects to (AV-SUPERB, Tseng et al., 2024).
        probe_mean: of the probe, over the valid steps or over all up to the last valid one.
        pretrain_epochs, pretrain_lr: of the single-modality models that BalanceMLA starts from (Sec. 4.1.2).
        epochs, lr: first phase of training.
        finetune_epochs, finetune_lr: second phase (Sec. 4.1.2: 5 epochs at 5e-5).
        batch_size: clips a step (Sec. 4.1.2).
        weight_decay: AdamW's.
        clip_norm: the gradient's norm is clipped to this.
        lambda_audio, lambda_visual: weights of the two modalities' own cross-entropies.
        lr_scale_audio, lr_scale_visual: factors on the learning rate of each modality's own parameters.
        class_weights: weigh the cross-entropy by 1 / class frequency in the training split.
        label_smoothing: this share of each target is spread over all classes.
        warmup_steps: over which the learning rate of each phase rises from zero.
        patience: epochs without a better one on dev after which a phase ends; 0: never.
        precision: "bf16" computes in bfloat16 where that is safe (on a GPU); weights stay float32.
        balance: a name of `balance/table.py`.
        modality_dropout: the share of the training clips with both modalities of which one, by turns either, is hidden.
        augment: noise variants of the streams; every training clip is drawn from the clean stream or one of these, each time anew.
        holdout: this share of the training clips, in whole groups, trains nothing: a balance method judges by it. Those that a run
            starts from leave out the same clips.
        ogm_alpha: how strongly OGM slows the modality that is ahead (Peng et al., 2022, use .1 on VGGSound, .8 on CREMA-D).
        agm_alpha: the same of AGM.
        pmr_alpha, pmr_momentum: weight of PMR's prototypical loss, and share of the old prototype that is kept (both its public code's).
        pmr_entropy, pmr_entropy_epochs: weight of PMR's entropy, and in how many epochs.
        mmpareto_lift: factor on the update (Wei and Hu, 2024).
        gblend_epochs: of G-Blending's super-epoch.
        umt_weight: of the distance to the teachers' features.
        opm_base, opm_slope, opm_share: chance that OPM hides a clip, how it rises, and in which share of the batches (its public code's).
        mla_alpha: of MLA's recursive least squares: the smaller, the more of the used directions is kept from change (its public code's).
        adaptive_smoothing, adaptive_floor: share of the old losses that is kept, and the smallest factor on an update.
        folds, fold: cross-validation: this fold of so many is the test split, the next one dev; 0: the store's own splits.
        fold_by: what stays together in one fold.
        tasks: that were trained in one model, this run's first, each as NAME=DIGEST of its features; empty: this one alone.
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
    gate_input: str = "reliability"
    mix: str = "log-probabilities"
    head: str = "linear"
    cosine_scale: float = 10.0
    gru_units: int = 1024
    gru_layers: int = 2
    front_width: int = 64
    resnet_depth: int = 34
    crop: float = 1.0
    flip: float = 0.0
    time_mask: float = 0.0
    mixup: float = 0.0
    probe_width: int = 256
    probe_mean: str = "valid"
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
    label_smoothing: float = 0.0
    warmup_steps: int = 0
    patience: int = 0
    precision: str = "fp32"
    balance: str = "none"
    modality_dropout: float = 0.0
    augment: tuple[str, ...] = ()
    gate_augment: tuple[str, ...] = ()
    holdout: float = 0.0
    ogm_alpha: float = 0.1
    agm_alpha: float = 0.2
    pmr_alpha: float = 1.0
    pmr_momentum: float = 0.2
    pmr_entropy: float = 0.01
    pmr_entropy_epochs: int = 10
    mmpareto_lift: float = 1.5
    gblend_epochs: int = 2  # so that BalanceMLA's 5 epochs of fine-tuning have two
    umt_weight: float = 1.0
    opm_base: float = 0.5
    opm_slope: float = 0.5
    opm_share: float = 0.7
    mla_alpha: float = 0.1
    adaptive_smoothing: float = 0.5
    adaptive_floor: float = 0.1
    folds: int = 0
    fold: int = 0
    fold_by: str = "group"
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_names(self)
        check_numbers(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def changes(self) -> dict[str, Any]:
        """Those of `to_dict` that are not at their defaults, and the model."""
        default = RunConfig(self.model).to_dict()
        return {"model": self.model, **{k: v for k, v in self.to_dict().items() if v != default[k]}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Raises UsageError for unknown keys and for values of another type, naming them."""
        hints = get_type_hints(cls)
        if unknown := sorted(set(values) - set(hints)):
            raise UsageError(f"run configuration: unknown keys {unknown}; known: {', '.join(hints)}")
        if "model" not in values:
            raise UsageError("run configuration: the key model is missing")
        checked = {key: checked_value(key, value, hints[key]) for key, value in values.items()}
        return cls(**checked)

    @property
    def removed(self) -> tuple[str, ...]:
        """The parts of BalanceMLA that are switched off."""
        return tuple(part for part in PARTS if not getattr(self, part))

    @property
    def task_names(self) -> tuple[str, ...]:
        """Of the tasks that were trained in one model, this run's first; empty: this one alone."""
        return tuple(task.partition("=")[0] for task in self.tasks)

    @property
    def told_tasks(self) -> str:
        """The same in a run's name for people: " on words with letters"."""
        return f" on {self.task_names[0]} with {', '.join(self.task_names[1:])}" if self.tasks else ""

    @property
    def total_epochs(self) -> int:
        """Without those of the single-modality models that it starts from."""
        return self.epochs + self.finetune_epochs


def parse_settings(words: Mapping[str, str]) -> dict[str, Any]:
    """Fields by name, with their values as text: whole numbers, numbers, true or false, or text; a list is joined by commas.

    Raises:
        UnknownName: there is no such field.
        UsageError: it is no such value.
    """
    hints = get_type_hints(RunConfig)
    return {name: parsed_value(name, text, hints) for name, text in words.items()}


def parsed_value(name: str, text: str, hints: Mapping[str, Any]) -> Any:
    if name not in hints:
        raise UnknownName("setting", name, tuple(hints))
    hint = hints[name]
    if hint is bool:
        if text not in ("true", "false"):
            raise UsageError(f'{name}: "{text}" is neither true nor false')
        return text == "true"
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise UsageError(f'{name}: "{text}" is no {"whole " if hint is int else ""}number') from None
    return tuple(text.split(",")) if hint == tuple[str, ...] else text


def checked_value(key: str, value: Any, hint: Any) -> Any:
    """A field's value as it is kept. Raises UsageError where it is of another type."""
    if hint == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(value)
        raise UsageError(f"run configuration: {key} is {value!r}, expected a list of texts")
    allowed = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(value) not in allowed and not (float in allowed and type(value) is int):
        expected = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
        raise UsageError(f"run configuration: {key} is {value!r}, expected {expected}")
    return float(value) if float in allowed else value  # 1 and 1.0 are the same run


def starting_points(config: RunConfig) -> dict[str, RunConfig]:
    """The runs of one modality that a run starts from, by modality; none for models that start afresh."""
    if config.pretrain_epochs == 0:
        return {}
    return {modality: pretraining(config, modality) for modality in model_entry(config.model).starts}


def teachers(config: RunConfig) -> dict[str, RunConfig]:
    """The runs of one modality that a run's balance method learns from, by modality; none for most methods.

    They are those that the model starts from, where it does, else `transformer-ao` and `-vo`, trained as long as the run itself.
    """
    if not balance_entry(config.balance).teachers:
        return {}
    if starts := starting_points(config):
        return starts
    names = model_entry(config.model).starts or {"audio": "transformer-ao", "visual": "transformer-vo"}
    return {m: alone(config, name, config.epochs or config.finetune_epochs, config.lr) for m, name in names.items()}


def prerequisites(config: RunConfig) -> list[RunConfig]:
    """The runs that must be there before a run, each once."""
    return list(dict.fromkeys([*starting_points(config).values(), *teachers(config).values()]))


def pretraining(config: RunConfig, modality: str) -> RunConfig:
    """The run whose best weights a run starts one branch from; the same for all that can share it."""
    return alone(config, model_entry(config.model).starts[modality], config.pretrain_epochs, config.pretrain_lr)


def alone(config: RunConfig, model: str, epochs: int, lr: float) -> RunConfig:
    """The same settings for a model of one modality."""
    phases: dict[str, Any] = {"pretrain_epochs": 0, "epochs": epochs, "lr": lr, "finetune_epochs": 0}
    return canonical(replace(config, model=model, balance="none", **phases))


# The settings that only some models look at, and those that only some models or balance methods do.
OF_MODELS = frozenset(name for model in MODELS.values() for name in model.reads)
SPECIFIC = OF_MODELS | {name for method in BALANCES.values() for name in method.reads}


def canonical(config: RunConfig) -> RunConfig:
    """The configuration with every field that its model never looks at set to the default.

    Two requests for the same training thereby are equal, so that one run serves both.
    """
    default = RunConfig(config.model)
    entry = model_entry(config.model)
    read = {*entry.reads, *balance_entry(config.balance).reads}
    unread = SPECIFIC - read
    if not config.brff:
        unread |= {"attention"}
    if not config.brff or config.attention == "bilinear":
        unread |= {"brff_layers"}
    if not config.adf and not config.clw:
        unread |= {"gate_input"}
    if "gate_input" in unread or config.gate_input != "reliability":
        unread |= {"gate_augment"}
    if config.head == "linear":
        unread |= {"cosine_scale"}
    if config.pretrain_epochs == 0:
        unread |= {"pretrain_lr"}
    if config.epochs == 0:
        unread |= {"lr"}
    if config.finetune_epochs == 0 or "finetune_epochs" in unread:
        unread |= {"finetune_lr"}
    if config.folds == 0:
        unread |= {"fold", "fold_by"}
    if len(entry.takes) == 1:
        unread |= {"modality_dropout", *(n for m in BOTH if m not in entry.takes for n in (m, f"lr_scale_{m}"))}
    ratio = default.ratio if "ratio" in unread else str(parse_ratio(config.ratio))
    if ratio == "1:1":
        unread |= {"ratio_mode"}
    values = {name: getattr(default, name) for name in unread} | {"ratio": ratio}
    seen = [getattr(config, modality) for modality in entry.takes]
    for field in ("augment", "gate_augment"):
        names = values.get(field, getattr(config, field))
        values[field] = tuple(sorted({name for name in names if name.partition("@")[0] in seen}))
    if values["gate_augment"] == values["augment"]:
        values["gate_augment"] = ()
    return replace(config, **values)


def check_names(config: RunConfig) -> None:
    """Raises UnknownName or UsageError, naming the field."""
    for what, value, known in (
        ("model", config.model, tuple(MODELS)),
        ("ratio mode", config.ratio_mode, MODES),
        ("norm", config.norm, NORMS),
        ("attention", config.attention, ATTENTIONS),
        ("gate input", config.gate_input, GATE_INPUTS),
        ("mix", config.mix, MIXES),
        ("head", config.head, HEADS),
        ("probe mean", config.probe_mean, PROBE_MEANS),
        ("precision", config.precision, PRECISIONS),
        ("balance", config.balance, tuple(BALANCES)),
        ("fold by", config.fold_by, FOLD_UNITS),
    ):
        if value not in known:
            raise UnknownName(what, value, known)
    parse_ratio(config.ratio)
    if config.tasks and (
        len(config.tasks) == 1
        or len(set(config.task_names)) < len(config.tasks)
        or not all(re.fullmatch(TASK, task) for task in config.tasks)
    ):
        raise UsageError(f"tasks is {list(config.tasks)}, expected two or more of the form NAME=DIGEST, none twice")
    if config.balance != "none" and config.model not in (fit := fitting(config.balance)):
        raise UsageError(f"balance {config.balance} does not go with {config.model}; expected {' or '.join(fit)}")
    plain = {f.name: f.default for f in fields(RunConfig)}
    for name, value in balance_entry(config.balance).sets.items():
        if plain[name] not in (value, MISSING) and getattr(config, name) == plain[name]:
            raise UsageError(f"balance {config.balance} needs {name} to be other than {plain[name]}, such as {value}")


def fitting(balance: str) -> tuple[str, ...]:
    """The models that a balance method goes with; none that is put together from trained branches and trained no further."""
    method, known = balance_entry(balance), {f.name for f in fields(RunConfig)}
    return tuple(
        name
        for name, model in MODELS.items()
        if model.takes == BOTH
        and (not model.starts or "finetune_epochs" in model.reads)
        and (not method.models or name in method.models)
        and (model.heads or "lambda_audio" in model.reads or not method.heads)
        and all(setting in (known - OF_MODELS) | {*model.reads} for setting in method.sets)
    )


def check_numbers(config: RunConfig) -> None:
    """Raises UsageError where a number is out of its range: what a stranger's file says is checked before it is built."""
    limits: dict[str, tuple[float, float]] = {
        "seed": (0, 2**32 - 1),
        "width": (1, 8192),
        "layers": (1, 64),
        "heads": (1, 64),
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
        "fold": (0, max(config.folds - 1, 0)),
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
    if config.resnet_depth not in RESNET_DEPTHS:
        raise UsageError(f"resnet depth is {config.resnet_depth}, expected {' or '.join(map(str, RESNET_DEPTHS))}")
    if config.folds in (1, 2):
        raise UsageError(f"folds is {config.folds}, expected at least 3: one to test, one to choose, the rest to train")
    step = math.lcm(2, config.heads)  # a head has whole units, and a sine its cosine
    if config.width % step:
        raise UsageError(
            f"width {config.width} can't be shared among {config.heads} heads: expected a multiple of {step}"
        )
    entry = model_entry(config.model)
    complete = entry.starts and "finetune_epochs" not in entry.reads  # the branches that it starts from are all of it
    if config.total_epochs == 0 and not (complete and config.pretrain_epochs):
        raise UsageError("epochs and fine-tuning epochs are both 0: nothing would be trained")
