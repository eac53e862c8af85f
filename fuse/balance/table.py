"""Every balance method by name: what it does, and who proposed it.

Importing this file is light: a method's own file, and torch with it, is imported when it is built.
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...store.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config import RunConfig
    from ..models.base import FusionModel
    from .base import Balance


NEEDS = {
    "answers": 'logits of each modality alone (the keys "audio" and "visual")',
    "features": 'features of each modality (the keys "audio_features" and "visual_features")',
    "parts": "parameters of each modality's own (named audio… and visual…)",
    "head": "an nn.Linear named head that the features of both go through",
}


@dataclass(frozen=True)
class BalanceEntry:
    """One line of the table.

    Attributes:
        summary: one line for a person.
        source: who proposed it, and where.
        file: the file of this folder whose `build` makes it.
        reads: the settings that it looks at.
        sets: what it sets of the settings that every run or the model looks at; the user's wish goes before it.
        only: settings of the model that it needs to be so, whatever the user wishes.
        models: the models that it works with; empty: all that take both modalities.
        needs: of the model, of NEEDS.
        teachers: it learns from trained models of one modality, which are trained first.
    """

    summary: str
    source: str
    file: str
    reads: tuple[str, ...] = ()
    sets: "Mapping[str, Any]" = field(default_factory=dict)
    only: "Mapping[str, Any]" = field(default_factory=dict)
    models: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    teachers: bool = False

    @property
    def heads(self) -> bool:
        """Only models whose modalities have answers of their own, and pooled features."""
        return "answers" in self.needs or "features" in self.needs


BALANCES: dict[str, BalanceEntry] = {
    "none": BalanceEntry("the model's own loss, nothing else", "-", "none"),
    "joint-aux": BalanceEntry(
        "a loss of its own on each modality's answer",
        "Wang et al. (2020), Du et al. (2023)",
        "none",
        sets={"lambda_audio": 1.0, "lambda_visual": 1.0},
        needs=("answers",),
    ),
    "mmcosine": BalanceEntry(
        "MMCosine: a head of cosines, so that no modality wins by its norm",
        "Xu et al. (2023), ICASSP",
        "none",
        sets={"head": "cosine"},
        models=("joint",),
        needs=("features",),
    ),
    "ogm": BalanceEntry(
        "OGM: the update of the modality that is ahead shrinks",
        "Peng et al. (2022), CVPR",
        "ogm",
        ("ogm_alpha",),
        needs=("parts",),
    ),
    "ogm-ge": BalanceEntry(
        "OGM-GE: the same, with noise on the gradients",
        "Peng et al. (2022), CVPR",
        "ogm",
        ("ogm_alpha",),
        needs=("parts",),
    ),
    "agm": BalanceEntry(
        "AGM: updates grow or shrink by how unusual a modality's lead is, by Shapley values",
        "Li et al. (2023), ICCV",
        "agm",
        ("agm_alpha",),
        needs=("parts",),
    ),
    "pmr": BalanceEntry(
        "PMR: the weaker modality is also taught by class prototypes",
        "Fan et al. (2023), CVPR",
        "pmr",
        ("pmr_alpha", "pmr_momentum", "pmr_entropy", "pmr_entropy_epochs"),
        needs=("features",),
    ),
    "mmpareto": BalanceEntry(
        "MMPareto: a step that harms neither the fused loss nor the modality's own",
        "Wei and Hu (2024), ICML",
        "mmpareto",
        ("mmpareto_lift",),
        needs=("answers", "parts"),
    ),
    "g-blending": BalanceEntry(
        "G-Blending: losses weighed by how much of what they teach generalises",
        "Wang et al. (2020), CVPR",
        "g_blending",
        ("gblend_epochs",),
        sets={"holdout": 0.1},
        needs=("answers",),
    ),
    "umt": BalanceEntry(
        "UMT: features drawn towards those of teachers of one modality",
        "Du et al. (2023), ICML",
        "umt",
        ("umt_weight",),
        teachers=True,
        needs=("features",),
    ),
    "modality-dropout": BalanceEntry(
        "one modality of some clips is hidden while training",
        "Neverova et al. (2016), TPAMI",
        "none",
        sets={"modality_dropout": 0.15},
    ),
    "opm": BalanceEntry(
        "OPM: the modality that is ahead is hidden, the more the further it is ahead",
        "Wei et al. (2024), TPAMI",
        "opm",
        ("opm_base", "opm_slope", "opm_share"),
    ),
    "mla": BalanceEntry(
        "MLA: modalities in turn, through a shared head that keeps what the other one reads",
        "Zhang et al. (2024), CVPR",
        "mla",
        ("mla_alpha",),
        only={"head": "linear"},
        models=("shared-head",),
        needs=("answers", "features", "head"),
    ),
    "adaptive": BalanceEntry(
        "each modality's loss weighs what it has still to learn, its update shrinks as it memorises",
        "ours",
        "adaptive",
        ("adaptive_smoothing", "adaptive_floor"),
        sets={"holdout": 0.1, "lambda_audio": 1.0, "lambda_visual": 1.0},
        needs=("answers", "parts"),
    ),
}


def entry(name: str) -> BalanceEntry:
    """Raises UnknownName, listing the methods that there are."""
    if name not in BALANCES:
        raise UnknownName("balance method", name, tuple(BALANCES))
    return BALANCES[name]


def build(config: "RunConfig", model: "FusionModel", classes: int, teachers: "Mapping[str, FusionModel]") -> "Balance":
    """Makes a method with nothing remembered yet.

    Args:
        model: that it will balance.
        classes: C.
        teachers: trained models of one modality each, for the methods that learn from them.

    Raises:
        UsageError: a model of the user's own does not give what the method needs.
    """
    gives = model.gives()
    if gives is not None and (lacking := [NEEDS[n] for n in entry(config.balance).needs if n not in gives]):
        raise UsageError(f"balance {config.balance} needs {' and '.join(lacking)}: {config.model} has none")
    module = import_module(f".{entry(config.balance).file}", __package__)
    balance: Balance = module.build(config, model, classes, teachers)
    return balance
