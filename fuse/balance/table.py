"""Every balance method by name: what it does, and who proposed it.

Importing this file is light: a method's own file, and torch with it, is imported when it is built.
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...store.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config import RunConfig
    from ..models.base import FusionModel
    from .base import Balance


@dataclass(frozen=True)
class BalanceEntry:
    """One line of the table.

    Attributes:
        summary: one line for a person.
        source: who proposed it, and where.
        file: the file of this folder whose `build` makes it.
        reads: the settings that it looks at.
        sets: what it sets of the settings that every run or the model looks at; the user's wish goes before it.
        models: the models that it works with; empty: all that take both modalities.
        heads: only models whose modalities have answers of their own.
        teachers: it learns from trained models of one modality, which are trained first.
    """

    summary: str
    source: str
    file: str
    reads: tuple[str, ...] = ()
    sets: "Mapping[str, Any]" = field(default_factory=dict)
    models: tuple[str, ...] = ()
    heads: bool = False
    teachers: bool = False


BALANCES: dict[str, BalanceEntry] = {
    "none": BalanceEntry("the model's own loss, nothing else", "-", "none"),
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
    """
    module = import_module(f".{entry(config.balance).file}", __package__)
    balance: Balance = module.build(config, model, classes, teachers)
    return balance
