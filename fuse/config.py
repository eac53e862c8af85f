"""The settings of one run, flat and frozen: everything besides the features that decides the trained weights.

Numbers that the paper gives are marked with its section; every other default is ours.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

from ..store.errors import UnknownName, UsageError
from .checks import check_names, check_numbers
from .values import checked_value, parsed_value

PARTS = ("brff", "adf", "clw")


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
        convolution: its steps, in every layer of an encoder, as in a Conformer (Gulati et al., 2020), odd; 0: none (the paper's).
        attention: form of the BRFF, "cross" or "bilinear" (eq. 1-2 to the letter).
        brff_layers: cross-attention blocks (Sec. 4.1.2).
        brff, adf, clw: the parts of BalanceMLA (Table 3).
        gate_input: what the decision weights are computed from: "reliability", how sure each branch is and its encoder's output, fitted
            on held-out clips (ours; `docs/research.md`); or trained with the branches, from the BRFF's outputs ("brff", Sec. 3.2) or the
            encoders' ("encoder").
        gate_augment: noise variants that the held-out clips get for that; none: those of `augment`.
        mix: what the decision weights mix (the paper says "prediction vectors").
        head: of late fusion and of BalanceMLA's branches: a linear map of the features, or their cosines to every class.
        cosine_scale: what the cosines are multiplied by (10: MMCosine, Xu et al., 2023).
        gru_units, gru_layers: of each bidirectional GRU, the units of each direction (Sec. 4.2; for Con, Petridis et al., 2018).
        front_width: kernels of the 3-D convolution (Sec. 4.2); ResNet's first stage is as wide, its last 8 times.
        resnet_depth: 34 (Sec. 4.2) or 18.
        crop: share of the height and width of a picture that a model sees: anywhere in training, the middle in evaluation.
        flip: share of the training clips whose pictures are mirrored.
        time_mask: the longest span of a training clip that is hidden, over its length. For front ends the recipes set these three as
            Ma et al. (2022) do in lip reading; here they are off.
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
        noise_share: of the training clips have noise in their sound, and as many in their sight. 0, as before there was this setting:
            nothing and each modality that has noise as often, so half of the clips of a model of one modality.
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
        own: of a model of the user's own, the name of its class and a digest of its source.
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
    convolution: int = 0
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
    noise_share: float = 0.0
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
    own: str = ""
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
    if unknown := [name for name in words if name not in hints]:
        raise UnknownName("setting", unknown[0], tuple(hints))
    return {name: parsed_value(name, text, hints[name]) for name, text in words.items()}
