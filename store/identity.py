"""What a store is made from: kept as the attribute "bmla" of its root group, sealed, written last at creation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import StoreError, StoreNotFound
from .groups import read_attributes, write_group
from .place import Place
from .sealing import sealed, unsealed

FORMAT = 1
LARGEST_CLIPS, LARGEST_SHARDS = 1 << 31, 1 << 20  # what a stranger's store may claim before anything of it is counted
TYPES = {
    "dataset": str,
    "task": str,
    "classes": list,
    "options": dict,
    "shard_size": int,
    "clips": int,
    "clips_digest": str,
    "clips_file": dict,
}


@dataclass(frozen=True)
class Identity:
    """What a store is made from; two stores join only where this agrees.

    Attributes:
        dataset: the adapter's name.
        task: such as "lip reading".
        classes: class names; the index is the position.
        options: the choices that shaped the clip list.
        shard_size: clips a shard.
        clips: N.
        clips_digest: of the clip table's values.
        clips_file: {"bytes", "sha256"} of clips.parquet.
    """

    dataset: str
    task: str
    classes: tuple[str, ...]
    options: dict[str, Any]
    shard_size: int
    clips: int
    clips_digest: str
    clips_file: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **vars(self), "classes": list(self.classes)}

    @property
    def shards(self) -> int:
        """How many shards every stream has."""
        return -(-self.clips // self.shard_size)

    def extent(self, shard: int) -> tuple[int, int]:
        """First clip of a shard and one past its last."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of a store with {self.shards}")
        return shard * self.shard_size, min((shard + 1) * self.shard_size, self.clips)

    @classmethod
    def from_dict(cls, raw: Any, where: str) -> "Identity":
        """Raises StoreNotFound or StoreError where these are not the attributes of a format 1 store."""
        if not isinstance(raw, dict) or "format" not in raw:
            raise StoreNotFound(f"{where}: a Zarr group, but no bmla store (it lacks the attribute bmla.format)")
        if raw["format"] != FORMAT:
            raise StoreError(
                f"{where}: a store of format {raw['format']!r}; this bmla reads format {FORMAT}: use a newer one"
            )
        raw = unsealed(raw, f"{where}/zarr.json")
        for key, kind in TYPES.items():
            if type(raw.get(key)) is not kind:
                raise StoreError(f"{where}: damaged: bmla.{key} is {raw.get(key)!r}, expected {kind.__name__}")
        identity = cls(**{**{key: raw[key] for key in TYPES}, "classes": tuple(raw["classes"])})
        counts = 1 <= identity.clips <= LARGEST_CLIPS and 1 <= identity.shard_size <= LARGEST_CLIPS
        if not counts or identity.shards > LARGEST_SHARDS or not all(isinstance(c, str) for c in identity.classes):
            raise StoreError(f"{where}: damaged: bmla.shard_size, bmla.clips or bmla.classes can't be")
        return identity


def read_identity(place: Place) -> Identity:
    """Raises StoreNotFound where there is no store, StoreError where its metadata is damaged."""
    try:
        attributes = read_attributes(place, "")
    except (FileNotFoundError, NotADirectoryError) as error:
        there = place.names("") or place.folders("")
        what = "a folder, but no store (no zarr.json in it)" if there else "nothing here"
        raise StoreNotFound(f"{place}: {what}: expected a feature store, as `bmla extract --store` makes it") from error
    return Identity.from_dict(attributes, str(place))


def write_identity(place: Place, identity: Identity) -> None:
    write_group(place, "", sealed(identity.to_dict()))


def default_shard_size(clips: int) -> int:
    """Clips a shard: a power of two; 256 for large data sets, fewer for small ones (about 16 shards), 8 at the least."""
    return int(np.clip(2 ** int(np.log2(max(clips / 16, 1))), 8, 256))
