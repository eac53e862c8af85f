"""The words of `bmla fuse` that span a sweep: each becomes the values of one of its axes, or one clear line."""

from typing import TYPE_CHECKING, Any

from ..store.errors import UnknownName, UsageError
from .options import key_values, split_names

if TYPE_CHECKING:
    from ..fuse.condition import Condition
    from ..fuse.config import RunConfig

NOTHING = "none"
MOST_NUMBERS = 100_000  # of a range: what is more is a slip of the pen


def some(option: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Raises UsageError where an option that spans an axis names nothing: the sweep would have no run."""
    if not names:
        raise UsageError(f"{option}: nothing is named; give at least one, or leave the option out")
    return names


def check_models(names: tuple[str, ...]) -> None:
    """Raises UnknownName, or UsageError for none, before anything is loaded."""
    from ..fuse.models.table import entry

    for name in some("--model", names):
        entry(name)


def check_balances(names: tuple[str, ...]) -> tuple[str, ...]:
    """Raises UnknownName for a balance method that there is not, UsageError for none."""
    from ..fuse.balance.table import entry

    for name in some("--balance", names):
        entry(name)
    return names


def needed_modalities(names: tuple[str, ...]) -> tuple[str, ...]:
    from ..fuse.models.table import takes

    return tuple(m for m in ("audio", "visual") if any(m in takes(name) for name in names))


def seed_numbers(values: tuple[str, ...]) -> tuple[int, ...]:
    """3, or 0..9 for all of them. Raises UsageError for a word that is no whole number."""
    return whole_numbers("--seed", values)


def fold_numbers(values: tuple[str, ...], folds: int) -> tuple[int, ...]:
    """Raises UsageError for a fold that there is not, and for one of no cross-validation."""
    if folds == 0 and set(values) != {"all"}:
        raise UsageError(f"--fold {','.join(values)}: of how many? Say that with --folds")
    if folds == 0 or "all" in values:
        return tuple(range(max(folds, 1)))
    numbers = whole_numbers("--fold", values)
    if bad := [n for n in numbers if n >= folds]:
        raise UsageError(f"--fold {bad[0]}: expected 0 to {folds - 1} of {folds} folds, or all")
    return numbers


def whole_numbers(option: str, values: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers and ranges A..B, both ends included. Raises UsageError for anything else."""
    found: list[int] = []
    for word in some(option, split_names(values)):
        first, dots, last = word.partition("..")
        if not all(w.isascii() and w.isdigit() for w in ((first, last) if dots else (first,))):
            raise UsageError(f'{option}: "{word}" is no whole number of at least 0, nor a range such as 0..9')
        count = int(last) - int(first) + 1 if dots else 1
        if count < 1:
            raise UsageError(f'{option}: "{word}" counts down; expected the smaller number first, such as 0..9')
        if count > MOST_NUMBERS:
            raise UsageError(f'{option}: "{word}" is a range of more than {MOST_NUMBERS} numbers')
        found += range(int(first), int(first) + count)
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

    from ..fuse.condition import JOIN, expand, hides, parse_condition

    names: list[str] = []
    for value in tests:
        words = [word.strip() for word in value.split(JOIN.strip())]
        parts = [[word] if hides(word) else expand([word], there, streams.values()) for word in words]
        names += [JOIN.join(together) for together in product(*parts)]
    names += [hidden_name(word) for word in split_names(dropped)]
    found = tuple(dict.fromkeys(map(parse_condition, names)))
    for condition in found:
        for modality in condition.hidden:
            if noisy := [v for v in condition.variants if v.partition("@")[0] == streams.get(modality)]:
                raise UsageError(f'test condition "{condition}": {noisy[0]} is not heard or seen with no {modality}')
    return found


def hidden_name(modality: str) -> str:
    """What the test without a modality is called. Raises UnknownName."""
    from ..fuse.condition import HIDE
    from ..fuse.models.base import MODALITIES

    if modality not in MODALITIES:
        raise UnknownName("modality", modality, MODALITIES)
    return HIDE + modality


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
AXES |= {"fold_by": "--fold-by", "gate_augment": "--gate-augment", "own": "--model", "tasks": "--tasks"}
AXES |= dict.fromkeys(("brff", "adf", "clw"), "--without")


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
        given = options.get(name)
        if given is not None and given is not False:  # a flag that is not given
            raise UsageError(f"--set {name}: --{name.replace('_', '-')} says it already")
    return values


def removed_parts(values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """One setting a value. Raises UnknownName for a part that BalanceMLA does not have."""
    from ..fuse.config import PARTS

    settings = [tuple(p for p in split_names([value]) if p != NOTHING) for value in values] or [()]
    for part in (p for setting in settings for p in setting):
        if part not in PARTS:
            raise UnknownName("part of BalanceMLA", part, (*PARTS, NOTHING))
    return tuple(settings)
