"""The runs that a run needs first: those of one modality that it starts from, or that its balance method learns from."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from .balance.table import entry as balance_entry
from .canonical import TEACHERS, canonical
from .config import RunConfig
from .models.table import entry as model_entry


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
    names = model_entry(config.model).starts or TEACHERS
    return {m: alone(config, name, config.epochs or config.finetune_epochs, config.lr) for m, name in names.items()}


def prerequisites(config: RunConfig) -> list[RunConfig]:
    """The runs that must be there before a run, each once."""
    return list(dict.fromkeys([*starting_points(config).values(), *teachers(config).values()]))


def ready(waiting: Mapping[RunConfig, Collection[RunConfig]], running: Iterable[RunConfig]) -> list[RunConfig]:
    """Those that need none of the others that still wait or run.

    Args:
        waiting: with what each of them needs.
    """
    unfinished = {*waiting, *running}
    return [config for config, needed in waiting.items() if unfinished.isdisjoint(needed)]


def pretraining(config: RunConfig, modality: str) -> RunConfig:
    """The run whose best weights a run starts one branch from; the same for all that can share it."""
    return alone(config, model_entry(config.model).starts[modality], config.pretrain_epochs, config.pretrain_lr)


def alone(config: RunConfig, model: str, epochs: int, lr: float) -> RunConfig:
    """The same settings for a model of one modality."""
    phases: dict[str, Any] = {"pretrain_epochs": 0, "epochs": epochs, "lr": lr, "finetune_epochs": 0}
    return canonical(replace(config, model=model, balance="none", **phases))
