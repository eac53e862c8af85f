"""The values of settings: from the text of a command line, and from what a file says, each checked against the field's type."""

import types
from typing import Any, get_args

from ..store.errors import UsageError


def parsed_value(name: str, text: str, hint: Any) -> Any:
    """A field's value, said in words. Raises UsageError where it is of another type."""
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
