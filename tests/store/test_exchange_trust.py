"""Files of strangers: nothing in them runs, leads elsewhere, is believed without a look, or ends in more than one clear line."""

import io
import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import BmlaError, StoreError, UsageError
from bmla.store.exchange import ArrayImport, import_arrays, import_export, is_export, plan_export, run_export
from bmla.store.exchange.arrays import open_arrays
from bmla.store.ledger import Failure
from bmla.store.sealing import sealed
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec

FEATS = np.arange(60, dtype="float32").reshape(4, 5, 3)
AUDIO = StreamSpec("audio.toy", "audio", "toy", "float16", (3,), 100.0, "T = any")


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """Whether the bytes survive a power cut is not the question here, and asking the disk takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def run(path, target, **words):
    given = {
        "stream": "audio.mine",
        "modality": "audio",
        "rate_hz": 50.0,
        "values": "feats",
        "dataset": "d",
        "task": "t",
    }
    import_arrays(path, target, ArrayImport(**{**given, "provenance": "by Kim", **words}))


def refused(path, target, message, error=StoreError, **words):
    with pytest.raises(error, match=message) as raised:
        run(path, target, **words)
    assert "\n" not in str(raised.value)
    assert not target.exists()


class Trap:
    """A pickle of it writes a file when it is opened."""

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_is_ever_opened(tmp_path):
    trap, sprung = Trap(), tmp_path / "sprung"
    trap.path = sprung
    objects = np.array([trap], dtype=object)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(trap))
    (tmp_path / "a.dat").write_bytes(pickle.dumps(trap))
    (tmp_path / "old.pickle").write_bytes(pickle.dumps(trap, protocol=0))
    for name in ("a.pkl", "a.dat", "old.pickle"):
        refused(
            tmp_path / name,
            tmp_path / "s.zarr",
            f"{name}: a pickle can run its author's code .* make an .npz of it: python -c",
        )
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    refused(
        tmp_path / "a.npy",
        tmp_path / "s.zarr",
        "a.npy: holds Python objects, which only a pickle can carry",
        values="a",
    )
    np.savez(tmp_path / "a.npz", feats=FEATS, ids=objects.repeat(4))
    refused(tmp_path / "a.npz", tmp_path / "s.zarr", "a.npz: ids: holds Python objects", ids="ids")
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as file:
        file.writestr("model/data.pkl", pickle.dumps(trap))
    refused(tmp_path / "model.pt", tmp_path / "s.zarr", "a zip without .npy files")
    assert not sprung.exists()


@pytest.mark.parametrize(
    "data", [b"", b"id,label\n", b"\x93NUMPY", b"PK\x03\x04 no zip", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\x01\x00\xff\xff"]
)
@pytest.mark.parametrize("name", ["feats.npy", "feats.npz", "feats.h5"])
def test_what_is_no_whole_file_is_one_clear_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name, tmp_path / "s.zarr", r"neither HDF5|no whole|no array", BmlaError)


def test_nothing_there_and_an_empty_folder_are_the_callers_mistake(tmp_path):
    refused(tmp_path / "none.npz", tmp_path / "s.zarr", "cannot be read .No such file", UsageError)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "s.zarr", 'empty: no array "feats"; it has: none', UsageError)


def h5(path, fill):
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def other_file(tmp_path):
    return h5(tmp_path / "secret.h5", lambda f: f.create_dataset("feats", data=FEATS))


def test_links_out_of_an_hdf5_file_are_refused(tmp_path):
    other = other_file(tmp_path)

    def fill(file):
        file["feats"] = h5py.ExternalLink(str(other), "/feats")
        file["group"] = h5py.ExternalLink(str(other), "/")
        file["dangling"] = h5py.ExternalLink("nowhere.h5", "/feats")
        file["soft"] = h5py.SoftLink("/group/feats")
        file["circle"] = h5py.SoftLink("/circle")

    path = h5(tmp_path / "a.h5", fill)
    for key in ("feats", "group/feats", "dangling", "soft"):
        refused(
            path, tmp_path / "s.zarr", f"{key}: a link to another file: nothing outside this file is opened", values=key
        )
    refused(path, tmp_path / "s.zarr", "circle: a link in circles", values="circle")
    with open_arrays(path) as file:
        assert file.keys() == []


def test_soft_links_within_the_file_are_followed(tmp_path):
    def fill(file):
        file["deep/real"] = FEATS
        file["deep/relative"] = h5py.SoftLink("real")
        file["feats"] = h5py.SoftLink("/deep/relative")
        file["nowhere"] = h5py.SoftLink("/deep/none")

    path = h5(tmp_path / "a.h5", fill)
    run(path, tmp_path / "t.zarr")
    refused(path, tmp_path / "s.zarr", 'no array "nowhere"; it has: deep/real', UsageError, values="nowhere")
    refused(path, tmp_path / "s.zarr", 'no array "deep/real/x"', UsageError, values="deep/real/x")
    refused(path, tmp_path / "s.zarr", 'no array "deep"', UsageError, values="deep")


def test_data_kept_outside_an_hdf5_file_is_refused(tmp_path):
    other = other_file(tmp_path)
    (tmp_path / "raw").write_bytes(FEATS.tobytes())
    layout = h5py.VirtualLayout(FEATS.shape, "f4")
    layout[:] = h5py.VirtualSource(str(other), "feats", FEATS.shape)

    def fill(file):
        file.create_dataset("raw", FEATS.shape, "f4", external=[(str(tmp_path / "raw"), 0, FEATS.nbytes)])
        file.create_virtual_dataset("virtual", layout)

    path = h5(tmp_path / "a.h5", fill)
    for key in ("raw", "virtual"):
        refused(path, tmp_path / "s.zarr", f"{key}: keeps its data in other files", values=key)


def test_hdf5_that_claims_more_than_is_there_is_refused_before_anything_is_read(tmp_path):
    huge = (1 << 40, 1 << 10, 1 << 10)

    def fill(file):
        file.create_dataset("chunked", huge, "f4", chunks=(1, 16, 16))
        file.create_dataset("plain", huge, "f4")
        part = file.create_dataset("part", (4, 5, 3), "f4", chunks=(1, 5, 3))
        part[:3] = 1
        file.create_dataset("bomb", (1 << 15, 1 << 15, 1), "f4", chunks=(1 << 14, 1 << 15, 1), compression="gzip")
        file.create_dataset("null", data=h5py.Empty("f4"))

    path = h5(tmp_path / "a.h5", fill)
    for key, message in (
        ("chunked", "0 of .* chunks are there; the rest was never written"),
        ("plain", "0 bytes are there, its shape .* needs"),
        ("part", "part: 3 of 4 chunks are there"),
        ("bomb", "chunks of 2147483648 bytes, at most"),
        ("null", "holds nothing"),
    ):
        refused(path, tmp_path / "s.zarr", message, values=key)


def test_hdf5_of_other_types_is_refused(tmp_path):
    def fill(file):
        ragged = file.create_dataset("ragged", (4,), h5py.vlen_dtype("f4"))
        ragged[0] = [1.0, 2.0]
        file.create_dataset("reference", (4,), h5py.ref_dtype)
        file["feats"] = FEATS
        file["records"] = np.zeros((4, 5, 3), [("a", "f4")])

    path = h5(tmp_path / "a.h5", fill)
    refused(
        path,
        tmp_path / "s.zarr",
        r"ragged: arrays of different lengths \(vlen\): lay the clips end to end",
        values="ragged",
    )
    refused(path, tmp_path / "s.zarr", "reference: references, not numbers", ids="reference")
    refused(path, tmp_path / "s.zarr", "records: .* expected numbers", values="records")


def test_a_damaged_chunk_is_named(tmp_path):
    noise = np.random.default_rng(0).normal(size=(4, 50, 3)).astype("f4")
    path = h5(tmp_path / "a.h5", lambda f: f.create_dataset("feats", data=noise, chunks=(4, 50, 3), fletcher32=True))
    with h5py.File(path) as file:
        at = file["feats"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[at + 100] ^= 1
    path.write_bytes(data)
    refused(path, tmp_path / "s.zarr", "a.h5: feats: damaged, cannot be read")


def npy_header(shape, descr="<f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_numpy_files_that_claim_more_than_is_there_are_refused(tmp_path):
    header = npy_header((1 << 40, 1 << 10, 3))
    (tmp_path / "feats.npy").write_bytes(header + FEATS.tobytes())
    refused(tmp_path / "feats.npy", tmp_path / "s.zarr", "feats.npy: no whole .npy file")
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as file:
            file.writestr("feats.npy", header + FEATS.tobytes())
        refused(tmp_path / "a.npz", tmp_path / "s.zarr", "feats: 368 bytes are there, its shape .* needs")


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path):
    """The directory claims what the header needs, and less is there."""
    shape = (4, 500, 3)
    data = npy_header(shape) + FEATS.tobytes()
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("feats.npy", data)
    claimed = len(npy_header(shape)) + 4 * 500 * 3 * 4
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", len(data)), struct.pack("<I", claimed)))
    refused(path, tmp_path / "s.zarr", "a.npz: feats: (damaged|no whole)")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("clips", [4, 4000])
def test_a_flipped_bit_in_an_npz_is_noticed(tmp_path, compressed, clips):
    feats = np.random.default_rng(0).integers(0, 9, (clips, 5, 3)).astype("float32")
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, feats=feats)
    whole = path.read_bytes()
    for share in (0.5, 0.7):
        data = bytearray(whole)
        data[int(len(data) * share)] ^= 1
        path.write_bytes(data)
        refused(
            path, tmp_path / "s.zarr", "a.npz: feats: (no whole .npy file|damaged, cannot be read)|no whole .npz file"
        )


def test_names_in_a_zip_never_become_paths(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    buffer = io.BytesIO()
    np.save(buffer, FEATS)
    with zipfile.ZipFile(inside / "a.npz", "w") as file:
        for name in ("../../evil.npy", "/abs.npy"):
            file.writestr(name, buffer.getvalue())
    run(inside / "a.npz", tmp_path / "s.zarr", values="../../evil")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inside", "s.zarr"]
    refused(inside / "a.npz", tmp_path / "t.zarr", 'no array "../a"', UsageError, values="../a")


def test_links_out_of_a_folder_of_arrays_are_refused(tmp_path):
    np.save(tmp_path / "secret.npy", FEATS)
    (tmp_path / "f").mkdir()
    (tmp_path / "f/feats.npy").symlink_to(tmp_path / "secret.npy")
    refused(tmp_path / "f", tmp_path / "s.zarr", "leads out of the store")
    refused(tmp_path / "f", tmp_path / "s.zarr", 'no array "../secret"', UsageError, values="../secret")
    (tmp_path / "f/bmla.json").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(StoreError, match="leads out of the store"):
        is_export(tmp_path / "f")


# -- exports of bmla that somebody changed


def make(path):
    clips = ClipTable.from_clips(Clip(f"c{i}", 0, 1, label="a", text=None if i % 2 else "x") for i in range(6))
    store = create_store(path, dataset="toy", task="t", classes=("a",), clips=clips, shard_size=4)
    store.add_stream(AUDIO, 9)
    for shard in (0, 1):
        store.write_shard("audio.toy", shard, [clip(i) for i in range(*store.extent(shard))])
    return store


def clip(i):
    if i == 3:
        return ClipFeatures(None, None, Failure("c3", "decode", "MediaError", "it broke"))
    return ClipFeatures(np.full((i + 1, 3), i + 1, "float16"), np.ones(i + 1, bool))


def exported(tmp_path, format_name, padded=False):
    plan = plan_export(make(tmp_path / "s.zarr"), format_name, padded=padded)
    run_export(plan, format_name, tmp_path / "out")
    return tmp_path / "out"


def import_refused(out, target, message, error=StoreError):
    with pytest.raises(error, match=message) as raised:
        import_export(out, target)
    assert "\n" not in str(raised.value)
    assert not target.exists()


def test_any_flipped_bit_in_a_folder_of_arrays_is_noticed(tmp_path):
    """Every file, three bytes in each."""
    out = exported(tmp_path, "npy")
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for at in (len(whole) // 6, len(whole) // 2, len(whole) - 1):
            data = bytearray(whole)
            data[at] ^= 0x04
            path.write_bytes(data)
            if not harmless(path, whole, bytes(data)):
                with pytest.raises(BmlaError):
                    import_export(out, tmp_path / "t.zarr")
                assert not (tmp_path / "t.zarr").exists(), path
        path.write_bytes(whole)
    import_export(out, tmp_path / "t.zarr")


@pytest.mark.parametrize("padded", [False, True])
def test_a_flipped_bit_in_hdf5_is_noticed_or_changes_nothing(tmp_path, padded):
    """Bytes all over the file, HDF5's own tables among them. Some lie between its parts and mean nothing."""
    out = exported(tmp_path, "h5", padded)
    whole, store, noticed = out.read_bytes(), open_store(tmp_path / "s.zarr"), 0
    places = range(11, len(whole), len(whole) // 40)
    for at in places:
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        out.write_bytes(data)
        try:
            import_export(out, tmp_path / "t.zarr")
        except BmlaError:
            assert not (tmp_path / "t.zarr").exists()
            noticed += 1
        else:
            assert open_store(tmp_path / "t.zarr").digest(["audio.toy"]) == store.digest(["audio.toy"])
            shutil.rmtree(tmp_path / "t.zarr")
    assert noticed > len(places) / 2


def harmless(path, whole, data):
    """A .npy header's padding; JSON text of the same value."""
    try:
        if path.suffix == ".npy":
            return np.array_equal(*(np.load(io.BytesIO(d), allow_pickle=False) for d in (whole, data)))
        return path.suffix == ".json" and json.loads(whole) == json.loads(data)
    except ValueError:
        return False


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("values", lambda a: a + 1, "its content is not what was exported"),
        ("values", lambda a: a[:-1], "expected float16"),
        ("values", lambda a: a.astype("float32"), "values float32"),
        ("valid", lambda a: ~a, "its content is not what was exported"),
        ("valid", lambda a: a.astype("uint8"), "damaged: values"),
        ("clips", lambda a: a[::-1], "do not ascend within the clip table"),
        ("clips", lambda a: a[[0, 2, 1, 3, 4]], "do not ascend within the clip table"),
        ("clips", lambda a: a + 1, "do not ascend within the clip table"),
        ("clips", lambda a: a - 1, "do not ascend within the clip table"),
        ("clips", lambda a: a[:-1], "a clip's length is not between 1 and 9, or one lacks it"),
        ("clips", lambda a: a.astype("int32"), r"clips: damaged: int32 \(5,\), expected int64 \(n,\)"),
        ("clips", lambda a: np.array([0, 1, 2, 3, 5]), "not every clip has either features or a failure"),
        ("last", lambda a: a * 0, "a clip's length is not between 1 and 9"),
        ("last", lambda a: a * 4, "a clip's length is not between 1 and 9"),
        ("last", lambda a: a[:-1], "or one lacks it"),
        ("last", lambda a: a + 1, "offsets do not begin at 0|expected float16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("format_name", ["h5", "npy"])
def test_an_export_that_contradicts_itself_is_refused(tmp_path, format_name, padded, name, change, message):
    out = exported(tmp_path, format_name, padded)
    name = {"last": "length" if padded else "offsets"}.get(name, name)
    if format_name == "npy":
        path = out / "streams/audio.toy" / f"{name}.npy"
        np.save(path, change(np.load(path)))
    else:
        with h5py.File(out, "r+") as file:
            group = file["streams/audio.toy"]
            array = change(group[name][()])
            del group[name]
            group[name] = array
    import_refused(out, tmp_path / "t.zarr", message)


DOCUMENTS = [
    ("", {"exchange": 2}, "an export of format 2; this bmla reads format 1"),
    ("", {"layout": "odd"}, "damaged: layout 'odd'"),
    ("", {"streams": [7]}, "a stream's name is no text"),
    ("", {"streams": ["../../evil"]}, "is no stream name"),
    ("", {"streams": ["audio.toy", "audio.more"]}, "audio.more: damaged: its document is missing"),
    ("", {"identity": {"format": 1}}, "no seal"),
    ("", {"identity": None}, "no bmla store"),
    ("audio.toy", {"steps": 0}, "damaged: steps 0"),
    ("audio.toy", {"steps": True}, "damaged: steps True"),
    ("audio.toy", {"steps": 1 << 60}, "damaged: steps 1152921504606846976"),
    ("audio.toy", {"compression": "pickle"}, "compression 'pickle'"),
    ("audio.toy", {"content": 7}, "no text"),
    ("audio.toy", {"failures": [{"clip": 1, "step": "", "error": "", "message": ""}]}, "no text"),
    ("audio.toy", {"failures": [{"clip": "c3"}]}, "damaged .TypeError"),
    ("audio.toy", {"failures": []}, "not every clip has either features or a failure"),
    ("audio.toy", {"spec": {**AUDIO.to_dict(), "name": "audio.x"}}, "the specification is that of audio.x, expected audio.toy"),
    ("audio.toy", {"spec": {**AUDIO.to_dict(), "feature_shape": [1 << 19, 1 << 19]}}, "a step of 274877906944 numbers"),
    ("audio.toy", {"spec": None}, "damaged .TypeError"),
]  # fmt: skip


@pytest.mark.parametrize(("stream", "change", "message"), DOCUMENTS)
@pytest.mark.parametrize("format_name", ["h5", "npy"])
def test_documents_that_cannot_be_are_refused(tmp_path, format_name, stream, change, message):
    """Sealed anew, as somebody who means harm would."""
    out = exported(tmp_path, format_name)
    error = (StoreError, UsageError)
    if format_name == "npy":
        path = out / "streams" / stream / "bmla.json" if stream else out / "bmla.json"
        path.write_text(resealed(path.read_text(), change))
    else:
        with h5py.File(out, "r+") as file:
            group = file[f"streams/{stream}"] if stream else file
            text = resealed(group["bmla"][()], change)
            del group["bmla"]
            group["bmla"] = np.bytes_(text.encode())
    import_refused(out, tmp_path / "t.zarr", message, error)


@pytest.mark.parametrize("format_name", ["h5", "npy"])
def test_a_shard_beyond_what_a_writer_may_take_is_refused(tmp_path, format_name, monkeypatch):
    out = exported(tmp_path, format_name)
    monkeypatch.setattr("bmla.store.exchange.target.MOST_SHARD_BYTES", 100)
    import_refused(out, tmp_path / "t.zarr", "a shard of 4 clips of .* steps would take")


def resealed(text, change):
    content = {k: v for k, v in json.loads(text).items() if k != "seal"}
    return json.dumps(sealed({**content, **change}))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"seal": NaN}', "7", '{"exchange": 1}'])
def test_documents_that_are_none_are_refused(tmp_path, text):
    out = exported(tmp_path, "npy")
    (out / "bmla.json").write_text(text)
    import_refused(out, tmp_path / "t.zarr", "damaged")


@pytest.mark.parametrize(
    ("key", "make", "message"),
    [
        ("clips/id", lambda a: a[:-1], "columns of different length"),
        ("clips/label", lambda a: np.arange(6), "label: int64, expected text"),
        ("clips/label", lambda a: np.array([b"\xff"] * 6), "not UTF-8"),
        ("clips/label", lambda a: np.array([b"b"] * 6), "its clip table is not the one that was exported"),
        ("clips/start_s", lambda a: a.astype("f4"), "start_s: damaged: float32, expected float64"),
        ("clips/start_s", lambda a: a + 5, "is empty or starts before 0"),
        ("clips_null/text", lambda a: ~a, "its clip table is not the one that was exported"),
        ("clips_null/text", lambda a: a[:-1], "text: damaged: not one value a clip"),
        ("clips_null/id", lambda a: np.ones(6, bool), "this column can't lack values"),
        ("clips/fps", lambda a: None, 'no array "clips/fps"'),
    ],
)
def test_clip_tables_that_cannot_be_are_refused(tmp_path, key, make, message):
    out = exported(tmp_path, "h5")
    with h5py.File(out, "r+") as file:
        array = make(file[key][()] if key in file else None)
        if key in file:
            del file[key]
        if array is not None:
            file[key] = array
    import_refused(out, tmp_path / "t.zarr", message)


def test_a_sparse_array_of_an_export_is_not_believed(tmp_path):
    """Row numbers of which nothing is stored: they would read as zeros, without end."""
    out = exported(tmp_path, "h5", padded=True)
    with h5py.File(out, "r+") as file:
        group = file["streams/audio.toy"]
        del group["clips"]
        group.create_dataset("clips", (1 << 50,), "i8", chunks=(1 << 20,))
    import_refused(out, tmp_path / "t.zarr", "chunks are there; the rest was never written")


def test_missing_parts_of_an_export_are_named(tmp_path):
    out = exported(tmp_path, "npy")
    (out / "streams/audio.toy/valid.npy").unlink()
    import_refused(out, tmp_path / "t.zarr", 'audio.toy: damaged: out: no array "streams/audio.toy/valid"')
    (out / "clips.parquet").unlink()
    import_refused(out, tmp_path / "t.zarr", "clips.parquet: missing")
