"""A stream's head: its specification and shape, kept as the attribute "bmla" of its group, sealed.

Written after the metadata of the stream's arrays, whose digests it holds: a stream exists once its head does.
"""

from dataclasses import dataclass
from typing import Any

from .errors import StoreError
from .groups import read_attributes, write_group
from .place import Place
from .sealing import sealed, unsealed
from .spec import StreamSpec

COMPRESSIONS = ("none", "zstd")
LARGEST_STEPS = 1 << 24  # 46 hours at 100 a second


@dataclass(frozen=True)
class Head:
    """Attributes:
    spec: what shaped the numbers.
    steps: T, of the longest clip that the arrays can hold.
    compression: "none" or "zstd".
    arrays: SHA-256 of each array's zarr.json.
    """

    spec: StreamSpec
    steps: int
    compression: str
    arrays: dict[str, str]


def write_head(place: Place, head: Head) -> None:
    content = {**vars(head), "spec": head.spec.to_dict()}
    write_group(place, f"streams/{head.spec.name}", sealed(content))


def read_head(place: Place, stream: str) -> Head:
    """Raises FileNotFoundError where there is no such stream, StoreError where its head is damaged."""
    where = f"{place}/streams/{stream}/zarr.json"
    raw: dict[str, Any] = unsealed(read_attributes(place, f"streams/{stream}"), where)
    try:
        head = Head(StreamSpec.from_dict(raw["spec"]), raw["steps"], raw["compression"], dict(raw["arrays"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{where}: damaged ({type(error).__name__}: {error})") from error
    if head.spec.name != stream:
        raise StoreError(f"{where}: the specification is that of {head.spec.name}: the place was renamed")
    if type(head.steps) is not int or not 1 <= head.steps <= LARGEST_STEPS or head.compression not in COMPRESSIONS:
        raise StoreError(f"{where}: damaged: steps {head.steps!r}, compression {head.compression!r}")
    return head
