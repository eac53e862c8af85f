"""An adapter's own choices, typed or as text from the command line, as its frozen dataclass of options."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_type_hints

from ...store.errors import UsageError

Options = TypeVar("Options")

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def options_from(kind: type[Options], values: Mapping[str, Any], dataset: str) -> Options:
    """Builds the dataclass `kind`, whose fields are bool, int, float, str or a Literal of words.

    Raises:
        UsageError: for an unknown name or a value of another kind, naming the data set and what was expected.
    """
    types = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise UsageError(f'{dataset}: unknown option "{unknown[0]}"; known: {", ".join(known) or "none"}')
    return kind(**{name: _value(types[name], value, f"{dataset}: {name}") for name, value in values.items()})


def _value(kind: Any, value: Any, what: str) -> Any:
    words = get_args(kind)
    if words:
        if value not in words:
            raise UsageError(f"{what} is {value!r}, expected one of {', '.join(words)}")
        return value
    if isinstance(value, str) and kind is not str:
        try:
            return TRUTH[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError) as error:
            expected = "true or false" if kind is bool else f"a number ({kind.__name__})"
            raise UsageError(f"{what} is {value!r}, expected {expected}") from error
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{what} is {value!r}, expected a value of type {kind.__name__}")
    return value
