"""A stream's four arrays: what their Zarr metadata must be, making them, and opening them once they are proven to be that.

The metadata of a store that somebody else made is compared with what this file would write, before zarr sees it: a
shape, a codec or a chunk size of a stranger's choosing never reaches a decoder.

Shape legend: N clips, S clips a shard, T steps the stream can hold, F the shape of one step's feature.
"""

import hashlib
import json
from functools import lru_cache
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from .errors import StoreError
from .head import Head
from .identity import Identity
from .place import Place
from .sealing import parse_json

ARRAYS = ("values", "length", "valid", "status")
CHUNK_STEPS = 64  # inner chunks past a clip's length are not stored, so padding costs no disk
ZSTD_LEVEL = 3
BINDING = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")


def array_key(stream: str, name: str) -> str:
    return f"streams/{stream}/{name}/zarr.json"


def file_key(head: Head, name: str, shard: int) -> str:
    """Where zarr keeps the one file of an array that belongs to a shard."""
    extra = {"values": 1 + len(head.spec.feature_shape), "valid": 1}.get(name, 0)
    return f"streams/{head.spec.name}/{name}/c/{shard}" + "/0" * extra


def create_arrays(place: Place, head: Head, identity: Identity) -> dict[str, str]:
    """Writes the metadata of the four arrays; returns the SHA-256 of each file."""
    digests = {}
    for name in ARRAYS:
        text = metadata_of(name, head, identity)
        place.write(array_key(head.spec.name, name), text)
        digests[name] = hashlib.sha256(text).hexdigest()
    return digests


def check_metadata(place: Place, head: Head, identity: Identity, name: str) -> str:
    """What is wrong with an array's metadata; "" where nothing is."""
    try:
        text = place.read(array_key(head.spec.name, name))
    except FileNotFoundError:
        return "missing: the array's metadata"
    try:
        found = parse_json(text, "the array's metadata")
    except StoreError as error:
        return str(error)
    if hashlib.sha256(text).hexdigest() != head.arrays.get(name):
        return "damaged: the array's metadata is not what the stream's head says"
    expected = json.loads(metadata_of(name, head, identity))
    wrong = [key for key in BINDING if not isinstance(found, dict) or found.get(key) != expected[key]]
    if wrong or not set(found) <= set(expected):
        return f"not an array of format 1: {', '.join(wrong) or 'unknown keys'} is not what the stream's head implies"
    return ""


def open_array(place: Place, head: Head, identity: Identity, name: str) -> "zarr.Array[Any]":
    """Raises StoreError where the metadata is not that of this stream's array."""
    if problem := check_metadata(place, head, identity, name):
        raise StoreError(f"{place}/{array_key(head.spec.name, name)}: {problem}")
    return zarr.open_array(place.zarr(), path=f"streams/{head.spec.name}/{name}", mode="r" if place.read_only else "r+")


def metadata_of(name: str, head: Head, identity: Identity) -> bytes:
    """The zarr.json of one of the arrays: a function of the head and of N and S alone."""
    spec = head.spec
    return _metadata(
        name, identity.clips, identity.shard_size, head.steps, spec.feature_shape, spec.dtype, head.compression
    )


@lru_cache(maxsize=64)
def _metadata(
    name: str, clips: int, size: int, steps: int, feature: tuple[int, ...], dtype: str, compression: str
) -> bytes:
    store = MemoryStore()
    if name == "values":
        chunk_steps = min(steps, CHUNK_STEPS)
        shard_steps = -(-steps // chunk_steps) * chunk_steps
        zarr.create_array(
            store,
            shape=(clips, steps, *feature),
            dtype=dtype,
            shards=(size, shard_steps, *feature),
            chunks=(1, chunk_steps, *feature),
            compressors=[*([ZstdCodec(level=ZSTD_LEVEL)] if compression == "zstd" else []), Crc32cCodec()],
            serializer=BytesCodec(),
            fill_value=0,
            dimension_names=("clip", "step", *(f"feature_{i}" for i in range(len(feature)))),
        )
    else:
        kind, extent = {"length": ("int32", ()), "valid": ("bool", (steps,)), "status": ("uint8", ())}[name]
        zarr.create_array(
            store,
            shape=(clips, *extent),
            dtype=kind,
            chunks=(size, *extent),
            compressors=[Crc32cCodec()],
            serializer=BytesCodec(),
            fill_value=0,
            dimension_names=("clip", "step")[: 1 + len(extent)],
        )
    return store._store_dict["zarr.json"].to_bytes()
