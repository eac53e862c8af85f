"""An encoder's own parameters, given as names and values, as its frozen dataclass of options."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from ...store.errors import UsageError

Options = TypeVar("Options")


def options_from(kind: type[Options], values: Mapping[str, Any] | None, stream: str) -> Options:
    """Builds the dataclass `kind`, with its defaults where a value is not given.

    Raises:
        UsageError: for an unknown name or a value of another type, naming the stream and what was expected.
    """
    types = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    given = dict(values or {})
    for name, value in given.items():
        if name not in known:
            raise UsageError(f'{stream}: unknown parameter "{name}"; known: {", ".join(known) or "none"}')
        if types[name] is float and type(value) is int:
            given[name] = value = float(value)
        if not isinstance(value, types[name]) or isinstance(value, bool):  # True is an int to isinstance
            expected = getattr(types[name], "__name__", types[name])
            raise UsageError(f"{stream}: {name} is {value!r}, expected a value of type {expected}")
    return kind(**given)
