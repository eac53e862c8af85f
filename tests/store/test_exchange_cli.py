"""`bmla store export` and `import` on small stores: one line of result, notes on stderr, one clear line for every error."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bmla.cli import Group
from bmla.commands.exchange import export, import_
from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.ledger import Failure
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec

WORDS = (
    *("--stream", "audio.mine", "--modality", "audio", "--rate-hz", 50, "--values", "feats"),
    *("--dataset", "mine", "--task", "emotion", "--provenance", "wav2vec, by Kim"),
)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """Whether the bytes survive a power cut is not the question here, and asking the disk takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def run(*words):
    group = Group("store", commands={"export": export, "import": import_})
    return CliRunner().invoke(group, [str(w) for w in words])


@pytest.fixture
def store(tmp_path):
    clips = ClipTable.from_clips(
        Clip(f"c{i}", 0, 1, label="ab"[i % 2], split=("train", "dev")[i % 2]) for i in range(9)
    )
    made = create_store(tmp_path / "s.zarr", dataset="toy", task="t", classes=("a", "b"), clips=clips, shard_size=4)
    for name in ("audio.toy", "mouth.dct"):
        made.add_stream(
            StreamSpec(name, name.split(".")[0].replace("mouth", "visual"), "toy", "float16", (3,), 25.0, "any"), 9
        )
        for shard in made.pending(name):
            rows = range(*made.extent(shard))
            made.write_shard(name, shard, [clip(i) for i in rows])
    return made


def clip(i):
    if i == 5:
        return ClipFeatures(None, None, Failure("c5", "faces", "NoFace", "no face"))
    return ClipFeatures(np.full((i + 1, 3), i, "float16"), np.ones(i + 1, bool))


@pytest.mark.parametrize("format_name", ["h5", "npy"])
def test_a_store_goes_out_and_comes_back_in(tmp_path, store, format_name):
    out, back = tmp_path / "out", tmp_path / "t.zarr"
    shown = run("export", store.path, "--format", format_name, "--stream", "audio.toy,mouth.dct", "--out", out)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == f"{out}: 9 clips, audio.toy, mouth.dct, 0.0 MB of features\n"
    assert "audio.toy: 1 clips without features" in shown.stderr
    shown = run("import", out, "--store", back)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == [
        f"{back}: {name}, 9 clips, 1 without features" for name in ("audio.toy", "mouth.dct")
    ]
    assert "c5: NoFace: no face" in shown.stderr
    assert open_store(back).digest(["audio.toy", "mouth.dct"]) == store.digest(["audio.toy", "mouth.dct"])


def test_json_is_for_programs(tmp_path, store):
    out = tmp_path / "out"
    shown = run(
        "export", store.path, "--format", "webdataset", "--stream", "audio.toy", "--out", out, "--json", "--quiet"
    )
    assert json.loads(shown.stdout) == {"out": str(out), "clips": 9, "bytes": 39 * 6, "failed": {"audio.toy": 1}}
    np.savez(tmp_path / "f.npz", feats=np.ones((9, 4, 3), "float32"))
    shown = run("import", tmp_path / "f.npz", "--store", tmp_path / "t.zarr", *WORDS, "--json", "--quiet")
    (done,) = json.loads(shown.stdout)
    assert (done["stream"], done["clips"], done["failures"], len(done["notes"])) == ("audio.mine", 9, [], 2)


def test_split_and_padded_are_passed_on(tmp_path, store):
    shown = run("export", store.path, "--format", "npy", "--split", "dev", "--padded", "--out", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    assert np.load(tmp_path / "out/streams/audio.toy/values.npy").shape == (3, 8, 3)


def test_foreign_arrays_come_in_by_all_the_options(tmp_path):
    arrays = {}
    for group, n in (("train", 5), ("valid", 2), ("test", 2)):
        arrays |= {
            f"{group}/feats": np.full((n, 2, 4, 3), n, "float64"), f"{group}/n": np.arange(n) % 4 + 1,
            f"{group}/ok": np.ones((n, 4), bool), f"{group}/y": np.arange(n) % 2,
            f"{group}/id": [f"{group}-{i}" for i in range(n)], f"{group}/d": np.full(n, 0.5),
        }  # fmt: skip
    np.savez(tmp_path / "f.npz", **arrays)
    shown = run(
        "import", tmp_path / "f.npz", "--store", tmp_path / "t.zarr", *WORDS, "--lengths", "n", "--valid", "ok", "--labels", "y",
        "--classes", "calm,angry", "--split-groups", "train,valid", "--split-groups", "test", "--ids", "id", "--durations", "d",
        "--layer", 1, "--dtype", "float16",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == f"{tmp_path / 't.zarr'}: audio.mine, 9 clips, 0 without features\n"
    assert shown.stderr.endswith("note: audio.mine: float64 became float16, rounded\n")
    made = open_store(tmp_path / "t.zarr")
    assert made.classes == ("calm", "angry")
    assert made.clips.counts("split") == {"train": 5, "dev": 2, "test": 2}
    assert made.spec("audio.mine").source["statement"] == "wav2vec, by Kim"
    assert made.load("audio.mine").lengths.tolist() == [1, 2, 3, 4, 1, 1, 2, 1, 2]


def test_many_failures_are_not_all_shown(tmp_path):
    np.savez(tmp_path / "f.npz", feats=np.ones((20, 4, 3), "float32"), n=np.arange(20) // 10)
    shown = run("import", tmp_path / "f.npz", "--store", tmp_path / "t.zarr", *WORDS, "--lengths", "n")
    assert "20 clips, 10 without features" in shown.stdout
    assert shown.stderr.count("NoSteps") == 5
    assert f"and 5 more: `bmla store failures {tmp_path / 't.zarr'}`" in shown.stderr


def test_errors_are_one_line(tmp_path, store):
    np.savez(tmp_path / "f.npz", feats=np.ones((9, 4, 3), "float32"))
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04N.")
    assert run("export", store.path, "--out", tmp_path / "o.h5").exit_code == 0
    new = ("--store", tmp_path / "t.zarr")
    for words, code, message in (
        (("export", store.path, "--out", tmp_path / "o.h5"), 2, "there is something here already"),
        (("export", store.path, "--out", tmp_path / "o2", "--format", "csv"), 2, 'unknown export format "csv"; known: h5, npy'),
        (("export", tmp_path / "none.zarr", "--out", tmp_path / "o2"), 2, "nothing here"),
        (("import", tmp_path / "o.h5", *new, "--values", "x", "--rate-hz", 5), 2, "leave out --rate-hz, --values"),
        (("import", tmp_path / "f.npz", *new, "--values", "feats"), 2, "must be said: --stream (one), --modality, --rate-hz, --dataset"),
        (("import", tmp_path / "f.npz", *new, *WORDS, "--stream", "audio.two"), 2, "must be said: --stream (one)"),
        (("import", tmp_path / "a.pkl", *new, *WORDS), 1, "a pickle can run its author's code"),
        (("import", tmp_path / "o.h5", "--store", "s3://team/t.zarr"), 2, "import into a store on a local disk"),
    ):  # fmt: skip
        shown = run(*words, "--quiet")
        assert shown.exit_code == code, shown.output
        assert message in shown.output
        assert shown.output.count("\n") == 1
    assert not (tmp_path / "t.zarr").exists()


@pytest.mark.parametrize("command", [export, import_])
def test_every_option_is_documented_with_an_example(command):
    shown = run(command.name, "--help").output
    assert f"bmla store {command.name}" in shown
    assert all(p.help for p in command.params if p.param_type_name == "option")
