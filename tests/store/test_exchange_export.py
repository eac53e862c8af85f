"""An export is whole or not there, the same bytes every time, and says clearly what it can't be."""

import json
import tarfile
import time

import h5py
import numpy as np
import pytest

from bmla.store import create_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import StoreError, StreamNotDone, StreamNotFound, UnknownName, UsageError
from bmla.store.exchange import plan_export, run_export
from bmla.store.ledger import Failure
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec

AUDIO = StreamSpec("audio.toy", "audio", "toy", "float16", (3,), 100.0, "T = any")
MOUTH = StreamSpec("mouth.toy", "visual", "toy", "uint8", (4, 6), 25.0, "T = any")
WAYS = [("h5", False), ("h5", True), ("npy", False), ("npy", True), ("webdataset", False)]


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """Whether the bytes survive a power cut is not the question here, and asking the disk takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def make(path, specs=(AUDIO, MOUTH), done=True, text=None, n=9):
    clips = [Clip(f"c{i}", 0, 1, label="ab"[i % 2], split=("train", "dev")[i % 2], text=text) for i in range(n)]
    store = create_store(
        path, dataset="toy", task="t", classes=("a", "b"), clips=ClipTable.from_clips(clips), shard_size=4
    )
    rng = np.random.default_rng(0)
    for spec in specs:
        store.add_stream(spec, 20)
        for shard in store.pending(spec.name) if done else [0]:
            store.write_shard(spec.name, shard, [features(rng, spec, i) for i in range(*store.extent(shard))])
    return store


def features(rng, spec, i):
    if i == 5:
        return ClipFeatures(None, None, Failure("c5", "faces", "NoFace", "no face"))
    values = rng.normal(size=(1 + i, *spec.feature_shape)) * 50
    return ClipFeatures(values.astype(spec.dtype), rng.random(1 + i) < 0.7)


def export(store, out, format_name, **words):
    run_export(plan_export(store, format_name, **words), format_name, out)


def contents(out):
    files = [out] if out.is_file() else sorted(p for p in out.rglob("*") if p.is_file())
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize(("format_name", "padded"), WAYS)
def test_same_input_gives_the_same_bytes(tmp_path, format_name, padded):
    store = make(tmp_path / "s.zarr")
    export(store, tmp_path / "one", format_name, padded=padded)
    time.sleep(1.1)  # HDF5 and tar count whole seconds where they store times
    export(make(tmp_path / "t.zarr"), tmp_path / "two", format_name, padded=padded)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(("format_name", "padded"), WAYS)
@pytest.mark.parametrize("clip", [0, 7])
def test_an_export_that_breaks_off_leaves_nothing(tmp_path, monkeypatch, format_name, padded, clip):
    """Broken inside the first stream, or close to the end of the second, by a full disk and by the user."""
    store = make(tmp_path / "s.zarr")
    plan = plan_export(store, format_name, padded=padded)
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        seen = []

        def advance(size, error=error, seen=seen):
            seen.append(size)
            if len(seen) > 8 + clip:
                raise error

        with pytest.raises(StoreError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
            run_export(plan, format_name, tmp_path / "new" / "out", advance)
        assert list((tmp_path / "new").iterdir()) == []
        if isinstance(error, OSError):
            assert str(raised.value).endswith("the export failed (No space left on device); nothing of it was left")


@pytest.mark.parametrize(("format_name", "padded"), WAYS)
def test_until_the_last_byte_is_kept_nothing_bears_the_name(tmp_path, monkeypatch, format_name, padded):
    """What a process killed without a chance to tidy up would leave: a hidden name, never the one that was asked for."""
    store, out = make(tmp_path / "s.zarr"), tmp_path / "new" / "out"
    seen = []
    monkeypatch.setattr("os.fsync", lambda handle: seen.append((out.exists(), [p.name for p in out.parent.iterdir()])))
    run_export(
        plan_export(store, format_name, padded=padded), format_name, out, lambda n: seen.append((out.exists(), []))
    )
    assert seen[-1] == (True, ["out"])  # the folder itself, after the rename
    assert not any(there for there, _ in seen[:-1])
    assert all(name.startswith(".tmp-") for _, names in seen[:-1] for name in names)


@pytest.mark.parametrize(("format_name", "padded"), WAYS)
def test_what_is_there_is_never_written_over(tmp_path, format_name, padded):
    store = make(tmp_path / "s.zarr")
    (tmp_path / "file").write_text("thesis")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(UsageError, match="there is something here already: give another --out"):
            run_export(
                plan_export(store, format_name, padded=padded),
                format_name,
                tmp_path / name,
                lambda n: pytest.fail("too late"),
            )
    assert (tmp_path / "file").read_text() == "thesis"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "link", "s.zarr"]


def test_a_damaged_store_is_not_exported(tmp_path):
    store = make(tmp_path / "s.zarr")
    file = tmp_path / "s.zarr/streams/audio.toy/values/c/1/0/0"
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="values, shard 1: damaged"):
        export(store, tmp_path / "out", "npy")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_said(tmp_path):
    store = make(tmp_path / "s.zarr")
    with pytest.raises(UnknownName, match='unknown export format "csv"; known: h5, npy, webdataset'):
        plan_export(store, "csv")
    with pytest.raises(StreamNotFound, match=r'no stream "audio.x"; it has: audio.toy, mouth.toy'):
        plan_export(store, "h5", ["audio.x"])
    with pytest.raises(UnknownName, match='unknown split "all"'):
        plan_export(store, "h5", split="all")
    with pytest.raises(UsageError, match='no clip is in split "test"'):
        plan_export(store, "h5", split="test")
    with pytest.raises(UsageError, match="webdataset keeps one sample a clip, so there is nothing to pad"):
        plan_export(store, "webdataset", padded=True)
    with pytest.raises(UsageError, match="has no stream to export"):
        plan_export(make(tmp_path / "empty.zarr", specs=()), "h5")
    with pytest.raises(StreamNotDone, match="2 of 3 shards are missing"):
        plan_export(make(tmp_path / "half.zarr", done=False), "h5")


def test_text_with_a_zero_byte_is_named_where_the_format_cannot_hold_it(tmp_path):
    store = make(tmp_path / "s.zarr", text="a\0b")
    with pytest.raises(UsageError, match="column text: 'a\\\\x00b': HDF5 text can't hold a zero byte: export as npy"):
        export(store, tmp_path / "out.h5", "h5")
    assert not (tmp_path / "out.h5").exists()
    export(store, tmp_path / "out", "npy")


def test_hdf5_is_read_without_bmla(tmp_path):
    store = make(tmp_path / "s.zarr")
    export(store, tmp_path / "out.h5", "h5", padded=True)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["streams/audio.toy/values"].shape == (8, 9, 3)
        assert file["streams/audio.toy/values"].chunks
        assert file["clips/id"].asstr()[:].tolist() == [f"c{i}" for i in range(9)]
        about = json.loads(file["streams/mouth.toy/bmla"][()])
        assert about["spec"] == MOUTH.to_dict()
        assert about["failures"] == [{"clip": "c5", "step": "faces", "error": "NoFace", "message": "no face"}]
        root = json.loads(file["bmla"][()])
        assert root["identity"]["dataset"] == "toy"
        assert root["store_digest"] == store.digest(["audio.toy", "mouth.toy"])


def test_padding_takes_no_place_in_hdf5(tmp_path):
    store = create_store(
        tmp_path / "s.zarr", dataset="toy", task="t", classes=(), shard_size=8,
        clips=ClipTable.from_clips(Clip(f"c{i}", 0, 1) for i in range(8)),
    )  # fmt: skip
    store.add_stream(AUDIO, 6400)
    rows = [
        ClipFeatures(np.ones((6400 if i == 0 else 2, 3), "float16"), np.ones(6400 if i == 0 else 2, bool))
        for i in range(8)
    ]
    store.write_shard("audio.toy", 0, rows)
    export(store, tmp_path / "out.h5", "h5", padded=True)
    assert (tmp_path / "out.h5").stat().st_size < 2 * 6400 * 3 * 2 + 8 * 6400 + 50_000


def test_tars_are_cut_by_size_and_hold_whole_samples(tmp_path, monkeypatch):
    monkeypatch.setattr("bmla.store.exchange.webdataset.TAR_BYTES", 8000)
    store = make(tmp_path / "s.zarr")
    export(store, tmp_path / "out", "webdataset")
    paths = sorted((tmp_path / "out").glob("*.tar"))
    assert [p.name for p in paths] == [f"clips-{i:06d}.tar" for i in range(len(paths))]
    assert len(paths) > 2
    keys = []
    for path in paths:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert [m.name for m in members] == sorted(m.name for m in members)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
        keys.append({m.name.partition(".")[0] for m in members})
    assert sorted(k for part in keys for k in part) == [f"{i:09d}" for i in range(9)]  # none is in two tars


def test_streams_that_would_share_a_member_name_are_refused(tmp_path):
    specs = [StreamSpec.from_dict({**AUDIO.to_dict(), "name": name}) for name in ("audio.a_b", "audio.a.b")]
    store = make(tmp_path / "s.zarr", specs=specs)
    with pytest.raises(
        UsageError, match=r"audio\.a\.b and audio\.a_b would both be called audio_a_b: export them one by one"
    ):
        export(store, tmp_path / "out", "webdataset")
    assert not (tmp_path / "out").exists()
