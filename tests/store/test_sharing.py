"""Stores move by digest between folders, a real S3 protocol server and a web server; what arrives is whole or absent."""

import http.server
import json
import threading
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner

from bmla.cli import main
from bmla.store import create_store, open_store
from bmla.store.cache import cached
from bmla.store.clips import Clip, ClipTable
from bmla.store.diff import diff
from bmla.store.errors import StoreError, StoreMismatch, StoreNotFound, UsageError
from bmla.store.ledger import Failure
from bmla.store.merge import merge
from bmla.store.origin import read_origin
from bmla.store.place import open_place
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.transfer import Selection, plan_transfer, run_transfer
from bmla.store.verify import verify

SPEC = StreamSpec("audio.toy", "audio", "toy", "float16", (3,), 100.0, "T = any")
OTHER = StreamSpec("mouth.toy", "visual", "toy", "uint8", (4, 4), 25.0, "T = any")


def features(spec, i, steps, seed=0):
    if i == 5:
        return ClipFeatures(None, None, Failure(f"c{i:02d}", "decode", "MediaError", "it broke"))
    rng = np.random.default_rng((seed, i))
    n = int(rng.integers(1, steps + 1))
    return ClipFeatures((rng.random((n, *spec.feature_shape)) * 99 + 1).astype(spec.dtype), rng.random(n) < 0.8)


def make(path, clips=range(20), streams=((SPEC, 70), (OTHER, 9)), seed=0, shards=None, **changes):
    splits = ("train",) * 8 + ("dev",) * 6 + ("test",) * 6
    table = ClipTable.from_clips([Clip(f"c{i:02d}", 0, 1, label="ab"[i % 2], split=splits[i]) for i in clips])
    made = create_store(
        path, **{"dataset": "toy", "task": "t", "classes": ("a", "b"), "clips": table, "shard_size": 4, **changes}
    )
    for spec, steps in streams:
        made.add_stream(spec, steps)
        for shard in shards if shards is not None else made.pending(spec.name):
            rows = [clips[k] for k in range(*made.extent(shard))]
            made.write_shard(spec.name, shard, [features(spec, i, steps, seed) for i in rows])
    return open_store(path)


def copy(source, target, selection=None):
    plan = plan_transfer(source, open_place(target, read_only=False), selection)
    run_transfer(plan)
    return plan, open_store(target)


@pytest.fixture
def web(tmp_path):
    """A plain web server on loopback that serves tmp_path; yields its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_copied_store_is_the_same_store(tmp_path):
    source = make(tmp_path / "a.zarr")
    plan, target = copy(source, tmp_path / "b.zarr")
    assert len(plan.items) == 10
    assert list(diff(source, target)) == []
    assert verify(target, deep=True) == []
    assert target.digest(target.streams()) == source.digest(source.streams())


def test_only_what_the_other_side_lacks_is_moved(tmp_path):
    copy(make(tmp_path / "a.zarr", shards=[0, 2]), tmp_path / "b.zarr")
    source = make(tmp_path / "a.zarr")
    plan, target = copy(source, tmp_path / "b.zarr")
    assert sorted((i.stream, i.entry.shard) for i in plan.items) == [
        (s, n) for s in ("audio.toy", "mouth.toy") for n in (1, 3, 4)
    ]
    assert plan.present == 4
    assert list(diff(source, target)) == []
    plan, _ = copy(source, tmp_path / "b.zarr")
    assert plan.bytes == len(plan.items) == 0


def test_a_killed_transfer_goes_on(tmp_path, monkeypatch):
    source = make(tmp_path / "a.zarr")
    plan = plan_transfer(source, open_place(tmp_path / "b.zarr", read_only=False))
    moved = []

    def stop(n):
        moved.append(n)
        if len(moved) > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_transfer(plan, stop, threads=1)
    half = open_store(tmp_path / "b.zarr")
    assert all(p.harmless for p in verify(half, deep=True))
    rest, target = copy(source, tmp_path / "b.zarr")
    assert 0 < len(rest.items) < len(plan.items)
    assert list(diff(source, target)) == []


def test_a_damaged_source_file_is_not_taken(tmp_path):
    source = make(tmp_path / "a.zarr")
    file = tmp_path / "a.zarr/streams/mouth.toy/values/c/1/0/0/0"
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="damaged: its SHA-256"):
        copy(source, tmp_path / "b.zarr")
    assert 1 not in open_store(tmp_path / "b.zarr").finished("mouth.toy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "other"}, "dataset"),
        ({"clips": range(19)}, "clips"),
        ({"shard_size": 8}, "shard_size"),
        ({"seed": 1}, "audio.toy shard 0: other features; audio.toy shard 1: other"),
        (
            {"streams": ((StreamSpec.from_dict({**SPEC.to_dict(), "parameters": {"layer": 3}}), 70),)},
            "parameters.layer",
        ),
    ],
)
def test_every_conflict_is_named_and_nothing_is_changed(tmp_path, changes, message):
    source = make(tmp_path / "a.zarr")
    make(tmp_path / "b.zarr", **changes)
    before = {p: p.read_bytes() for p in (tmp_path / "b.zarr").rglob("*") if p.is_file()}
    with pytest.raises(StoreMismatch, match=message):
        copy(source, tmp_path / "b.zarr")
    assert {p: p.read_bytes() for p in (tmp_path / "b.zarr").rglob("*") if p.is_file()} == before


def test_a_pulled_part_is_a_valid_store_that_knows_what_it_lacks(tmp_path):
    source = make(tmp_path / "a.zarr")
    _, part = copy(source, tmp_path / "b.zarr", Selection(("audio.toy",), "dev"))
    assert part.streams() == ["audio.toy"]
    assert part.finished("audio.toy") == [2, 3]  # clips 8 to 13 are the dev split
    assert verify(part, deep=True) == []
    assert read_origin(part.place).shards == {"audio.toy": (0, 1, 2, 3, 4)}
    whole = source.load("audio.toy", "dev")
    np.testing.assert_array_equal(part.load("audio.toy", "dev").values, whole.values)


def test_a_limit_takes_shards_from_everywhere(tmp_path):
    _, part = copy(make(tmp_path / "a.zarr"), tmp_path / "b.zarr", Selection(limit=9))
    assert part.finished("audio.toy") == [0, 2, 4]


def test_through_s3_and_back_it_is_the_same_store(tmp_path, s3):
    source = make(tmp_path / "a.zarr")
    _, remote = copy(source, f"{s3}/round.zarr")
    assert remote.streams() == source.streams()
    assert verify(remote, deep=True) == []
    _, back = copy(open_store(f"{s3}/round.zarr"), tmp_path / "b.zarr")
    assert list(diff(source, back)) == list(diff(source, remote)) == []
    np.testing.assert_array_equal(remote.load("mouth.toy", "test").values, source.load("mouth.toy", "test").values)


def test_nothing_at_a_url_is_no_store(s3):
    with pytest.raises(StoreNotFound, match="nothing here"):
        open_store(f"{s3}/none.zarr")


def test_every_store_command_takes_a_url(tmp_path, s3, monkeypatch):
    make(tmp_path / "a.zarr")
    url = f"{s3}/commands/a.zarr"
    runs = (
        (0, ("push", str(tmp_path / "a.zarr"), url)),
        (0, ("info", url)),
        (0, ("verify", url, "--deep")),
        (0, ("failures", url)),
        (0, ("diff", str(tmp_path / "a.zarr"), url)),
        (0, ("ls", f"{s3}/commands")),
        (0, ("pull", url, str(tmp_path / "b.zarr"), "--stream", "audio.toy")),
        (1, ("diff", str(tmp_path / "b.zarr"), url)),
        (2, ("pull", url, f"{s3}/other.zarr")),
        (2, ("gc", url)),
    )
    for code, words in runs:
        result = CliRunner().invoke(main, ["store", *words])
        assert result.exit_code == code, (words, result.output)


def test_every_store_command_prints_json_and_nothing_else(tmp_path):
    store = make(tmp_path / "a.zarr").place
    runs = {
        ("push", store, tmp_path / "b.zarr", "--stream", "audio.toy"): {"target", "shards", "bytes", "present"},
        ("pull", store, tmp_path / "c.zarr", "--stream", "mouth.toy"): {"target", "shards", "bytes", "present"},
        ("merge", tmp_path / "b.zarr", tmp_path / "c.zarr", "--into", tmp_path / "d.zarr"): {
            "store",
            "clips",
            "streams",
        },
        ("listing", tmp_path / "d.zarr"): {"listing"},
        ("gc", tmp_path / "d.zarr", "--dry-run"): {"removed", "leftovers"},
        ("gc", tmp_path / "d.zarr"): {"removed", "leftovers"},
    }
    for words, keys in runs.items():
        result = CliRunner().invoke(main, ["store", *map(str, words), "--json"])
        assert result.exit_code == 0, (words, result.output)
        assert set(json.loads(result.stdout)) == keys


def test_quiet_commands_say_nothing_on_stderr(tmp_path):
    store = str(make(tmp_path / "a.zarr").place)
    for words in (["verify", store, "--deep"], ["pull", store, str(tmp_path / "b.zarr")]):
        result = CliRunner().invoke(main, ["store", *words, "--quiet"])
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout


def test_remote_streams_are_cached_once_and_bounded(tmp_path, s3):
    source = make(tmp_path / "a.zarr")
    copy(source, f"{s3}/cache.zarr")
    fetched = []
    for _ in range(2):
        local = cached(open_store(f"{s3}/cache.zarr"), ["audio.toy"], tmp_path / "cache", begin=fetched.append)
    assert fetched[0] > fetched[1] == 0
    np.testing.assert_array_equal(local.load("audio.toy").values, source.load("audio.toy").values)
    with pytest.raises(StoreError, match="the cache may hold"):
        cached(open_store(f"{s3}/cache.zarr"), ["mouth.toy"], tmp_path / "cache", limit_bytes=1000)


def test_the_longest_unused_cache_makes_room_and_one_in_use_does_not(tmp_path):
    caches = tmp_path / "cache"
    first = make(tmp_path / "a.zarr")
    second = make(tmp_path / "b.zarr", dataset="second")
    held = cached(first, ["audio.toy"], caches)
    size = sum(p.stat().st_size for p in caches.rglob("*") if p.is_file())
    with pytest.raises(StoreError, match="the cache may hold"):
        cached(second, ["audio.toy"], caches, limit_bytes=size + 100)
    del held
    kept = cached(second, ["audio.toy"], caches, limit_bytes=size + 100)
    assert [p for p in caches.glob("*.zarr") if p != kept.path] == []


def test_a_web_server_is_read_by_its_listing(tmp_path, web):
    source = make(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"no listing\.json"):
        open_store(f"{web}/a.zarr").streams()
    assert CliRunner().invoke(main, ["store", "listing", str(tmp_path / "a.zarr")]).exit_code == 0
    remote = open_store(f"{web}/a.zarr")
    assert verify(remote, deep=True) == []
    _, back = copy(remote, tmp_path / "c.zarr", Selection(("mouth.toy",)))
    np.testing.assert_array_equal(back.load("mouth.toy").values, source.load("mouth.toy").values)
    with pytest.raises(UsageError, match="can only be read"):
        open_place(f"{web}/a.zarr", read_only=False)


def test_stores_of_other_clips_become_one(tmp_path):
    parts = [make(tmp_path / "a.zarr", range(7)), make(tmp_path / "b.zarr", range(7, 20))]
    merged = merge(parts, tmp_path / "m.zarr")
    whole = make(tmp_path / "w.zarr")
    assert merged.digest(merged.streams()) == whole.digest(whole.streams())
    assert verify(merged, deep=True) == []


def test_stores_of_other_streams_become_one(tmp_path):
    parts = [make(tmp_path / "a.zarr", streams=((SPEC, 70),)), make(tmp_path / "b.zarr", streams=((OTHER, 9),))]
    merged = merge(parts, tmp_path / "m.zarr")
    whole = make(tmp_path / "w.zarr")
    assert merged.digest(merged.streams()) == whole.digest(whole.streams())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": range(6, 20)}, 'clip "c06": in both'),
        ({"clips": range(7, 20), "classes": ("a", "b", "c")}, "classes"),
        ({"clips": range(7, 20), "streams": ((SPEC, 70),)}, "mouth.toy: only in one"),
        ({"clips": range(7, 20), "shards": [0]}, "is not done"),
        ({"clips": range(7), "seed": 1}, "other features"),
    ],
)
def test_stores_that_contradict_each_other_are_not_merged(tmp_path, changes, message):
    parts = [make(tmp_path / "a.zarr", range(7)), make(tmp_path / "b.zarr", **changes)]
    with pytest.raises(StoreMismatch, match=message):
        merge(parts, tmp_path / "m.zarr")
    assert not (tmp_path / "m.zarr").exists()


def test_the_catalogue_lists_good_and_damaged_stores(tmp_path):
    make(tmp_path / "stores/a.zarr")
    make(tmp_path / "stores/b.zarr")
    (tmp_path / "stores/b.zarr/zarr.json").write_text("{")
    result = CliRunner().invoke(main, ["store", "ls", str(tmp_path / "stores"), "--json"])
    good, bad = json.loads(result.output)
    assert good["streams"] == {"audio.toy": 19, "mouth.toy": 19}
    assert "not JSON" in bad["problem"]
    text = CliRunner().invoke(main, ["store", "ls", str(tmp_path / "stores")]).output
    assert "audio.toy (19)" in text
    assert "unreadable" in text
