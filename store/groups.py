"""Zarr v3 groups, written by hand: their file must appear last and whole, and carries bmla's attributes."""

from typing import Any

from .errors import StoreError
from .place import Place
from .sealing import read_json, to_json


def write_group(place: Place, key: str, attributes: dict[str, Any] | None) -> None:
    """Writes a group's metadata; `attributes` go under the name "bmla"."""
    content = {"zarr_format": 3, "node_type": "group", "attributes": {"bmla": attributes} if attributes else {}}
    place.write(key_of(key), to_json(content))


def read_attributes(place: Place, key: str) -> Any:
    """The attribute "bmla" of a group, unchecked; None without one.

    Raises:
        FileNotFoundError: there is no group.
        StoreError: the file is not a Zarr v3 group's.
    """
    content = read_json(place, key_of(key))
    fixed = {k: content.get(k) for k in ("zarr_format", "node_type")} if isinstance(content, dict) else {}
    attributes = content.get("attributes") if fixed else None
    if fixed != {"zarr_format": 3, "node_type": "group"} or not isinstance(attributes, dict):
        raise StoreError(f"{place}/{key_of(key)}: damaged, or no Zarr v3 group")
    return attributes.get("bmla")


def key_of(group: str) -> str:
    return f"{group}/zarr.json" if group else "zarr.json"
