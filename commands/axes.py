"""The words of `bmla fuse` that span a sweep: each becomes the values of one of its axes, or one clear line."""

from typing import TYPE_CHECKING, Any

from ..store.errors import UsageError
from .options import key_values, split_names

if TYPE_CHECKING:
    from ..fuse.condition import Condition
    from ..fuse.config import RunConfig

NOTHING = "none"


def check_models(names: tuple[str, ...]) -> None:
    """Raises UnknownName, before anything is loaded."""
    from ..fuse.models.table import entry

    for name in names:
        entry(name)


def check_balances(names: tuple[str, ...]) -> tuple[str, ...]:
    """Raises UnknownName for a balance method that there is not."""
    from ..fuse.balance.table import entry

    for name in names:
        entry(name)
    return names


def needed_modalities(names: tuple[str, ...]) -> tuple[str, ...]:
    from ..fuse.models.table import takes

    return tuple(m for m in ("audio", "visual") if any(m in takes(name) for name in names))


def seed_numbers(values: tuple[str, ...]) -> tuple[int, ...]:
    """3, or 0..9 for all of them. Raises UsageError for a word that is no whole number."""
    return whole_numbers("--seed", values)


def fold_numbers(values: tuple[str, ...], folds: int) -> tuple[int, ...]:
    """Raises UsageError for a fold that there is not."""
    if folds == 0 or values == ("all",):
        return tuple(range(max(folds, 1)))
    numbers = whole_numbers("--fold", values)
    if bad := [n for n in numbers if n >= folds]:
        raise UsageError(f"--fold {bad[0]}: expected 0 to {folds - 1} of {folds} folds, or all")
    return numbers


def whole_numbers(option: str, values: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers and ranges A..B, both ends included. Raises UsageError for anything else."""
    found: list[int] = []
    for word in split_names(values):
        first, dots, last = word.partition("..")
        if not all(w.isascii() and w.isdigit() for w in ((first, last) if dots else (first,))):
            raise UsageError(f'{option}: "{word}" is no whole number of at least 0, nor a range such as 0..9')
        found += range(int(first), int(last) + 1) if dots else [int(first)]
    return tuple(dict.fromkeys(found))


def training_noises(values: tuple[str, ...], there: list[str], streams: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """One setting a value: the noise variants to train with. there: the names of all streams that can be asked for."""
    from ..fuse.condition import expand

    return tuple(() if value == NOTHING else tuple(expand([value], there, streams.values())) for value in values) or (
        (),
    )


def test_conditions(
    tests: tuple[str, ...], dropped: tuple[str, ...], there: list[str], streams: dict[str, str]
) -> "tuple[Condition, ...]":
    """What is tested under besides clean: every variant that a pattern fits is one; what is joined by + is one together."""
    from itertools import product

    from ..fuse.condition import JOIN, expand, parse_condition

    names: list[str] = []
    for value in tests:
        parts = [expand([word], there, streams.values()) for word in value.split(JOIN.strip())]
        names += [JOIN.join(together) for together in product(*parts)]
    names += [f"no-{modality}" for modality in dropped]
    return tuple(parse_condition(name) for name in dict.fromkeys(names))


def noises_of(configs: "list[RunConfig]", conditions: "tuple[Condition, ...]") -> list[str]:
    """All noise variants that are read."""
    used = [
        *(name for c in configs for name in (*c.augment, *c.gate_augment)),
        *(name for c in conditions for name in c.variants),
    ]
    return list(dict.fromkeys(used))


# The settings that have an option which spans an axis of the sweep.
AXES = {
    name: f"--{name}" for name in ("model", "audio", "visual", "seed", "ratio", "balance", "augment", "folds", "fold")
}
AXES |= {"fold_by": "--fold-by"} | dict.fromkeys(("brff", "adf", "clw"), "--without")


def set_values(words: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """What --set says, by field.

    Args:
        options: the settings that have options of their own, None where not given.

    Raises:
        UnknownName, UsageError: no such setting or value, or one that an option says.
    """
    from ..fuse.config import parse_settings

    values = parse_settings(key_values("--set", words))
    for name in values:
        if name in AXES:
            raise UsageError(f"--set {name}: say it with {AXES[name]}")
        if options.get(name):
            raise UsageError(f"--set {name}: --{name.replace('_', '-')} says it already")
    return values


def removed_parts(values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """One setting a value. Raises UnknownName for a part that BalanceMLA does not have."""
    from ..fuse.config import PARTS
    from ..store.errors import UnknownName

    settings = [tuple(p for p in split_names([value]) if p != NOTHING) for value in values] or [()]
    for part in (p for setting in settings for p in setting):
        if part not in PARTS:
            raise UnknownName("part of BalanceMLA", part, (*PARTS, NOTHING))
    return tuple(settings)
