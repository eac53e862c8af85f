"""An encoder's own parameters, given as names and values or as words of a command line, as its frozen dataclass."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from ...store.errors import UsageError

Options = TypeVar("Options")


def options_from(kind: type[Options], values: Mapping[str, Any] | None, stream: str) -> Options:
    """Builds the dataclass `kind`, with its defaults where a value is not given.

    Raises:
        UsageError: for an unknown name, a value of another type or one that makes no sense, naming the stream and what
            was expected.
    """
    types = get_type_hints(kind)
    given = dict(values or {})
    for name, value in given.items():
        check_known(kind, name, stream)
        if types[name] is float and type(value) is int:
            given[name] = value = float(value)
        if not isinstance(value, types[name]) or isinstance(value, bool):  # True is an int to isinstance
            expected = getattr(types[name], "__name__", types[name])
            raise UsageError(f"{stream}: {name} is {value!r}, expected a value of type {expected}")
    try:
        return kind(**given)
    except UsageError as error:
        raise UsageError(f"{stream}: {error}") from error


def value_from(kind: type, name: str, text: str, stream: str) -> Any:
    """A parameter's value from its text, by the type of the dataclass's field.

    Raises:
        UsageError: for an unknown name or a text that is no such value.
    """
    check_known(kind, name, stream)
    wanted = get_type_hints(kind)[name]
    if wanted not in (int, float):
        return text
    try:
        return wanted(text)
    except ValueError as error:
        raise UsageError(f'{stream}: {name} is "{text}", expected a value of type {wanted.__name__}') from error


def check_known(kind: type, name: str, stream: str) -> None:
    known = list(defaults(kind))
    if name not in known:
        raise UsageError(f'{stream}: unknown parameter "{name}"; known: {", ".join(known) or "none"}')


def defaults(kind: type) -> dict[str, Any]:
    """The parameters with their defaults, in the dataclass's order."""
    return {f.name: f.default for f in fields(kind)}
