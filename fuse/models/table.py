"""Every model by name: which modalities it takes, what it is, and where it comes from.

Importing this file is light: a model's own file, and torch with it, is imported when it is built.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from ...store.errors import UnknownName, UsageError
from .kinds import PIXELS, STACKS, VECTORS, describe

if TYPE_CHECKING:
    from ..config import RunConfig
    from .base import FusionModel, Input
    from .own import Builder


@dataclass(frozen=True)
class ModelEntry:
    """One line of the table.

    Attributes:
        takes: modalities, audio first.
        summary: one line for a person.
        source: where the paper has it (sections, figures and tables), or who proposed it.
        file: the file of this folder whose `build` makes it.
        reads: the settings that it looks at, of those that not every model does.
        heads: each modality has an answer of its own (`Output.audio`, `Output.visual`), trained by a loss of its own.
        starts: the runs of one modality that it starts from, by modality.
        kinds: what a step of its streams may be, the best first; see `kinds.py`.
    """

    takes: tuple[str, ...]
    summary: str
    source: str
    file: str
    reads: tuple[str, ...] = ()
    heads: bool = False
    starts: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = (VECTORS, PIXELS, STACKS)


BOTH = ("audio", "visual")
RATIO = ("ratio", "ratio_mode")
HEAD = ("head", "cosine_scale")
LAMBDAS = ("lambda_audio", "lambda_visual")
PARTS = ("brff", "adf", "clw", "gate_input", "gate_augment", "mix")
PRETRAINING = ("pretrain_epochs", "pretrain_lr")
FINETUNING = ("finetune_epochs", "finetune_lr")
BRFF = ("attention", "brff_layers")
GRU = ("gru_units", "gru_layers", "dropout")
FRONT = ("front_width", "resnet_depth", "crop", "flip", "time_mask", "mixup")
ENCODER = ("width", "layers", "heads", "dropout", "norm", "convolution", *FRONT)
ANYTHING = (PIXELS, STACKS, VECTORS)
PROBE = ("probe_width", "probe_mean")
BRANCHES = {"audio": "balancemla-ao", "visual": "balancemla-vo"}
MODELS: dict[str, ModelEntry] = {
    "transformer-ao": ModelEntry(
        ("audio",), "Transformer on sound alone", "Sec. 3.1, Fig. 1a, Table 1", "transformer", ENCODER
    ),
    "transformer-vo": ModelEntry(
        ("visual",), "Transformer on sight alone", "Sec. 3.1, Fig. 1a, Table 1", "transformer", ENCODER
    ),
    "transformer": ModelEntry(
        BOTH,
        "Transformer on both, concatenated in the proportion of --ratio",
        "Sec. 3.1, Fig. 1, Table 1",
        "transformer",
        (*ENCODER, *RATIO),
    ),
    "balancemla-ao": ModelEntry(
        ("audio",),
        "BalanceMLA's audio branch, trained alone",
        "Sec. 4.1.2, Tables 1-2",
        "balancemla",
        (*ENCODER, *RATIO, *HEAD),
    ),
    "balancemla-vo": ModelEntry(
        ("visual",),
        "BalanceMLA's visual branch, trained alone",
        "Sec. 4.1.2, Tables 1-2",
        "balancemla",
        (*ENCODER, *RATIO, *HEAD),
    ),
    "balancemla": ModelEntry(
        BOTH,
        "both branches, joined by bilateral residual fusion (BRFF), adaptive (ADF) and class-level (CLW) weights",
        "Sec. 3.2, Fig. 2-3, Tables 1-3",
        "balancemla",
        (*ENCODER, *RATIO, *HEAD, *LAMBDAS, *BRFF, *PARTS, *PRETRAINING, *FINETUNING),
        heads=True,
        starts=BRANCHES,
    ),
    "stconv-ao": ModelEntry(
        ("audio",),
        "3-D convolution and ResNet-34 on the log-spectrogram cube",
        "Sec. 4.2, Table 1",
        "bgru",
        (*FRONT, *FINETUNING),
        kinds=(STACKS, PIXELS),
    ),
    "stconv-vo": ModelEntry(
        ("visual",),
        "3-D convolution and ResNet-34 on mouth or face crops",
        "Sec. 4.2, Table 1",
        "bgru",
        (*FRONT, *FINETUNING),
        kinds=(PIXELS, STACKS),
    ),
    "stconv": ModelEntry(
        BOTH,
        "that front end on the cube and one on crops, their means over time side by side",
        "Sec. 4.2, Table 1; how both are joined is ours",
        "bgru",
        (*FRONT, *FINETUNING),
        kinds=(PIXELS, STACKS),
    ),
    "bgru-ao": ModelEntry(
        ("audio",),
        "3-D convolution, ResNet-34 and a 2-layer bidirectional GRU on the cube; or that GRU on cached vectors",
        "Sec. 4.2, Table 1, after Chung et al. (2014)",
        "bgru",
        (*FRONT, *GRU, *FINETUNING),
        kinds=ANYTHING,
    ),
    "bgru-vo": ModelEntry(
        ("visual",),
        "the same on crops or cached vectors",
        "Sec. 4.2, Table 1, after Chung et al. (2014)",
        "bgru",
        (*FRONT, *GRU, *FINETUNING),
        kinds=ANYTHING,
    ),
    "bgru": ModelEntry(
        BOTH,
        "front ends on both, concatenated step by step, and one 2-layer bidirectional GRU; or that on cached vectors",
        "Sec. 4.2, Table 1; how both are joined is ours",
        "bgru",
        (*FRONT, *GRU, *FINETUNING),
        kinds=ANYTHING,
    ),
    "concat": ModelEntry(
        BOTH,
        "Con: a bidirectional GRU for each stream, and one over both side by side",
        "Table 1, Fig. 3, after Petridis et al. (2018)",
        "concat",
        (*GRU, *FRONT, *FINETUNING),
    ),
    "single-res": ModelEntry(
        BOTH,
        "Single-Res: only sound attends to sight; sound's encoder answers",
        "Table 1, Fig. 3, after Sterpu et al. (2018)",
        "single_res",
        (*ENCODER, *BRFF, *FINETUNING),
    ),
    "probe-ao": ModelEntry(
        ("audio",),
        "linear probe of a network's layers, weighted, on sound",
        "Table 2, after Tseng et al. (2024)",
        "probe",
        (*PROBE, *FINETUNING),
        kinds=(STACKS, VECTORS),
    ),
    "probe-vo": ModelEntry(
        ("visual",),
        "the same on sight",
        "Table 2, after Tseng et al. (2024)",
        "probe",
        (*PROBE, *FINETUNING),
        kinds=(STACKS, VECTORS),
    ),
    "probe": ModelEntry(
        BOTH,
        "the same on both, side by side",
        "Table 2, after Tseng et al. (2024)",
        "probe",
        (*PROBE, *FINETUNING),
        kinds=(STACKS, VECTORS),
    ),
    "logit-average": ModelEntry(
        BOTH,
        "the mean of what balancemla-ao and balancemla-vo say, each trained alone",
        "the plainest baseline",
        "average",
        (*ENCODER, *HEAD, *PRETRAINING),
        heads=True,
        starts=BRANCHES,
    ),
    "joint": ModelEntry(
        BOTH,
        "late fusion: an encoder for each modality, one head on both (linear, or cosine)",
        "Peng et al. (2022); Xu et al. (2023)",
        "joint",
        (*ENCODER, *HEAD, *LAMBDAS, *FINETUNING),
    ),
    "joint-aux": ModelEntry(
        BOTH,
        "late fusion with a head and a loss for each modality as well",
        "Wang et al. (2020)",
        "joint",
        (*ENCODER, *HEAD, *LAMBDAS, *FINETUNING),
        heads=True,
    ),
    "shared-head": ModelEntry(
        BOTH,
        "one head for either modality, answers weighted by their certainty: the network of MLA",
        "Zhang et al. (2024)",
        "average",
        (*ENCODER, *HEAD, *FINETUNING),
        heads=True,
    ),
    "gated": ModelEntry(
        BOTH,
        "gated multimodal unit: each feature from either modality, in a share that depends on both",
        "Arevalo et al. (2017)",
        "gated",
        (*ENCODER, *LAMBDAS, *FINETUNING),
    ),
    "film": ModelEntry(
        BOTH,
        "sight scales and shifts each feature of sound",
        "Perez et al. (2018)",
        "film",
        (*ENCODER, *FINETUNING),
    ),
}


OWN = "own:"  # begins the name of a model that is not of this table; see `own.py`
OWN_NAME = re.compile(rf"{OWN}[A-Za-z0-9_.:-]{{1,100}}")
OWN_READS = ("own", *HEAD, *LAMBDAS, *FINETUNING)


def entry(name: str) -> ModelEntry:
    """One of the table, or of a model of the user's own: as in the table, -ao and -vo end the names of those of one modality.

    Raises:
        UnknownName: lists the models that there are.
    """
    if OWN_NAME.fullmatch(name):
        modalities = {"-ao": ("audio",), "-vo": ("visual",)}.get(name[-3:], BOTH)
        return ModelEntry(modalities, "a model of one's own", "-", "own", OWN_READS)
    if name not in MODELS:
        raise UnknownName("model", name, tuple(MODELS))
    return MODELS[name]


def takes(name: str) -> tuple[str, ...]:
    """The modalities that a model takes, audio first."""
    return entry(name).takes


def common_kinds(names: Sequence[str], modality: str) -> tuple[str, ...]:
    """What a step of one modality may be, so that all of some models take it, the best first.

    Those are vectors, where any of the models would rather have them and all take them. There is one for any models, since all take
    stacks. Vectors, where no model is named.
    """
    users = [name for name in names if modality in takes(name)]
    if not users:
        return (VECTORS,)
    first = next((name for name in users if entry(name).kinds[0] == VECTORS), users[0])
    return tuple(kind for kind in entry(first).kinds if all(kind in entry(name).kinds for name in users))


def check_inputs(name: str, inputs: "Mapping[str, Input]") -> None:
    """Raises UsageError where a model does not take what one step of a stream is."""
    for modality in takes(name):
        if inputs[modality].kind not in entry(name).kinds:
            shape = " x ".join(map(str, inputs[modality].layout))
            raise UsageError(
                f"{name} takes {describe(entry(name).kinds)}, but a step of the {modality} stream is {shape}"
                f"{' pixels' if inputs[modality].pixels else ''}"
            )


def build(
    config: "RunConfig", inputs: "Mapping[str, Input]", classes: int, builder: "Builder | None" = None
) -> "FusionModel":
    """Makes a model with fresh weights, drawn from torch's global generator.

    Args:
        inputs: for each modality that the model takes, what one step of its stream is.
        classes: C.
        builder: of a model of the user's own; see `own.py`.

    Raises:
        UsageError: it does not take what a step of a stream is, or is a model of the user's own and no builder was given.
    """
    check_inputs(config.model, inputs)
    module = import_module(f".{entry(config.model).file}", __package__)
    if config.model.startswith(OWN):
        if builder is None:
            raise UsageError(
                f"{config.model}: a run keeps no code: give the class again, as in load_run(path, model=…)"
                + (f", here {config.own.split()[0]}" if config.own else "")
            )
        own: FusionModel = module.build(config, inputs, classes, builder)
        return own
    model: FusionModel = module.build(config, inputs, classes)
    model.inputs = {m: inputs[m] for m in takes(config.model)}
    return model
