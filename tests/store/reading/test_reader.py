"""Every tier gives what plain zarr gives, for any rows in any order; the tier is chosen by what fits, and says why."""

import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import StoreError, StreamNotDone, StreamNotFound, UnknownName, UsageError
from bmla.store.ledger import Failure
from bmla.store.listing import write_listing
from bmla.store.place import open_place
from bmla.store.reading.layout import PIECE_BYTES, joined
from bmla.store.reading.reader import fastest, files_and_rows
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.transfer import plan_transfer, run_transfer

N = 22  # the last of 6 shards holds 2 clips
FAILED, ZERO = (3, 21), (6, 12, 13, 14, 15)  # the clips of shard 3 are all zero: it has no file of values
STREAMS = {  # name: dtype, feature shape, steps, compression
    "audio.long": ("float16", (3,), 200, "none"),
    "audio.packed": ("float16", (3,), 200, "zstd"),
    "audio.short": ("float32", (5,), 9, "none"),
    "mouth.crops": ("uint8", (4, 5), 70, "none"),
    "mouth.packed": ("uint8", (3, 3), 64, "zstd"),
    "face.single": ("float16", (7,), 1, "none"),
}
TIERS = [
    (name, tier) for name, s in STREAMS.items() for tier in ("ram", "mmap", "shard") if (s[3], tier) != ("zstd", "mmap")
]


def features(i, spec, steps):
    if i in FAILED:
        return ClipFeatures(None, None, Failure(f"c{i:02d}", "decode", "MediaError", "it broke"))
    rng = np.random.default_rng((i, steps))
    n = steps if i == 0 else int(rng.integers(1, steps + 1))
    values = np.zeros((n, *spec.feature_shape)) if i in ZERO else rng.random((n, *spec.feature_shape)) * 200 + 1
    if i == 1:
        values[: 64 if n > 64 else 0] = 0  # the first chunk is not stored, the next one is
    return ClipFeatures(values.astype(spec.dtype), rng.random(n) < 0.8)


def make(path, shards=None):
    splits = ("train", "dev", "train", "test")
    table = ClipTable.from_clips([Clip(f"c{i:02d}", 0, 1, label="a", split=splits[i % 4]) for i in range(N)])
    store = create_store(path, dataset="toy", task="t", classes=("a",), clips=table, shard_size=4)
    for name, (dtype, shape, steps, compression) in STREAMS.items():
        spec = StreamSpec(name, "audio" if name.startswith("audio") else "visual", "toy", dtype, shape, 25.0, "any")
        store.add_stream(spec, steps, compression)
        for shard in shards if shards is not None else range(store.shards):
            store.write_shard(name, shard, [features(i, spec, steps) for i in range(*store.extent(shard))])
    return open_store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(tmp_path_factory.mktemp("reading") / "s.zarr")


@pytest.fixture(scope="module")
def plain(store):
    """Stream -> (values, length, valid) as zarr alone reads them."""
    group = zarr.open_group(store.path, mode="r")
    return {s: [group[f"streams/{s}/{a}"][:] for a in ("values", "length", "valid")] for s in STREAMS}


@pytest.fixture(scope="module")
def readers(store):
    return {(name, tier): store.reader(name, tier=tier) for name, tier in TIERS}


def check(batch, plain, clips):
    values, length, valid = plain
    lengths = length[clips]
    T = lengths.max(initial=0)
    np.testing.assert_array_equal(batch.lengths, lengths)
    np.testing.assert_array_equal(batch.valid, valid[clips, :T])
    np.testing.assert_array_equal(batch.values, values[clips, :T])
    assert batch.values.dtype == values.dtype
    assert batch.valid.dtype == bool


@pytest.mark.parametrize(("stream", "tier"), TIERS)
def test_every_tier_gives_what_plain_zarr_gives(readers, plain, stream, tier):
    reader = readers[stream, tier]
    assert reader.tier == tier
    assert reader.clips.tolist() == [i for i in range(N) if i not in FAILED]

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(rows=st.lists(st.integers(0, len(reader) - 1), max_size=40))
    def any_rows_in_any_order(rows):
        check(reader.read_many(rows), plain[stream], reader.clips[np.array(rows, int)])

    any_rows_in_any_order()


def test_the_order_asked_for_is_kept_and_rows_may_repeat(readers):
    for reader in readers.values():
        rows = [19, 0, 7, 7, 3, 19, 11]
        batch = reader.read_many(rows)
        for i, row in enumerate(rows):
            one = reader.read_many([row])
            n = int(one.lengths[0])
            assert batch.lengths[i] == n == reader.lengths[row]
            np.testing.assert_array_equal(batch.values[i, :n], one.values[0])
            assert not batch.values[i, n:].any()
            assert not batch.valid[i, n:].any()


@pytest.mark.parametrize("tier", ["ram", "mmap", "shard"])
def test_a_split_holds_just_its_clips(store, plain, tier):
    reader = store.reader("audio.long", "dev", tier)
    assert reader.clips.tolist() == [1, 5, 9, 13, 17]
    check(reader.read_many(range(5)), plain["audio.long"], reader.clips)


def test_load_gives_the_same_as_the_readers(store, readers):
    for (stream, _), reader in readers.items():
        packed = store.load(stream)
        values, valid = packed.padded()
        batch = reader.read_many(range(len(reader)))
        np.testing.assert_array_equal(packed.clips, reader.clips)
        np.testing.assert_array_equal(packed.lengths, batch.lengths)
        np.testing.assert_array_equal(values, batch.values)
        np.testing.assert_array_equal(valid, batch.valid)


def test_valid_steps_are_those_of_the_arrays(store, plain):
    for stream in STREAMS:
        assert store.valid_steps(stream) == plain[stream][2].sum()


def test_no_rows_are_an_empty_batch(readers):
    for (stream, _), reader in readers.items():
        batch = reader.read_many([])
        assert batch.values.shape == (0, 0, *STREAMS[stream][1])
        assert batch.lengths.shape == (0,)
        assert batch.valid.shape == (0, 0)


def test_rows_that_are_not_there_are_named(readers):
    reader = readers["audio.long", "ram"]
    with pytest.raises(UsageError, match=r"row 20: this reader of audio.long has 20 clips"):
        reader.read_many([0, 20])
    with pytest.raises(UsageError, match="row -1"):
        reader.read_many([-1])
    with pytest.raises(UsageError, match="must be a list of integers"):
        reader.read_many([0.5])
    with pytest.raises(UsageError, match="must be a list of integers"):
        reader.read_many([[1]])


def test_auto_takes_the_first_tier_that_fits_and_says_why(store):
    roomy = store.reader("audio.long")
    tight, packed = (store.reader(name, budget_bytes=100) for name in ("audio.long", "audio.packed"))
    assert (roomy.tier, tight.tier, packed.tier) == ("ram", "mmap", "shard")
    assert "fits the memory budget of" in roomy.describe()
    assert (
        tight.describe()
        == "audio.long: 20 clips, 0.00 GB of float16, tier mmap (more than the memory budget of 0.00 GB)"
    )
    assert packed.describe().endswith("(more than the memory budget of 0.00 GB, and compressed)")
    assert store.reader("audio.long", tier="shard").describe().endswith("tier shard (as asked for)")
    needed = int(roomy.lengths.sum()) * 3 * 2
    assert store.reader("audio.long", budget_bytes=needed).tier == "ram"
    assert store.reader("audio.long", budget_bytes=needed - 1).tier == "mmap"


def test_what_cannot_be_read_that_way_is_refused(store):
    with pytest.raises(UnknownName, match='unknown tier "disk"; known: auto, gpu, ram, mmap, shard'):
        store.reader("audio.long", tier="disk")
    with pytest.raises(
        UsageError, match=r"audio.packed .* is compressed, only uncompressed local shards can be mapped"
    ):
        store.reader("audio.packed", tier="mmap")
    with pytest.raises(UsageError, match="say on which device"):
        store.reader("audio.long", tier="gpu")
    with pytest.raises(StreamNotFound):
        store.reader("audio.none")


def test_more_than_the_free_memory_is_refused_before_it_is_taken(store, monkeypatch):
    monkeypatch.setattr("bmla.store.reading.memory.available_bytes", lambda: 1000)
    for read in (store.load, partial(store.reader, tier="ram")):
        with pytest.raises(StoreError, match=r"audio.long: .* GB in memory, but 0.00 GB are free: load one split"):
            read("audio.long")


def test_a_split_whose_shards_are_here_is_read_and_another_is_not(tmp_path):
    store = make(
        tmp_path / "s.zarr", shards=[0, 1, 2, 3, 5]
    )  # clips 16 to 19 are missing, and with them some of each split
    with pytest.raises(StreamNotDone, match="1 of 6 shards are missing"):
        store.reader("audio.long", "train")


def test_tensors_on_a_device_are_the_same(store, readers):
    torch = pytest.importorskip("torch")
    for stream in ("audio.long", "mouth.crops"):
        direct = readers[stream, "ram"].read_many([4, 0, 4, 9])
        resident = store.reader(stream, tier="gpu", device="cpu")
        assert resident.tier == "gpu"
        for other in (resident, store.reader(stream, tier="shard", device="cpu"), readers[stream, "mmap"].to("cpu")):
            batch = other.read_many([4, 0, 4, 9])
            for mine, theirs in zip(batch, direct, strict=True):
                assert isinstance(mine, torch.Tensor)
                np.testing.assert_array_equal(mine.numpy(), theirs)
            assert other.read_many([]).values.shape == (0, 0, *STREAMS[stream][1])


def test_a_copy_behind_a_web_server_that_knows_ranges_is_read(store, plain, tmp_path, monkeypatch):
    place = open_place(tmp_path / "web.zarr", read_only=False)
    run_transfer(plan_transfer(store, place))
    write_listing(place)
    with served(tmp_path) as url:
        remote = open_store(f"{url}/web.zarr")
        for stream in ("audio.long", "mouth.packed"):
            for tier in ("ram", "shard"):
                reader = remote.reader(stream, tier=tier)
                check(reader.read_many([5, 0, 19, 5]), plain[stream], reader.clips[[5, 0, 19, 5]])
        assert remote.reader("audio.long", budget_bytes=0).describe().endswith("and remote)")
        with pytest.raises(UsageError, match=r"is remote, only uncompressed local shards .* pull"):
            remote.reader("audio.long", tier="mmap")
        monkeypatch.setattr(Ranges, "do_GET", http.server.SimpleHTTPRequestHandler.do_GET)
        with pytest.raises(StoreError, match="does not serve parts of files: use tier ram"):
            remote.reader("audio.long", tier="shard").read_many([0])
        assert len(remote.load("audio.long")) == N - len(FAILED)
        monkeypatch.undo()
        file = tmp_path / "web.zarr/streams/audio.long/values/c/0/0/0"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(StoreError, match="values, shard 0"):
            remote.reader("audio.long", tier="shard").read_many([0])


class served:  # noqa: N801 - reads as a word
    """A web server on loopback that serves a folder and answers range requests; gives its URL."""

    def __init__(self, folder):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=folder))
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Ranges(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not wanted or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(max(0, stop - start)))
        self.end_headers()
        self.wfile.write(data[start:stop])

    def log_message(self, *arguments):
        pass


def test_neighbours_are_read_at_once_and_far_ones_are_not():
    start = np.array([0, 1000, 2000, 500_000, 501_000, 9_000_000, 9_001_000])
    first, last = joined(np.array([0, 0, 0, 0, 0, 0, 1]), start, start + 1000)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(0, 3), (3, 5), (5, 6), (6, 7)]
    start = np.arange(0, 3 * PIECE_BYTES, 1 << 16)
    first, last = joined(np.zeros(len(start)), start, start + (1 << 16))
    assert len(first) == 3
    assert (start[last - 1] + (1 << 16) - start[first]).max() <= PIECE_BYTES + (1 << 16)


def test_the_cache_of_indexes_is_bounded(store, plain, monkeypatch):
    monkeypatch.setattr("bmla.store.reading.files.CACHE_BYTES", 300)
    for tier in ("mmap", "shard"):
        reader = store.reader("audio.long", tier=tier)
        check(reader.read_many(range(len(reader))), plain["audio.long"], reader.clips)
        assert len(reader.source.maps if tier == "mmap" else reader.files.indexes) <= 2


def test_choice_prefers_the_device(store, monkeypatch):
    monkeypatch.setattr("bmla.store.reading.reader.free_bytes", lambda device: 10**9)
    files, _ = files_and_rows(store, "audio.long", None)
    assert store.choose_tier("audio.long", None, "auto", None, "cuda").tier == "gpu"
    assert fastest(files, 6 * 10**8, 10**10, "cuda")[0] == "ram"
