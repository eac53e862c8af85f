"""Whatever is flipped, lost or added is found and named; repair marks bad shards only; gc removes leftovers only."""

import json

import numpy as np
import pytest

from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import StoreError, StoreNotFound
from bmla.store.ledger import Failure
from bmla.store.sealing import sealed
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.verify import collect, leftovers, repair, verify

SPEC = StreamSpec("audio.toy", "audio", "toy", "float16", (3,), 100.0, "T = any")
OTHER = StreamSpec("mouth.toy", "visual", "toy", "uint8", (4, 4), 25.0, "T = any")


def features(spec, i, steps):
    if i == 5:
        return ClipFeatures(None, None, Failure(f"c{i:02d}", "decode", "MediaError", "it broke"))
    rng = np.random.default_rng(i)
    n = int(rng.integers(1, steps + 1))
    return ClipFeatures((rng.random((n, *spec.feature_shape)) * 99 + 1).astype(spec.dtype), rng.random(n) < 0.8)


@pytest.fixture
def store(tmp_path):
    table = ClipTable.from_clips([Clip(f"c{i:02d}", 0, 1, label="ab"[i % 2], split="train") for i in range(10)])
    made = create_store(tmp_path / "s.zarr", dataset="toy", task="t", classes=("a", "b"), clips=table, shard_size=4)
    for spec, steps in ((SPEC, 70), (OTHER, 9)):
        made.add_stream(spec, steps)
        for shard in made.pending(spec.name):
            made.write_shard(spec.name, shard, [features(spec, i, steps) for i in range(*made.extent(shard))])
    return open_store(tmp_path / "s.zarr", read_only=False)


def files(store):
    return sorted(p for p in store.path.rglob("*") if p.is_file())


def test_a_whole_store_has_no_problem(store):
    assert verify(store) == verify(store, deep=True) == []
    assert leftovers(store) == []


def test_a_flipped_bit_in_any_file_is_found(store):
    """Every file of the store, one byte in each: the first, a middle or the last one by turns."""
    for turn, path in enumerate(files(store)):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[(0, len(whole) // 2, len(whole) - 1)[turn % 3]] ^= 0x10
        path.write_bytes(damaged)
        try:
            found = verify(open_store(store.path), deep=True)
        except (StoreError, StoreNotFound):
            found = path == store.path / "zarr.json"  # the root: opening says so
        assert found, path
        path.write_bytes(whole)
    assert verify(store, deep=True) == []


def test_any_missing_file_is_found_without_reading_values(store):
    for path in files(store):
        if path == store.path / "zarr.json" or "ledger" in path.parts:
            continue  # without its root it is no store; without its entry a shard is not done
        whole = path.read_bytes()
        path.unlink()
        found = [p for p in verify(open_store(store.path)) if path.as_posix().endswith(p.where) or not p.harmless]
        assert found, path
        path.write_bytes(whole)


def test_a_truncated_shard_is_named_and_repair_marks_it_alone(store):
    path = store.path / "streams/mouth.toy/values/c/1/0/0/0"
    whole = {p: p.read_bytes() for p in files(store)}
    path.write_bytes(path.read_bytes()[:-1])
    problems = verify(store)
    assert [(p.stream, p.shard) for p in problems] == [("mouth.toy", 1)]
    assert "bytes, expected" in problems[0].text
    assert repair(store, problems) == [("mouth.toy", 1)]
    assert store.pending("mouth.toy") == [1]
    assert store.pending("audio.toy") == []
    gone = {p for p in whole if not p.exists()}
    assert gone == {store.path / "ledger/mouth.toy/000001.json"}
    store.write_shard("mouth.toy", 1, [features(OTHER, i, 9) for i in range(*store.extent(1))])
    assert verify(store, deep=True) == []


def test_a_foreign_file_is_a_problem_and_stays(store):
    (store.path / "notes.txt").write_text("mine")
    (problem,) = verify(store)
    assert problem.where == "notes.txt"
    assert not problem.harmless
    assert collect(store) == []
    assert (store.path / "notes.txt").exists()


def test_gc_removes_leftovers_and_nothing_that_the_ledger_names(store):
    before = {p: p.read_bytes() for p in files(store)}
    left = [
        ".tmp-99-clips.parquet",
        "ledger/audio.toy/.tmp-1-000001.json",
        "streams/audio.toy/values/c/1/0/0.abc.partial",
    ]
    left += ["streams/audio.gone/values/zarr.json", "streams/audio.gone/values/c/0/0/0"]
    for key in left:
        (store.path / key).parent.mkdir(parents=True, exist_ok=True)
        (store.path / key).write_bytes(b"half")
    (store.path / "ledger/audio.toy/000002.json").unlink()
    problems = verify(store)
    assert problems
    assert all(p.harmless for p in problems)
    unnamed = [f"streams/audio.toy/{name}" for name in ("values/c/2/0/0", "length/c/2", "valid/c/2/0", "status/c/2")]
    assert sorted(collect(store)) == sorted(left + unnamed)
    after = {p: p.read_bytes() for p in files(store)}
    expected = {
        p: d
        for p, d in before.items()
        if p.relative_to(store.path).as_posix() not in [*unnamed, "ledger/audio.toy/000002.json"]
    }
    assert after == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: {**e, "lengths": [*e["lengths"][:1], e["lengths"][1] - 1 or 2, *e["lengths"][2:]]},
            "lengths are not the ledger's",
        ),
        (lambda e: {**e, "failures": [{"clip": "x", "step": "s", "error": "e", "message": "m"}]}, "does not agree"),
    ],
)
def test_a_ledger_that_contradicts_its_arrays_is_found(store, change, message):
    path = store.path / "ledger/audio.toy/000000.json"
    entry = {k: v for k, v in json.loads(path.read_text()).items() if k != "seal"}
    path.write_text(json.dumps(sealed(change(entry))))
    assert any(message in p.text for p in verify(store, deep=True))


def test_values_behind_a_clips_end_are_found(store):
    """A wrong writer whose digests are right."""
    from bmla.store import shard as shards
    from bmla.store.ledger import Entry, write_entry

    start, stop = store.extent(0)
    clips = [features(SPEC, i, 70) for i in range(start, stop)]
    digests, lengths = shards.write_files(store.place, store.head("audio.toy"), store.identity, 0, clips)
    short = (lengths[0] - 1, *lengths[1:])
    write_entry(store.place, "audio.toy", Entry(0, start, stop, short, digests))
    texts = [p.text for p in verify(store, deep=True)]
    assert any("values past a clip's length" in t for t in texts)
