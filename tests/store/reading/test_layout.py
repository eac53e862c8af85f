"""A shard file of a stranger's making is refused in one line: nothing is read outside it, nothing large is allocated."""

import tracemalloc

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import StoreError
from bmla.store.ledger import key_of, read_entry, write_entry
from bmla.store.reading.layout import Layout
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec

ABSENT = 2**64 - 1
STEPS, SHARD_CLIPS = 70, 4  # two chunks a clip: of 64 steps, and of up to 6
CHUNK = 64 * 3 * 2 + 4
SHARD = "streams/audio.{}/values/c/1/0/0"
TIERS = {"none": ("ram", "mmap", "shard"), "zstd": ("ram", "shard")}


@pytest.fixture
def store(tmp_path):
    table = ClipTable.from_clips([Clip(f"c{i}", 0, 1, label="a") for i in range(10)])
    made = create_store(
        tmp_path / "s.zarr", dataset="toy", task="t", classes=("a",), clips=table, shard_size=SHARD_CLIPS
    )
    rng = np.random.default_rng(0)
    for compression in TIERS:
        spec = StreamSpec(f"audio.{compression}", "audio", "toy", "float16", (3,), 100.0, "any")
        made.add_stream(spec, STEPS, compression)
        for shard in range(made.shards):
            start, stop = made.extent(shard)
            values = rng.normal(size=(stop - start, STEPS, 3)).astype(np.float16)
            made.write_shard(spec.name, shard, [ClipFeatures(v, np.ones(STEPS, bool)) for v in values])
    return open_store(tmp_path / "s.zarr", read_only=False)


def exchange(store, compression, change, size=None):
    """Changes shard 1's file, and the ledger so that it agrees: what somebody who wants to harm would do."""
    stream = f"audio.{compression}"
    path = store.path / SHARD.format(compression)
    data = change(bytearray(path.read_bytes()))
    path.write_bytes(data)
    entry = read_entry(store.place, stream, 1, store.extent(1), STEPS)
    entry.files["values"]["bytes"] = len(data) if size is None else size
    write_entry(store.place, stream, entry)
    assert (store.path / key_of(stream, 1)).is_file()


def with_index(*pairs):
    """Sets the first (offset, size) pairs of the index; its checksum fits."""

    def change(data):
        count = SHARD_CLIPS * 2
        start = len(data) - 16 * count - 4
        index = np.frombuffer(bytes(data[start:-4]), "<u8").reshape(count, 2).copy()
        index[: len(pairs)] = pairs
        data[start:-4] = index.tobytes()
        data[-4:] = google_crc32c.value(index.tobytes()).to_bytes(4, "little")
        return data

    return change


def flipped(position):
    def change(data):
        data[position] ^= 1
        return data

    return change


HOSTILE = {
    "truncated": (lambda data: data[:-200], r"does not match its checksum|its index"),
    "empty": (lambda data: data[:0], "0 bytes, fewer than the 132 of its index"),
    "a flipped bit in the index": (flipped(-30), "its index does not match its checksum"),
    "a flipped bit in the checksum of the index": (flipped(-1), "its index does not match its checksum"),
    "an offset behind the end": (with_index((1 << 40, CHUNK)), "behind the end of the file"),
    "an offset that runs over": (with_index((2**64 - 8, CHUNK)), "behind the end of the file"),
    "an offset into the index": (with_index((8 * CHUNK - 10, CHUNK)), "behind the end of the file|overlap"),
    "a size beyond the file": (with_index((0, 1 << 40)), f"a chunk of {1 << 40} bytes"),
    "a size of nothing": (with_index((0, 0)), "a chunk of 0 bytes"),
    "an offset without a size": (with_index((0, ABSENT)), "a chunk of"),
    "overlapping chunks": (with_index((0, CHUNK), (0, CHUNK)), "chunks that overlap"),
    "nearly overlapping chunks": (with_index((0, CHUNK), (CHUNK - 1, CHUNK)), "chunks that overlap"),
}


@pytest.mark.parametrize("compression", TIERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_shard_is_refused_in_bounded_memory(store, compression, name):
    change, message = HOSTILE[name]
    if compression == "zstd" and "overlap" in name:
        change = with_index((0, 100), (0 if name == "overlapping chunks" else 99, 100))
    exchange(store, compression, change)
    tracemalloc.start()
    try:
        for tier in TIERS[compression]:
            with pytest.raises(StoreError, match=rf"values, shard 1: damaged \(.*({message})"):
                store.reader(f"audio.{compression}", tier=tier).read_many([4, 5, 6, 7])
        with pytest.raises(StoreError, match="values, shard 1: damaged"):
            store.load(f"audio.{compression}")
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", TIERS)
def test_a_file_of_another_size_than_the_ledgers_is_refused(store, compression):
    exchange(store, compression, lambda data: data, size=5)
    for tier in TIERS[compression]:
        with pytest.raises(StoreError, match=r"shard 1: damaged \(\d+ bytes, expected 5\)"):
            store.reader(f"audio.{compression}", tier=tier).read_many([4])


@pytest.mark.parametrize("compression", TIERS)
def test_a_flipped_bit_in_a_chunk_is_noticed_by_all_but_the_memory_map(store, compression):
    exchange(store, compression, flipped(7))
    for tier in TIERS[compression]:
        if tier != "mmap":
            with pytest.raises(StoreError, match=r"shard 1: damaged \(a chunk does not match its checksum\)"):
                store.reader(f"audio.{compression}", tier=tier).read_many([4])
    store.reader(f"audio.{compression}", tier="shard").read_many([0, 8])  # the others are still read


@pytest.mark.parametrize("content", [bytes(10), b"x" * 384, bytes(385), bytes(50_000_000)])
def test_a_zstd_frame_of_another_size_is_refused_in_bounded_memory(store, content):
    frame = pa.Codec("zstd").compress(content, asbytes=True)
    chunk = frame + google_crc32c.value(frame).to_bytes(4, "little")

    def change(data):
        tail = data[-16 * SHARD_CLIPS * 2 - 4 :]
        return with_index((0, len(chunk)), *[(ABSENT, ABSENT)] * (2 * SHARD_CLIPS - 1))(bytearray(chunk) + tail)

    exchange(store, "zstd", change)
    reader = store.reader("audio.zstd", tier="shard")
    if len(content) == CHUNK - 4:
        assert reader.read_many([4]).values.view(np.uint8)[0, :64].tobytes() == content
        return
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    with pytest.raises(StoreError, match=r"a chunk (cannot be decompressed|of .* bytes)|its index holds a chunk"):
        reader.read_many([4])
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert pa.total_allocated_bytes() - before < 10e6


def test_a_missing_file_is_named(store):
    (store.path / SHARD.format("none")).unlink()
    for tier in TIERS["none"]:
        with pytest.raises(StoreError, match=r"streams/audio.none/values, shard 1: missing"):
            store.reader("audio.none", tier=tier).read_many([4])


def test_damaged_validity_is_noticed(store):
    file = store.path / "streams/audio.none/valid/c/1/0"
    whole = bytearray(file.read_bytes())
    for change, message in ((flipped(3), "does not match its checksum"), (lambda d: d[:-1], "bytes, expected")):
        file.write_bytes(change(bytearray(whole)))
        with pytest.raises(StoreError, match=rf"valid, shard 1: damaged \(.*{message}"):
            store.reader("audio.none", tier="mmap").read_many([4])
        with pytest.raises(StoreError, match="valid, shard 1: damaged"):
            store.load("audio.none")


def test_a_link_out_of_the_store_is_not_followed(store, tmp_path):
    file = store.path / SHARD.format("none")
    outside = tmp_path / "outside"
    file.rename(outside)
    file.symlink_to(outside)
    for tier in TIERS["none"]:
        with pytest.raises(StoreError, match="leads out of the store"):
            store.reader("audio.none", tier=tier).read_many([4])


def test_chunks_cover_each_clip_once_and_no_more():
    layout = Layout(shard_clips=4, chunk_steps=64, clip_chunks=4, step_bytes=6, compressed=False)
    clips, lengths, at = np.array([9, 2, 0]), np.array([1, 200, 128]), np.array([500, 0, 250])
    chunks = layout.chunks_of(clips, lengths, at)
    assert chunks.shard.tolist() == [2, 0, 0, 0, 0, 0, 0]
    assert chunks.number.tolist() == [4, 8, 9, 10, 11, 0, 1]
    assert chunks.at.tolist() == [500, 0, 64, 128, 192, 250, 314]
    assert chunks.steps.tolist() == [1, 64, 64, 64, 8, 64, 64]
    ordered, shards, bounds = chunks.by_shard()
    assert ordered.at.tolist() == [0, 64, 128, 192, 250, 314, 500]
    assert (shards, bounds) == ([0, 2], [0, 6, 7])
