"""JSON that notices damage: stable bytes, and a seal (its own digest) inside."""

import hashlib
import json
from typing import Any

from .errors import StoreError
from .place import Place


def to_json(value: Any) -> bytes:
    """JSON text as it is stored: the same value gives the same bytes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_line(value: Any) -> bytes:
    """The same on one line: read in less time where there are thousands of files."""
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value, whatever its text's spacing and order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The value with its own digest under "seal": a flipped bit is found by whoever reads it."""
    return {**value, "seal": digest_json(value)}


def unsealed(value: Any, where: str) -> dict[str, Any]:
    """The value without its seal. Raises StoreError where the seal is missing or does not fit."""
    if not isinstance(value, dict) or "seal" not in value:
        raise StoreError(f"{where}: damaged: no seal")
    content = {k: v for k, v in value.items() if k != "seal"}
    if value["seal"] != digest_json(content):
        raise StoreError(f"{where}: damaged: its content does not match its seal")
    return content


def read_json(place: Place, key: str) -> Any:
    """Raises FileNotFoundError, or StoreError where the file holds no JSON."""
    return parse_json(place.read(key), f"{place}/{key}")


def parse_json(text: str | bytes, where: str) -> Any:
    """Raises StoreError where the text is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        raise StoreError(f"{where}: damaged: not JSON ({error})") from error
