"""What a pulled store was pulled from, and which shards are finished there: so that it knows what it lacks."""

from dataclasses import dataclass

from .errors import StoreError
from .place import Place
from .sealing import read_json, sealed, to_json, unsealed

KEY = "origin.json"


@dataclass(frozen=True)
class Origin:
    """Attributes:
    source: the URL it came from; "" for a path, which would be one of another machine.
    shards: per stream, the shards that the source had finished.
    """

    source: str
    shards: dict[str, tuple[int, ...]]


def read_origin(place: Place) -> Origin | None:
    """None where the store was not pulled. Raises StoreError where the record is damaged."""
    try:
        raw = unsealed(read_json(place, KEY), f"{place}/{KEY}")
    except FileNotFoundError:
        return None
    try:
        shards = {str(stream): tuple(int(n) for n in numbers) for stream, numbers in raw["shards"].items()}
        return Origin(str(raw["source"]), shards)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{place}/{KEY}: damaged ({error})") from error


def write_origin(place: Place, origin: Origin) -> None:
    place.write(
        KEY, to_json(sealed({"source": origin.source, "shards": {k: list(v) for k, v in origin.shards.items()}}))
    )
