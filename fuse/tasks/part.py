"""One task of a training, and what tasks must have in common to be trained in one model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...store.errors import UsageError
from ..config import RunConfig
from ..data import Features
from ..learner import clips_of, set_apart
from .share import check_model

# All others are the same for every task.
OWN_SETTINGS = ("audio", "visual", "augment", "gate_augment", "noise_share", "tasks")


@dataclass(frozen=True)
class Part:
    """One task of a training.

    Attributes:
        name: for messages and figures.
        config: the same for all tasks, but for OWN_SETTINGS.
        features: with the splits to use (`Features.folded` has been called).
    """

    name: str
    config: RunConfig
    features: Features


def check_parts(parts: Sequence[Part]) -> None:
    """Raises UsageError unless these can be tasks of one model; see `train.train_together`."""
    if not parts:
        raise UsageError("a training of no tasks: give at least one")
    first = parts[0]
    check_model(first.config.model)
    names = [part.name for part in parts]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f'two tasks are called "{twice[0]}": expected a name of its own for each')
    for part in parts[1:]:
        common = {name: getattr(first.config, name) for name in OWN_SETTINGS}
        mine, theirs = replace(part.config, **common).to_dict(), first.config.to_dict()
        for name, value in mine.items():
            if value != theirs[name]:
                raise UsageError(
                    f"task {part.name}: {name.replace('_', ' ')} is {value}, but {theirs[name]} for task {first.name}: "
                    "one model has one setting for all its tasks"
                )
    for part in parts:
        for other in parts:
            check_apart(part, other)


def check_apart(part: Part, other: Part) -> None:
    """Raises UsageError where recordings that train one task choose or test the other, of the same data set."""
    if part is other or part.features.dataset != other.features.dataset:
        return
    trains = part.features.groups[part.features.split == "train"].astype(str)
    judges = other.features.groups[other.features.split != "train"].astype(str)
    if len(both := np.intersect1d(trains, judges)):
        raise UsageError(
            f"{len(both)} recordings, such as {both[0]}, train task {part.name} and choose or test task {other.name}: "
            "expected stores with the same splits"
        )


def divided(parts: Sequence[Part]) -> list[tuple[np.ndarray, np.ndarray]]:
    """By task: the clips to train on, and those that `config.holdout` keeps from it.

    Recordings that are set apart for one task are so for all tasks of the same data set: else they would train what is shared.

    Raises:
        UsageError: a split has no clips, or none are left to train on.
    """
    alone = [set_apart(clips_of(p.features, "train", p.config), p.features, p.config) for p in parts]
    apart: dict[str, set[str]] = {part.features.dataset: set() for part in parts}
    for part, (_, held) in zip(parts, alone, strict=True):
        apart[part.features.dataset].update(part.features.groups[held].astype(str))
    together = []
    for part, (train, held) in zip(parts, alone, strict=True):
        theirs = np.isin(part.features.groups[train].astype(str), list(apart[part.features.dataset]))
        if theirs.all():
            raise UsageError(
                f"task {part.name}: all of its training clips are of recordings that the holdout of another task sets apart: "
                "nothing would train it"
            )
        together.append((train[~theirs], np.union1d(held, train[theirs])))
    return together
