"""What was exported comes back: the same clip table, specification, failures and features, to the last bit."""

import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import StoreMismatch, StreamNotFound, UsageError
from bmla.store.exchange import import_export, is_export, plan_export, run_export
from bmla.store.ledger import Failure
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.verify import verify

AUDIO = StreamSpec(
    "audio.toy", "audio", "toy", "float16", (3,), 100.0, "T = any", parameters={"layer": 9}, versions={"bmla": "0"}
)
MOUTH = StreamSpec("mouth.toy@snr=5", "visual", "toy", "uint8", (4, 6), 25.0, "T = any", crop={"size_px": 4})
SPLITS = ("train", "dev", "test", None)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """Whether the bytes survive a power cut is not the question here, and asking the disk takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def table(n, odd_text="ö, 'x'\n"):
    """Clips with and without values in every column, ids with dots and slashes."""
    return ClipTable.from_clips(
        Clip(
            f"s{i % 2}/c.{i:02d}",
            0.25 * i,
            0.25 * i + 1 / 3,
            label="ab"[i % 2] if i % 5 else None,
            split=SPLITS[i % 4],
            speaker=odd_text if i % 3 == 0 else None,
            text="" if i % 2 else None,
            fps=25.0 if i % 2 else None,
            crop_x=0 if i % 3 else None,
            video=f"v/{i}.mp4",
        )
        for i in range(n)
    )


def features(spec, lengths, ids, seed=0):
    rng = np.random.default_rng(seed)
    for n, clip in zip(lengths, ids, strict=True):
        if n == 0:
            yield ClipFeatures(None, None, Failure(clip, "decode", "MediaError", "it broke: ö"))
        else:
            values = rng.normal(size=(n, *spec.feature_shape)) * 50
            yield ClipFeatures(values.astype(spec.dtype), rng.random(n) < 0.7)


def make(path, lengths, steps=70, compression="none", specs=(AUDIO, MOUTH)):
    clips = table(len(lengths))
    ids = clips.table["id"].to_pylist()
    store = create_store(
        path, dataset="toy", task="test", classes=("b", "a"), clips=clips, options={"seed": 1}, shard_size=4
    )
    for seed, spec in enumerate(specs):
        store.add_stream(spec, steps, compression)
        rows = list(features(spec, np.roll(lengths, seed), ids, seed))
        for shard in store.pending(spec.name):
            store.write_shard(spec.name, shard, rows[slice(*store.extent(shard))], versions=spec.versions)
    return store


LENGTHS = (5, 0, 70, 1, 64, 65, 3, 0, 9, 20)


def export(store, out, format_name, streams=(), split=None, padded=False):
    run_export(plan_export(store, format_name, streams, split, padded), format_name, out)
    return out


def assert_same(a, b):
    assert a.clips.digest() == b.clips.digest()
    assert a.clips.table.equals(b.clips.table)
    assert a.digest(a.streams()) == b.digest(b.streams())
    for stream in a.streams():
        assert a.head(stream) == b.head(stream)
        for mine, theirs in zip(a.entries(stream), b.entries(stream), strict=True):
            assert (mine.lengths, mine.failures, mine.files, mine.versions) == (
                theirs.lengths, theirs.failures, theirs.files, theirs.versions,
            )  # fmt: skip
    ignored = {"clips_file"}
    assert {k: v for k, v in a.identity.to_dict().items() if k not in ignored} == {
        k: v for k, v in b.identity.to_dict().items() if k not in ignored
    }


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("format_name", ["h5", "npy"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_an_imported_export_is_the_same_store(tmp_path, format_name, padded, compression):
    store = make(tmp_path / "s.zarr", LENGTHS, compression=compression)
    out = export(store, tmp_path / "out", format_name, padded=padded)
    assert is_export(out)
    done = import_export(out, tmp_path / "t.zarr")
    assert [d.stream for d in done] == ["audio.toy", "mouth.toy@snr=5"]
    assert [len(d.failures) for d in done] == [2, 2]
    back = open_store(tmp_path / "t.zarr")
    assert_same(store, back)
    assert verify(back, deep=True) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=11),
    format_name=st.sampled_from(["h5", "npy"]),
    padded=st.booleans(),
)
def test_round_trip_is_exact_for_any_lengths(tmp_path_factory, lengths, format_name, padded):
    folder = tmp_path_factory.mktemp("x")
    store = make(folder / "s.zarr", lengths, specs=(AUDIO,))
    import_export(export(store, folder / "out", format_name, padded=padded), folder / "t.zarr")
    assert_same(store, open_store(folder / "t.zarr"))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 70), min_size=1, max_size=11))
def test_webdataset_samples_are_the_clips(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("x")
    store = make(folder / "s.zarr", lengths)
    out = export(store, folder / "out", "webdataset")
    samples = read_samples(out)
    packed = {stream: store.load(stream) for stream in store.streams()}
    assert list(samples) == [f"{row:09d}" for row in range(len(lengths))]
    failed = {s: {f.clip for e in store.entries(s) for f in e.failures} for s in store.streams()}
    for row, sample in enumerate(samples.values()):
        clip = store.clips[row]
        about = json.loads(sample["json"])
        assert (about["id"], about.get("label"), about.get("split")) == (clip.id, clip.label, clip.split)
        assert set(about["failures"]) == {s for s in store.streams() if clip.id in failed[s]}
        for stream, name in (("audio.toy", "audio_toy"), ("mouth.toy@snr=5", "mouth_toy@snr=5")):
            at = np.flatnonzero(packed[stream].clips == row)
            assert (f"{name}.npy" in sample) == (len(at) == 1) == (stream in about["steps"])
            if len(at):
                a, b = packed[stream].offsets[at[0]], packed[stream].offsets[at[0] + 1]
                values, valid = load(sample[f"{name}.npy"]), load(sample[f"{name}.valid.npy"])
                assert values.dtype == packed[stream].values.dtype
                np.testing.assert_array_equal(values, packed[stream].values[a:b])
                np.testing.assert_array_equal(valid, packed[stream].valid[a:b])
    assert ClipTable.from_parquet((out / "clips.parquet").read_bytes()).digest() == store.clips.digest()


def read_samples(folder: Path):
    """As the webdataset library groups them: the key ends at the first dot of the name."""
    samples = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                samples.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return samples


def load(data):
    return np.load(io.BytesIO(data), allow_pickle=False)


@pytest.mark.parametrize("format_name", ["h5", "npy"])
def test_arrays_are_what_the_store_loads(tmp_path, format_name):
    store = make(tmp_path / "s.zarr", LENGTHS)
    packed = store.load("audio.toy")
    values, valid = packed.padded()
    ragged = arrays_of(export(store, tmp_path / "r", format_name), "audio.toy", "values", "valid", "offsets", "clips")
    for mine, theirs in zip(ragged, (packed.values, packed.valid, packed.offsets, packed.clips), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    full = arrays_of(export(store, tmp_path / "p", format_name, padded=True), "audio.toy", "values", "valid", "length")
    for mine, theirs in zip(full, (values, valid, packed.lengths), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def arrays_of(out, stream, *names):
    if out.is_dir():
        return [np.load(out / "streams" / stream / f"{name}.npy", allow_pickle=False) for name in names]
    with h5py.File(out) as file:
        return [file[f"streams/{stream}/{name}"][()] for name in names]


@pytest.mark.parametrize("format_name", ["h5", "npy"])
def test_a_split_comes_back_as_a_store_of_its_clips(tmp_path, format_name):
    store = make(tmp_path / "s.zarr", LENGTHS)
    import_export(export(store, tmp_path / "out", format_name, split="train"), tmp_path / "t.zarr")
    back = open_store(tmp_path / "t.zarr")
    rows = store.clips.indices("train")
    assert back.clips.table.equals(store.clips.select(rows.tolist()).table)
    assert back.identity.options == {"seed": 1, "exported_split": "train"}
    for stream in store.streams():
        mine, theirs = store.load(stream, "train"), back.load(stream)
        np.testing.assert_array_equal(mine.values, theirs.values)
        np.testing.assert_array_equal(mine.valid, theirs.valid)
        np.testing.assert_array_equal(mine.clips, rows[theirs.clips])
        failed = {f.clip for e in store.entries(stream) for f in e.failures}
        assert {f.clip for e in back.entries(stream) for f in e.failures} == failed & set(back.clips.column("id"))


@pytest.mark.parametrize(("format_name", "padded"), [("h5", False), ("h5", True), ("npy", False), ("npy", True)])
def test_a_stream_whose_clips_all_failed_comes_back(tmp_path, format_name, padded):
    store = make(tmp_path / "s.zarr", (0, 0, 0), specs=(AUDIO,))
    import_export(export(store, tmp_path / "out", format_name, padded=padded), tmp_path / "t.zarr")
    assert_same(store, open_store(tmp_path / "t.zarr"))


def test_streams_can_come_one_after_the_other(tmp_path):
    store = make(tmp_path / "s.zarr", LENGTHS)
    for stream in store.streams():
        out = export(store, tmp_path / f"{stream}.h5", "h5", [stream])
        import_export(out, tmp_path / "t.zarr")
    assert_same(store, open_store(tmp_path / "t.zarr"))
    import_export(export(store, tmp_path / "all", "npy"), tmp_path / "one.zarr", ["audio.toy"])
    assert open_store(tmp_path / "one.zarr").streams() == ["audio.toy"]


def test_importing_twice_changes_nothing_and_a_killed_import_goes_on(tmp_path, monkeypatch):
    store = make(tmp_path / "s.zarr", LENGTHS)
    out = export(store, tmp_path / "out.h5", "h5")
    write, calls = type(store).write_shard, []

    def killed(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(self, *args, **kwargs)

    monkeypatch.setattr(type(store), "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        import_export(out, tmp_path / "t.zarr")
    assert open_store(tmp_path / "t.zarr").pending("audio.toy") == [2]
    for expected in (7, 7):  # 3 before, then the 4 that were missing, then none
        import_export(out, tmp_path / "t.zarr")
        assert len(calls) == expected
        assert_same(store, open_store(tmp_path / "t.zarr"))


def test_an_export_does_not_go_into_a_store_of_something_else(tmp_path):
    store = make(tmp_path / "s.zarr", LENGTHS)
    out = export(store, tmp_path / "out.h5", "h5")
    other = make(tmp_path / "other.zarr", LENGTHS[:-1])
    before = other.digest(other.streams())
    with pytest.raises(StoreMismatch, match="clips: 10 here, 9 there"):
        import_export(out, tmp_path / "other.zarr")
    assert other.digest(other.streams()) == before
    changed = StreamSpec.from_dict({**AUDIO.to_dict(), "parameters": {"layer": 3}})
    make(tmp_path / "layer.zarr", LENGTHS, specs=(changed,))
    with pytest.raises(StoreMismatch, match=r"parameters.layer: 9 here, 3 there"):
        import_export(out, tmp_path / "layer.zarr")


def test_other_features_under_the_same_specification_are_refused(tmp_path):
    out = export(make(tmp_path / "s.zarr", LENGTHS, specs=(AUDIO,)), tmp_path / "out.h5", "h5")
    make(tmp_path / "t.zarr", LENGTHS[::-1], specs=(AUDIO,))
    with pytest.raises(StoreMismatch, match="other features under the same specification"):
        import_export(out, tmp_path / "t.zarr")


def test_unknown_streams_and_webdataset_are_refused_at_import(tmp_path):
    store = make(tmp_path / "s.zarr", LENGTHS)
    with pytest.raises(StreamNotFound, match=r'no stream "audio.x"; it has: audio.toy, mouth.toy@snr=5'):
        import_export(export(store, tmp_path / "out.h5", "h5"), tmp_path / "t.zarr", ["audio.x"])
    with pytest.raises(UsageError, match="a webdataset export can't be imported: export the store as h5 or npy"):
        import_export(export(store, tmp_path / "w", "webdataset"), tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr").exists()
