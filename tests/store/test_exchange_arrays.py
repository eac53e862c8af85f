"""Foreign arrays enter a store as they are, with what the user says of them; what can't be kept is refused by name."""

import hashlib

import h5py
import numpy as np
import pytest

from bmla.store import open_store
from bmla.store.errors import StoreError, StoreMismatch, UnknownName, UsageError
from bmla.store.exchange import ArrayImport, import_arrays, is_export
from bmla.store.verify import verify

N, T, L = 11, 7, 3
LENGTHS = np.array([7, 1, 3, 7, 2, 5, 6, 1, 4, 7, 2])
SPLITS = ["train", "valid", "test", "train", "", "train", "val", "dev", "test", "train", "validation"]
WORDS = dict(
    stream="audio.mine", modality="audio", rate_hz=50.0, values="feats", dataset="mine", task="emotion",
    provenance="wav2vec, by Kim",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """Whether the bytes survive a power cut is not the question here, and asking the disk takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def values(*shape, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape).astype(dtype) if dtype == "uint8" else rng.normal(size=shape).astype(dtype)


def save(folder, kind, arrays):
    """The same arrays as HDF5, .npz (compressed or not) or a folder of .npy files."""
    if kind == "h5":
        with h5py.File(folder / "f.h5", "w") as file:
            for key, array in arrays.items():
                a = np.asarray(array)
                file.create_dataset(key, data=a.astype(object) if a.dtype.kind == "U" else a)
        return folder / "f.h5"
    if kind.startswith("npz"):
        (np.savez if kind == "npz" else np.savez_compressed)(folder / "f.npz", **arrays)
        return folder / "f.npz"
    for key, array in arrays.items():
        path = folder / "f" / f"{key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.asarray(array), allow_pickle=False)
    return folder / "f"


def run(path, target, **words):
    choice = ArrayImport(**{**WORDS, **words})
    done = import_arrays(path, target, choice)
    return done, open_store(target)


def clips_of(store, stream="audio.mine"):
    packed = store.load(stream)
    cuts = packed.offsets[1:-1]
    features = zip(np.split(packed.values, cuts), np.split(packed.valid, cuts), strict=True)
    return dict(zip(packed.clips.tolist(), features, strict=True))


KINDS = ["h5", "npz", "npz-compressed", "npy"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4"])
def test_padded_arrays_with_lengths_come_in_as_they_are(tmp_path, kind, dtype):
    feats = values(N, T, L, dtype=dtype)
    arrays = {
        "feats": feats,
        "n": LENGTHS,
        "label": ["b", "a"] * 5 + [""],
        "split": SPLITS,
        "name": [f"v/{i}.x" for i in range(N)],
    }
    done, store = run(
        save(tmp_path, kind, arrays), tmp_path / "s.zarr", lengths="n", labels="label", splits="split", ids="name"
    )
    assert store.spec("audio.mine").dtype == np.dtype(dtype).newbyteorder("=").name
    clips = clips_of(store)
    assert list(clips) == list(range(N))
    for i, (found, valid) in clips.items():
        np.testing.assert_array_equal(found, feats[i, : LENGTHS[i]])
        assert valid.all()
    assert store.classes == ("a", "b")
    assert store.clips.column("id").tolist() == [f"v/{i}.x" for i in range(N)]
    assert store.clips.column("label").tolist() == ["b", "a"] * 5 + [None]
    assert store.clips.column("split").tolist() == [
        "train", "dev", "test", "train", None, "train", "dev", "dev", "test", "train", "dev",
    ]  # fmt: skip
    np.testing.assert_array_equal(store.clips.column("end_s"), LENGTHS / 50)
    assert store.identity.options["times"] == "0 to steps / 50 Hz of audio.mine"
    assert done.notes == ()
    assert verify(store, deep=True) == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_lengths_all_steps_count_and_what_is_missing_is_said(tmp_path, kind):
    feats = values(N, T, L)
    done, store = run(save(tmp_path, kind, {"feats": feats}), tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.load("audio.mine").values, feats.reshape(-1, L))
    assert store.clips.column("id").tolist() == [f"{i:06d}" for i in range(N)]
    assert [note.split(":")[0] for note in done.notes] == ["no labels", "no splits"]


@pytest.mark.parametrize("kind", KINDS)
def test_clips_end_to_end_come_in_by_offsets(tmp_path, kind):
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype("int32")
    feats, valid = values(offsets[-1], L, dtype="float16"), values(offsets[-1]) > 0
    path = save(tmp_path, kind, {"feats": feats, "at": offsets, "ok": valid})
    _, store = run(path, tmp_path / "s.zarr", offsets="at", valid="ok")
    packed = store.load("audio.mine")
    np.testing.assert_array_equal(packed.values, feats)
    np.testing.assert_array_equal(packed.valid, valid)
    np.testing.assert_array_equal(packed.offsets, offsets)


def mmsa(seed=0):
    """Three groups as MMSA keeps them, of other lengths of time each."""
    arrays = {}
    for group, n, t in (("train", 9, 7), ("valid", 4, 5), ("test", 5, 9)):
        lengths = np.random.default_rng(n).integers(1, t + 1, n)
        arrays |= {
            f"{group}/audio": values(n, t, 4, seed=n),
            f"{group}/audio_lengths": lengths,
            f"{group}/vision": values(n, t + 3, 6, seed=n + 1),
            f"{group}/classification_labels": np.arange(n, dtype="float64") % 3,
            f"{group}/id": [f"{group}{i}$_${i}" for i in range(n)],
        }
    return arrays


@pytest.mark.parametrize("kind", KINDS)
def test_split_groups_as_mmsa_has_them_become_one_store_of_two_streams(tmp_path, kind):
    arrays, groups = mmsa(), ("train", "valid", "test")
    path = save(tmp_path, kind, arrays)
    common = dict(split_groups=groups, labels="classification_labels", ids="id", classes=("neg", "neutral", "pos"))
    run(path, tmp_path / "s.zarr", values="audio", lengths="audio_lengths", **common)
    vision = dict(stream="visual.facet", modality="visual", rate_hz=15.0, values="vision")
    done, store = run(path, tmp_path / "s.zarr", **vision, **common)
    assert done.notes == ()
    assert store.streams() == ["audio.mine", "visual.facet"]
    assert store.clips.counts("split") == {"train": 9, "dev": 4, "test": 5}
    assert store.clips.column("label").tolist() == [
        ["neg", "neutral", "pos"][i % 3] for n in (9, 4, 5) for i in range(n)
    ]
    assert store.clips.column("id").tolist() == [i for g in groups for i in arrays[f"{g}/id"]]
    audio = [a[:n] for g in groups for a, n in zip(arrays[f"{g}/audio"], arrays[f"{g}/audio_lengths"], strict=True)]
    np.testing.assert_array_equal(store.load("audio.mine").values, np.concatenate(audio))
    facet = np.concatenate([arrays[f"{g}/vision"].reshape(-1, 6) for g in groups])
    np.testing.assert_array_equal(store.load("visual.facet").values, facet)
    assert store.steps("visual.facet") == 12
    assert store.spec("audio.mine").source["key"]["values"] == "audio"
    assert store.spec("audio.mine").source["split_groups"] == list(groups)


@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_of_several_is_taken(tmp_path, kind):
    feats = values(N, 5, T, L)
    path = save(tmp_path, kind, {"feats": feats, "n": LENGTHS})
    for layer in (0, 4):
        _, store = run(path, tmp_path / f"{layer}.zarr", layer=layer, lengths="n")
        for i, (found, _) in clips_of(store).items():
            np.testing.assert_array_equal(found, feats[i, layer, : LENGTHS[i]])
        assert store.spec("audio.mine").parameters == {"layer": layer}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_kept_as_bytes(tmp_path, kind):
    crops = values(N, T, 8, 6, dtype="uint8")
    _, store = run(
        save(tmp_path, kind, {"feats": crops}),
        tmp_path / "s.zarr",
        stream="mouth.mine",
        modality="visual",
        rate_hz=25.0,
    )
    assert store.spec("mouth.mine").feature_shape == (8, 6)
    np.testing.assert_array_equal(store.load("mouth.mine").values.reshape(crops.shape), crops)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_in_columns_first_order_are_read_right(tmp_path, kind):
    feats = np.asfortranarray(values(N, T, L))
    _, store = run(save(tmp_path, kind, {"feats": feats}), tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.load("audio.mine").values, feats.reshape(-1, L))


def test_a_single_npy_file_will_do(tmp_path):
    np.save(tmp_path / "feats.npy", values(N, T, L))
    _, store = run(tmp_path / "feats.npy", tmp_path / "s.zarr")
    assert len(store.load("audio.mine")) == N
    assert store.spec("audio.mine").source["imported_from"] == "feats.npy"


def test_provenance_is_the_users_words_and_the_files_digests(tmp_path):
    path = save(tmp_path, "h5", {"feats": values(N, T, L), "n": LENGTHS})
    _, store = run(path, tmp_path / "s.zarr", lengths="n")
    spec = store.spec("audio.mine")
    assert spec.encoder == "imported"
    assert spec.source == {
        "imported_from": "f.h5",
        "sha256": {"f.h5": hashlib.sha256(path.read_bytes()).hexdigest()},
        "statement": "wav2vec, by Kim",
        "key": {"values": "feats", "lengths": "n"},
    }
    path = save(tmp_path, "npy", {"feats": values(N, T, L), "n": LENGTHS, "other": LENGTHS})
    _, store = run(path, tmp_path / "t.zarr", lengths="n")
    digests = {f"{k}.npy": hashlib.sha256((path / f"{k}.npy").read_bytes()).hexdigest() for k in ("feats", "n")}
    assert store.spec("audio.mine").source["sha256"] == digests


def test_same_input_gives_the_same_bytes(tmp_path):
    path = save(tmp_path, "npz", mmsa())
    words = dict(values="audio", split_groups=("train", "valid", "test"), labels="classification_labels", ids="id")
    for name in ("one", "two"):
        run(path, tmp_path / name, **words)
    found = [
        {p.relative_to(tmp_path / n): p.read_bytes() for p in sorted((tmp_path / n).rglob("*")) if p.is_file()}
        for n in ("one", "two")
    ]
    assert found[0] == found[1]


def test_a_clip_without_steps_is_a_failure_and_not_zeros(tmp_path):
    lengths = LENGTHS.copy()
    lengths[4] = 0
    path = save(tmp_path, "npz", {"feats": values(N, T, L), "n": lengths})
    done, store = run(path, tmp_path / "s.zarr", lengths="n")
    assert [(f.clip, f.error) for f in done.failures] == [("000004", "NoSteps")]
    assert 4 not in clips_of(store)
    assert store.clips[4].end_s == 1 / 50


def test_a_clip_of_a_later_group_is_named_right(tmp_path):
    arrays = mmsa()
    arrays["test/audio_lengths"][3] = 0
    arrays["test/audio"][4, 0] = 1e6
    words = dict(values="audio", lengths="audio_lengths", split_groups=("train", "valid", "test"), ids="id")
    path = save(tmp_path, "npz", arrays)
    done, _ = run(path, tmp_path / "s.zarr", **words)
    assert [f.clip for f in done.failures] == ["test3$_$3"]
    with pytest.raises(StoreError, match=r'test/audio: clip "test4\$_\$4": a value beyond'):
        run(path, tmp_path / "t.zarr", **words, dtype="float16")


def test_durations_become_the_cuts(tmp_path):
    path = save(
        tmp_path, "npz", {"feats": values(N, T, L), "d": LENGTHS / 3, "wrong": LENGTHS / 4, "zero": LENGTHS * 0.0}
    )
    _, store = run(path, tmp_path / "s.zarr", durations="d")
    np.testing.assert_array_equal(store.clips.column("end_s"), LENGTHS / 3)
    run(path, tmp_path / "s.zarr", durations="d", stream="audio.more")
    with pytest.raises(StoreMismatch, match=r"clip 0 lasts 2\.33333 s there and 1\.75 s in f\.npz"):
        run(path, tmp_path / "s.zarr", durations="wrong", stream="audio.other")
    with pytest.raises(StoreError, match=r"f\.npz: zero: durations must be seconds above 0"):
        run(path, tmp_path / "t.zarr", durations="zero")


def test_double_precision_becomes_single_and_says_so(tmp_path):
    feats = values(N, T, L, dtype="float64")
    done, store = run(save(tmp_path, "npz", {"feats": feats}), tmp_path / "s.zarr")
    assert "audio.mine: float64 became float32, rounded" in done.notes
    assert store.spec("audio.mine").parameters == {"converted_from": "float64"}
    np.testing.assert_array_equal(store.load("audio.mine").values, feats.astype("float32").reshape(-1, L))


def test_whole_numbers_need_a_dtype_and_go_in_unchanged_or_not_at_all(tmp_path):
    counts = np.arange(N * T * L).reshape(N, T, L)
    path = save(tmp_path, "npz", {"feats": counts, "large": counts + 2**24 + 1, "twice": counts * 2})
    with pytest.raises(UsageError, match=r"f\.npz: feats: int64 can't be stored: give --dtype"):
        run(path, tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r'clip "000000": int64 does not go into float32 unchanged'):
        run(path, tmp_path / "s.zarr", values="large", dtype="float32")
    with pytest.raises(
        StoreError, match='clip "000006": int64 does not go into uint8 unchanged'
    ):  # 2 * 6 * 21 + 4 > 255
        run(path, tmp_path / "s.zarr", values="twice", dtype="uint8")
    assert not (tmp_path / "s.zarr").exists()
    done, store = run(path, tmp_path / "s.zarr", dtype="float32")
    np.testing.assert_array_equal(store.load("audio.mine").values, counts.reshape(-1, L))
    assert "audio.mine: int64 became float32, unchanged" in done.notes


def test_overflow_is_refused_and_names_the_clip(tmp_path):
    feats = values(N, T, L)
    feats[6, 2, 1] = 70000
    path = save(tmp_path, "npz", {"feats": feats})
    with pytest.raises(StoreError, match=r'feats: clip "000006": a value beyond the largest float16 \(65504\)'):
        run(path, tmp_path / "s.zarr", dtype="float16")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["h5", "npy"])
def test_what_is_not_finite_is_refused_and_names_the_first_clip(tmp_path, bad, kind):
    feats = values(N, T, L)
    feats[[5, 9], 3, 1] = bad
    path = save(tmp_path, kind, {"feats": feats, "n": np.full(N, 4), "short": np.full(N, 3)})
    with pytest.raises(StoreError, match=r'clip "000005" holds NaN or infinity at step 3 \(the first such clip\)'):
        run(path, tmp_path / "s.zarr", lengths="n")
    assert not (tmp_path / "s.zarr").exists()
    run(path, tmp_path / "s.zarr", lengths="short")  # what lies behind a clip's end is no part of it


@pytest.mark.parametrize(
    ("arrays", "words", "error", "message"),
    [
        ({}, {"values": "nothing"}, UsageError, r'f\.npz: no array "nothing"; it has: feats'),
        ({}, {"lengths": "n"}, UsageError, 'no array "n"'),
        ({"feats": values(N, T)}, {}, UsageError, r"shape \(11, 7\), expected \(N, T, L\), or \(steps, L\) with --offsets"),
        ({"feats": values(N, 2, T, L)}, {}, UsageError, r"four axes are read as \(N, layers, T, L\): give --layer 0 to 1"),
        ({"feats": values(N, 2, T, L)}, {"layer": 2}, UsageError, r"--layer 2: f\.npz: feats has layers 0 to 1"),
        ({}, {"layer": 0}, UsageError, r"--layer: .* expected \(N, layers, T, L\)"),
        ({"n": LENGTHS + 1}, {"lengths": "n"}, StoreError, "lengths from 2 to 8, expected 0 to the 7 steps"),
        ({"n": LENGTHS - 2}, {"lengths": "n"}, StoreError, "lengths from -1 to 5"),
        ({"n": LENGTHS[1:]}, {"lengths": "n"}, StoreError, r"f\.npz: n: shape \(10,\), expected \(11,\): one value a clip"),
        ({"n": LENGTHS + 0.5}, {"lengths": "n"}, StoreError, "not all are whole numbers"),
        ({"n": LENGTHS * np.nan}, {"lengths": "n"}, StoreError, "not all are whole numbers"),
        ({"n": ["a"] * N}, {"lengths": "n"}, StoreError, "expected whole numbers"),
        ({"n": LENGTHS * 0}, {"lengths": "n"}, StoreError, "no clip has a step"),
        ({"feats": values(0, T, L)}, {}, StoreError, "no clip has a step"),
        ({"feats": values(20, L), "at": [0, 5, 4, 20]}, {"offsets": "at"}, StoreError, "ascend from 0 to the 20 steps"),
        ({"feats": values(20, L), "at": [0, 5, 19]}, {"offsets": "at"}, StoreError, "got 0 to 19"),
        ({"feats": values(20, L), "at": [1, 5, 20]}, {"offsets": "at"}, StoreError, "got 1 to 20"),
        ({"feats": values(20), "at": [0, 20]}, {"offsets": "at"}, StoreError, r"expected \(N \+ 1,\) for \(steps, \*F\)"),
        ({"ok": np.ones((N, T - 1), bool)}, {"valid": "ok"}, StoreError, r"shape \(11, 6\), expected \(11, 7\)"),
        ({"ok": np.full((N, T), 2)}, {"valid": "ok"}, StoreError, "other values than true, false, 0 and 1"),
        ({"y": values(N)}, {"labels": "y"}, StoreError, "not all are whole numbers"),
        ({"y": np.arange(N)}, {"labels": "y", "classes": ("a", "b")}, StoreError, r"label 2 is no position in the 2 classes \(0 to 1\)"),
        ({"y": np.arange(N) - 1}, {"labels": "y", "classes": tuple("abcdefghijk")}, StoreError, "label -1 is no position"),
        ({"y": ["a", "c"] * 5 + ["a"]}, {"labels": "y", "classes": ("a", "b")}, StoreError, 'label "c" is none of --classes a, b'),
        ({"s": ["train", "eval"] * 5 + [""]}, {"splits": "s"}, StoreError, 'unknown split "eval"; expected train, dev'),
        ({"s": np.arange(N)}, {"splits": "s"}, StoreError, "expected text"),
        ({"i": ["a"] * N}, {"ids": "i"}, StoreError, 'id "a" stands more than once'),
        ({"i": ["a", "", *"cdefghijk"]}, {"ids": "i"}, StoreError, "clip 1 has an empty id"),
        ({"i": np.full(N, b"\xff")}, {"ids": "i"}, StoreError, "text that is not UTF-8"),
        ({"feats": values(N, T, L).astype("complex64")}, {}, StoreError, "complex64, expected numbers"),
        ({"feats": np.zeros((N, T, L), [("a", "f4")])}, {}, StoreError, "expected numbers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, arrays, words, error, message):
    path = save(tmp_path, "npz", {"feats": values(N, T, L), **arrays})
    with pytest.raises(error, match=message):
        run(path, tmp_path / "s.zarr", **words)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"stream": "mine"}, UsageError, "is no stream name"),
        ({"modality": "text"}, UnknownName, 'unknown modality "text"; known: audio, visual'),
        ({"dtype": "float64"}, UnknownName, 'unknown dtype "float64"'),
        ({"rate_hz": 0.0}, UsageError, "--rate-hz 0.0"),
        ({"rate_hz": float("nan")}, UsageError, "--rate-hz nan"),
        ({"provenance": " "}, UsageError, "say in a sentence where these features come from"),
        ({"offsets": "a", "lengths": "b"}, UsageError, "--offsets and --lengths: give one"),
        ({"offsets": "a", "layer": 0}, UsageError, "--layer: is for padded features"),
        ({"splits": "a", "split_groups": ("train",)}, UsageError, "--splits and --split-groups: give one"),
        ({"split_groups": ("train", "rest")}, UnknownName, 'unknown split group "rest"'),
        ({"classes": ("a",)}, UsageError, "--classes: needs --labels"),
    ],
)
def test_words_that_contradict_themselves_are_refused_before_the_file_is_opened(tmp_path, words, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "not there", tmp_path / "s.zarr", **words)


def test_labels_without_class_names_are_sorted_as_numbers_or_text(tmp_path):
    path = save(
        tmp_path,
        "npz",
        {"feats": values(N, T, L), "y": np.array([10, 9, -1] * 3 + [9, 10]), "w": ["b", "a"] * 5 + ["B"]},
    )
    _, store = run(path, tmp_path / "n.zarr", labels="y")
    assert store.classes == ("-1", "9", "10")
    assert store.clips.column("label").tolist()[:3] == ["10", "9", "-1"]
    _, store = run(path, tmp_path / "w.zarr", labels="w")
    assert store.classes == ("B", "a", "b")


def test_groups_of_other_features_are_refused(tmp_path):
    path = save(tmp_path, "npz", {"train/feats": values(N, T, L), "test/feats": values(N, T, L + 1)})
    with pytest.raises(
        StoreError, match=r"test/feats: float32 features of shape \(4,\), those of .*train/feats are float32 \(3,\)"
    ):
        run(path, tmp_path / "s.zarr", split_groups=("train", "test"))


def test_another_stream_joins_only_the_same_clips(tmp_path):
    arrays = {
        "feats": values(N, T, L), "more": values(N, 3, 2), "few": values(N - 1, 3, 2),
        "id": [f"c{i}" for i in range(N)], "other": [f"c{i}" for i in (*range(N - 2), N - 1, N - 2)],
        "y": list("ab" * 5 + "a"), "z": list("ba" * 5 + "a"),
    }  # fmt: skip
    path, target = save(tmp_path, "npz", arrays), tmp_path / "s.zarr"
    _, store = run(path, target, ids="id", labels="y")
    digest = store.clips.digest()
    second = {"stream": "visual.more", "modality": "visual", "values": "more", "ids": "id"}
    for words, message in (
        ({"ids": "other"}, r"id of clip 9 is 'c9' there and 'c10' in f\.npz"),
        ({"ids": None}, "id of clip 0 is 'c0' there and '000000'"),
        ({"values": "few", "ids": None}, r"holds 11 clips, f\.npz has 10"),
        ({"labels": "z"}, "label of clip 0 is 'a' there and 'b'"),
        ({"labels": "y", "classes": ("b", "a")}, "classes: "),
        ({"dataset": "other"}, "dataset: 'other' here, 'mine' there"),
        ({"task": "other"}, "task: 'other' here, 'emotion' there"),
    ):
        with pytest.raises(StoreMismatch, match=message):
            run(path, target, **{**second, **words})
    assert open_store(target).streams() == ["audio.mine"]
    _, store = run(path, target, **second)
    assert store.streams() == ["audio.mine", "visual.more"]
    assert store.clips.digest() == digest
    with pytest.raises(StoreMismatch, match=r"audio\.mine was made otherwise \(parameters"):
        run(save(tmp_path, "npz", {**arrays, "feats": values(N, T, L).astype("float64")}), target, ids="id", labels="y")


def test_importing_again_changes_nothing_and_other_bytes_are_another_source(tmp_path):
    path, target = save(tmp_path, "h5", {"feats": values(N, T, L)}), tmp_path / "s.zarr"
    run(path, target)
    before = {p: p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()}
    run(path, target)
    assert {p: p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()} == before
    save(tmp_path, "h5", {"feats": values(N, T, L, seed=1)})
    with pytest.raises(StoreMismatch, match=r"source\.sha256\.f\.h5"):
        run(path, target)


def test_a_store_on_a_server_is_not_imported_into(tmp_path):
    path = save(tmp_path, "npz", {"feats": values(N, T, L)})
    with pytest.raises(UsageError, match="import into a store on a local disk"):
        run(path, "s3://team/s.zarr")


def test_arrays_are_no_export(tmp_path):
    for kind in KINDS:
        assert not is_export(save(tmp_path, kind, {"feats": values(N, T, L)}))


def test_shards_of_large_clips_are_smaller(tmp_path, monkeypatch):
    feats = values(64, T, L)
    path = save(tmp_path, "npz", {"feats": feats})
    assert run(path, tmp_path / "s.zarr")[1].shard_size == 8
    monkeypatch.setattr("bmla.store.exchange.target.LEAST_SHARD_SIZE", 4)
    monkeypatch.setattr("bmla.store.exchange.target.SHARD_BYTES", 5 * T * L * 4)
    _, store = run(path, tmp_path / "t.zarr")
    assert store.shard_size == 5
    np.testing.assert_array_equal(store.load("audio.mine").values, feats.reshape(-1, L))
    monkeypatch.setattr("bmla.store.exchange.target.MOST_SHARD_BYTES", 100)
    with pytest.raises(StoreError, match="a shard of 5 clips of 7 steps would take"):
        run(path, tmp_path / "u.zarr")
