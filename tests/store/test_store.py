"""A store gives back what was written, to bmla and to plain zarr, and says clearly what it refuses."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import (
    StoreBusy,
    StoreError,
    StoreMismatch,
    StoreNotFound,
    StreamNotDone,
    StreamNotFound,
)
from bmla.store.identity import default_shard_size
from bmla.store.info import info
from bmla.store.ledger import Failure
from bmla.store.lock import writer_lock
from bmla.store.sealing import sealed
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.verify import collect, verify

SPLITS = ("train", "dev", "test")
SPEC = StreamSpec("audio.toy", "audio", "toy", "float16", (3,), 100.0, "T = any")


def table(n=10):
    return ClipTable.from_clips([Clip(f"c{i:02d}", 0, 1, label="ab"[i % 2], split=SPLITS[i % 3]) for i in range(n)])


def make(path, n=10, **changes):
    return create_store(
        path, **{"dataset": "toy", "task": "test", "classes": ("a", "b"), "clips": table(n), "shard_size": 4, **changes}
    )


def features(seed, n=10, failed=(3,), spec=SPEC, steps=70):
    rng = np.random.default_rng(seed)
    result = []
    for i in range(n):
        t = int(rng.integers(1, steps + 1))
        values = rng.normal(size=(t, *spec.feature_shape)).astype(spec.dtype)
        valid = rng.random(t) < 0.8
        lost = Failure(f"c{i:02d}", "decode", "MediaError", "it broke")
        result.append(ClipFeatures(None, None, lost) if i in failed else ClipFeatures(values, valid))
    return result


def fill(store, clips, spec=SPEC, steps=70, shards=None):
    store.add_stream(spec, steps)
    for shard in shards if shards is not None else store.pending(spec.name):
        start, stop = store.extent(shard)
        store.write_shard(spec.name, shard, clips[start:stop])
    return store


def test_what_was_written_is_loaded(tmp_path):
    clips = features(0)
    fill(make(tmp_path / "s.zarr"), clips)
    packed = open_store(tmp_path / "s.zarr").load("audio.toy")
    assert packed.clips.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    for row, clip in enumerate(packed.clips):
        a, b = packed.offsets[row], packed.offsets[row + 1]
        np.testing.assert_array_equal(packed.values[a:b], clips[clip].values)
        np.testing.assert_array_equal(packed.valid[a:b], clips[clip].valid)
    assert packed.offsets[-1] == len(packed.values) == len(packed.valid)


def test_a_split_holds_just_its_clips(tmp_path):
    clips = features(0)
    store = fill(make(tmp_path / "s.zarr"), clips)
    packed = store.load("audio.toy", "dev")
    assert packed.clips.tolist() == [1, 4, 7]
    np.testing.assert_array_equal(packed.values[packed.offsets[1] : packed.offsets[2]], clips[4].values)


def test_padded_puts_zeros_and_false_behind_each_clip(tmp_path):
    clips = features(1)
    values, valid = fill(make(tmp_path / "s.zarr"), clips).load("audio.toy").padded()
    n = len(clips[0].values)
    np.testing.assert_array_equal(values[0, :n], clips[0].values)
    assert not values[0, n:].any()
    assert not valid[0, n:].any()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), steps=st.integers(1, 130), compression=st.sampled_from(["none", "zstd"]))
def test_round_trip_is_exact_for_any_lengths_and_values(tmp_path_factory, data, steps, compression):
    lengths = data.draw(st.lists(st.integers(1, steps), min_size=10, max_size=10))
    finite = hnp.arrays(np.float16, (10, 3), elements=st.floats(-100, 100, width=16))
    seeds = data.draw(finite)
    clips = [
        ClipFeatures(np.resize(seeds[i], (n, 3)).astype(np.float16), np.arange(n) % 3 != i % 3)
        for i, n in enumerate(lengths)
    ]
    store = make(tmp_path_factory.mktemp("x") / "s.zarr")
    store.add_stream(SPEC, steps, compression)
    packed = fill(store, clips, steps=steps).load("audio.toy")
    np.testing.assert_array_equal(packed.values, np.concatenate([c.values for c in clips]))
    np.testing.assert_array_equal(packed.valid, np.concatenate([c.valid for c in clips]))


def test_crops_of_bytes_are_stored_as_they_are(tmp_path):
    spec = StreamSpec("mouth.toy", "visual", "toy", "uint8", (8, 6), 25.0, "T = any")
    rng = np.random.default_rng(0)
    clips = [ClipFeatures(rng.integers(0, 256, (5, 8, 6), np.uint8), np.ones(5, bool)) for _ in range(10)]
    packed = fill(make(tmp_path / "s.zarr"), clips, spec, 5).load("mouth.toy")
    np.testing.assert_array_equal(packed.values.reshape(10, 5, 8, 6), np.stack([c.values for c in clips]))


def test_plain_zarr_reads_it_without_bmla(tmp_path):
    clips = features(0)
    fill(make(tmp_path / "s.zarr"), clips)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "s.zarr", mode="r")
        stream = group["streams/audio.toy"]
        assert stream["values"].shape == (10, 70, 3)
        assert group.attrs["bmla"]["dataset"] == "toy"
        assert stream.attrs["bmla"]["spec"]["encoder"] == "toy"
        for i, clip in enumerate(clips):
            n = int(stream["length"][i])
            assert n == (0 if clip.failure else len(clip.values))
            assert int(stream["status"][i]) == (2 if clip.failure else 1)
            if n:
                np.testing.assert_array_equal(stream["values"][i, :n], clip.values)
                np.testing.assert_array_equal(stream["valid"][i, :n], clip.valid)


def test_padding_costs_no_disk(tmp_path):
    short = [ClipFeatures(np.ones((10, 3), np.float16), np.ones(10, bool)) for _ in range(10)]
    store = fill(make(tmp_path / "s.zarr"), short, steps=6400)
    assert sum(e.files["values"]["bytes"] for e in store.entries("audio.toy")) < 10 * 64 * 3 * 2 * 2 + 10 * 100 * 16 * 2


def test_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        fill(make(tmp_path / name), features(0))
    files = [
        {p.relative_to(tmp_path / n): p.read_bytes() for p in sorted((tmp_path / n).rglob("*")) if p.is_file()}
        for n in ("one", "two")
    ]
    assert files[0].keys() == files[1].keys()
    assert files[0] == files[1]


def test_a_shard_is_not_done_before_its_ledger_entry_stands(tmp_path, monkeypatch):
    store = make(tmp_path / "s.zarr")
    store.add_stream(SPEC, 70)
    monkeypatch.setattr("bmla.store.ledger.write_entry", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.write_shard("audio.toy", 0, features(0)[:4])
    monkeypatch.undo()
    assert (tmp_path / "s.zarr/streams/audio.toy/values/c/0/0/0").exists()
    assert store.pending("audio.toy") == [0, 1, 2]
    with pytest.raises(StreamNotDone, match="3 of 3 shards are missing"):
        store.load("audio.toy")


def test_leftovers_of_a_killed_writer_do_not_show_in_the_next_one(tmp_path):
    longer, shorter = features(0, failed=()), [ClipFeatures(np.ones((1, 3), np.float16), np.ones(1, bool))] * 10
    clean = fill(make(tmp_path / "clean.zarr"), shorter)
    store = make(tmp_path / "s.zarr")
    fill(store, longer)
    for path in (tmp_path / "s.zarr/ledger/audio.toy").glob("*.json"):
        path.unlink()
    leftover = tmp_path / "s.zarr/streams/audio.toy/values/c/2/0/0"
    leftover.write_bytes(leftover.read_bytes()[:50])
    fill(store, shorter)
    assert store.digest(["audio.toy"]) == clean.digest(["audio.toy"])


def test_digest_follows_the_features_and_not_the_time_they_took(tmp_path):
    one = fill(make(tmp_path / "one"), features(0))
    two = make(tmp_path / "two")
    two.add_stream(SPEC, 70)
    for shard in two.pending("audio.toy"):
        start, stop = two.extent(shard)
        two.write_shard("audio.toy", shard, features(0)[start:stop], seconds=9.0)
    three = fill(make(tmp_path / "three"), features(1))
    assert one.digest(["audio.toy"]) == two.digest(["audio.toy"]) != three.digest(["audio.toy"])


def test_creating_it_again_opens_it_and_another_plan_is_refused_by_name(tmp_path):
    fill(make(tmp_path / "s.zarr"), features(0))
    assert make(tmp_path / "s.zarr").streams() == ["audio.toy"]
    with pytest.raises(StoreMismatch, match="dataset: 'other' here, 'toy' there"):
        make(tmp_path / "s.zarr", dataset="other")
    with pytest.raises(StoreMismatch, match="clips: 9 here, 10 there"):
        make(tmp_path / "s.zarr", n=9)
    with pytest.raises(StoreMismatch, match=r"options.target: 'word' here, None there"):
        make(tmp_path / "s.zarr", options={"target": "word"})


def test_a_stream_made_otherwise_is_refused_by_name(tmp_path):
    store = fill(make(tmp_path / "s.zarr"), features(0))
    other = StreamSpec.from_dict({**SPEC.to_dict(), "parameters": {"layer": 3}})
    with pytest.raises(StoreMismatch, match=r"parameters.layer: 3 here, None there"):
        store.add_stream(other, 70)
    with pytest.raises(StoreMismatch, match="steps: 71 here, 70 there"):
        store.add_stream(SPEC, 71)


def test_adding_a_stream_leaves_the_others_as_they_were(tmp_path):
    store = fill(make(tmp_path / "s.zarr"), features(0))
    before = {p: p.read_bytes() for p in sorted((tmp_path / "s.zarr").rglob("*")) if p.is_file()}
    second = StreamSpec.from_dict({**SPEC.to_dict(), "name": "audio.other"})
    fill(store, features(1), second)
    assert all(p.read_bytes() == data for p, data in before.items())
    assert store.streams() == ["audio.other", "audio.toy"]


@pytest.mark.parametrize(
    "bad",
    [
        ClipFeatures(np.ones((5, 4), np.float16), np.ones(5, bool)),
        ClipFeatures(np.ones((5, 3), np.float32), np.ones(5, bool)),
        ClipFeatures(np.ones((71, 3), np.float16), np.ones(71, bool)),
        ClipFeatures(np.ones((0, 3), np.float16), np.ones(0, bool)),
        ClipFeatures(np.ones((5, 3), np.float16), np.ones(4, bool)),
        ClipFeatures(np.full((5, 3), np.nan, np.float16), np.ones(5, bool)),
        ClipFeatures(None, None),
    ],
)
def test_features_that_do_not_fit_are_not_written(tmp_path, bad):
    store = make(tmp_path / "s.zarr")
    store.add_stream(SPEC, 70)
    with pytest.raises(ValueError, match=r"^audio\.toy"):
        store.write_shard("audio.toy", 0, [bad, *features(0)[1:4]])
    assert not (tmp_path / "s.zarr/ledger").exists()


def test_places_that_are_no_store_say_what_is_there(tmp_path):
    with pytest.raises(StoreNotFound, match="nothing here"):
        open_store(tmp_path / "none.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.tex").write_text("x")
    with pytest.raises(StoreNotFound, match="a folder, but no store"):
        open_store(tmp_path / "folder")
    zarr.create_group(tmp_path / "plain.zarr")
    with pytest.raises(StoreNotFound, match="no bmla store"):
        open_store(tmp_path / "plain.zarr")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write the store here"):
        make(tmp_path / "file")
    with pytest.raises(StoreError, match=r"holds other things \(thesis.tex\)"):
        make(tmp_path / "folder")
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["thesis.tex"]


def test_a_killed_creation_is_finished_by_the_next(tmp_path):
    make(tmp_path / "s.zarr")
    (tmp_path / "s.zarr/zarr.json").unlink()
    assert make(tmp_path / "s.zarr").identity.clips == 10


def test_a_newer_format_and_attributes_that_cannot_be_are_refused(tmp_path):
    make(tmp_path / "s.zarr")
    file = tmp_path / "s.zarr/zarr.json"
    whole = json.loads(file.read_text())["attributes"]["bmla"]
    del whole["seal"]
    for change, message in (
        ({"format": 2}, "reads format 1"),
        ({"clips": "many"}, "bmla.clips is 'many'"),
        ({"shard_size": 0}, "can't be"),
    ):
        attributes = {"bmla": sealed({**whole, **change})}
        file.write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
        with pytest.raises(StoreError, match=message):
            open_store(tmp_path / "s.zarr")
    file.write_text("{")
    with pytest.raises(StoreError, match="not JSON"):
        open_store(tmp_path / "s.zarr")


@pytest.mark.parametrize("file", ["zarr.json", "streams/audio.toy/zarr.json", "ledger/audio.toy/000001.json"])
def test_a_flipped_bit_in_metadata_is_noticed_when_read(tmp_path, file):
    """Every 37th bit of the file, one after the other. Flips that leave the JSON value as it was (e to E in 1e-5) are none."""
    store = fill(make(tmp_path / "s.zarr"), features(0))
    path = tmp_path / "s.zarr" / file
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 37):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            same = json.loads(bytes(data)) == json.loads(whole)
        except ValueError:
            same = False
        if not same:
            with pytest.raises((StoreError, StreamNotFound)):
                open_store(store.path).load("audio.toy")
    path.write_bytes(whole)
    open_store(store.path).load("audio.toy")


def test_an_exchanged_clip_table_is_noticed(tmp_path):
    make(tmp_path / "s.zarr")
    (tmp_path / "s.zarr/clips.parquet").write_bytes(table(9).to_parquet())
    with pytest.raises(StoreError, match="digest is not the store's"):
        _ = open_store(tmp_path / "s.zarr").clips


def test_a_changed_specification_is_noticed(tmp_path):
    store = fill(make(tmp_path / "s.zarr"), features(0))
    file = tmp_path / "s.zarr/streams/audio.toy/zarr.json"
    file.write_text(file.read_text().replace('"toy"', '"tox"', 1))
    with pytest.raises(StoreError, match="does not match its seal"):
        store.load("audio.toy")


def test_a_flipped_bit_in_values_is_noticed_when_read(tmp_path):
    store = fill(make(tmp_path / "s.zarr"), features(0))
    file = tmp_path / "s.zarr/streams/audio.toy/values/c/1/0/0"
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="values, shard 1: damaged"):
        store.load("audio.toy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 1}, "says clips 1:4"),
        ({"lengths": [1]}, "1 lengths for 4 clips"),
        ({"lengths": [1, 2, 3, 71]}, "between 0 and"),
        ({"files": {}}, "damaged ledger entry"),
        ({"lengths": [1, 2, 3, True]}, "between 0 and"),
    ],
)
def test_a_ledger_entry_that_cannot_be_is_refused(tmp_path, change, message):
    store = fill(make(tmp_path / "s.zarr"), features(0))
    file = tmp_path / "s.zarr/ledger/audio.toy/000000.json"
    whole = {k: v for k, v in json.loads(file.read_text()).items() if k != "seal"}
    file.write_text(json.dumps(sealed({**whole, **change})))
    with pytest.raises(StoreError, match=message):
        store.load("audio.toy")


def test_unknown_stream_lists_those_there_are(tmp_path):
    store = fill(make(tmp_path / "s.zarr"), features(0))
    with pytest.raises(StreamNotFound, match=r'no stream "audio.x"; it has: audio.toy'):
        store.load("audio.x")


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write the store here"):
        make(tmp_path / "file" / "s.zarr")


def test_a_second_writer_is_refused_and_the_lock_ends_with_its_owner(tmp_path):
    make(tmp_path / "s.zarr")
    with (
        writer_lock(tmp_path / "s.zarr"),
        pytest.raises(StoreBusy, match="another bmla process"),
        writer_lock(tmp_path / "s.zarr"),
    ):
        pass
    with writer_lock(tmp_path / "s.zarr"):
        pass


@pytest.mark.parametrize("after", ["nothing", "all files", 0, 1, 3])
def test_a_shard_written_anew_is_the_old_one_the_new_one_or_to_be_done(tmp_path, monkeypatch, after):
    """A full disk, or a kill after so many renames."""
    store = fill(make(tmp_path / "s.zarr"), features(0))
    old = [e.digest for e in store.entries("audio.toy")]
    start, stop = store.extent(1)
    new = features(1)[start:stop]

    class Killed(BaseException):
        pass

    renames = []

    def replace_(self, target, real=Path.replace):
        if (
            ("ledger" in str(target) or "/c/" in str(target))
            and str(self).count(".tmp-")
            and not str(target).count(".tmp-")
        ):
            renames.append(target)
            if isinstance(after, int) and len(renames) > after:
                raise Killed
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace_)
    if after == "nothing":
        monkeypatch.setattr("bmla.store.shard.write_files", raise_full)
        with pytest.raises(StoreError, match="cannot write the store here"):
            store.rewrite_shard("audio.toy", 1, new)
    elif after == "all files":
        store.rewrite_shard("audio.toy", 1, new)
    else:
        with pytest.raises(Killed):
            store.rewrite_shard("audio.toy", 1, new)
    monkeypatch.undo()
    if after == "nothing":
        assert [e.digest for e in store.entries("audio.toy")] == old
    elif after == "all files":
        assert [e.digest == o for e, o in zip(store.entries("audio.toy"), old, strict=True)].count(False) == 1
        np.testing.assert_array_equal(store.array("audio.toy", "values")[start, : len(new[0].values)], new[0].values)
    else:
        assert store.pending("audio.toy") == [1]
        store.write_shard("audio.toy", 1, new)
    collect(store)
    assert verify(store, deep=True) == []


def raise_full(*arguments):
    raise OSError(28, "No space left on device")


def test_info_counts_what_is_there(tmp_path):
    store = fill(make(tmp_path / "s.zarr"), features(0), shards=[0, 2])
    result = info(store)
    assert result.splits == {"dev": 3, "test": 3, "train": 4}
    assert result.labels == {"a": 5, "b": 5}
    stream = result.streams[0]
    assert (stream.done, stream.failed, stream.pending) == (5, 1, 4)
    assert stream.shape == (10, 70, 3)
    assert stream.failures == {"decode: MediaError": 1}
    on_disk = sum(p.stat().st_size for p in (tmp_path / "s.zarr/streams/audio.toy").rglob("c/**/*") if p.is_file())
    assert stream.bytes == on_disk


@pytest.mark.parametrize(("clips", "size"), [(1, 8), (100, 8), (300, 16), (1800, 64), (5000, 256), (538_766, 256)])
def test_shards_are_a_power_of_two_and_at_most_256(clips, size):
    assert default_shard_size(clips) == size
