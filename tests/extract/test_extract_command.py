"""`bmla extract` as typed: what works, and one clear line, the right exit code and an untouched store for what does not."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bmla.cli import main

SOUND = ("--stream", "audio.logspec", "--workers", "1", "--quiet")


def run(*words):
    return CliRunner().invoke(main, ["extract", *map(str, words)])


def refused(result, code, *parts):
    """One line on what is wrong: no traceback, and nothing that says less."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: "), result.output
    for part in parts:
        assert part in last
    return last


def test_extract_then_info_and_failures(tree, tmp_path):
    store = tmp_path / "lrw.zarr"
    result = run("--dataset", "lrw", "--root", tree, "--store", store, *SOUND)
    assert result.exit_code == 0, result.output
    assert "audio.logspec: 6 done, 0 failed" in result.output
    shown = CliRunner().invoke(main, ["store", "info", str(store)])
    assert "2: ABOUT, PEOPLE" in shown.output
    info = json.loads(CliRunner().invoke(main, ["store", "info", str(store), "--json"]).output)
    assert info["splits"] == {"dev": 2, "test": 2, "train": 2}
    assert CliRunner().invoke(main, ["store", "failures", str(store), "--json"]).output.strip() == "[]"


def test_defaults_find_the_data_and_name_the_store(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BMLA_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/lrw").symlink_to(tree)
    assert run("--dataset", "lrw", *SOUND).exit_code == 0
    assert (tmp_path / "stores/lrw.zarr/zarr.json").exists()


def test_without_streams_all_are_planned_whose_weights_are_here(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    result = run("--dataset", "lrw", "--root", tree, "--store", tmp_path / "s", "--dry-run")
    assert result.exit_code == 0, result.output
    for stream in ("audio.logspec", "mouth.roi", "mouth.dct", "face.dlib"):
        assert f"  {stream}: 6 x " in result.output
    assert "without audio.hubert, face.vggface2: the weights are not here" in result.output
    assert not (tmp_path / "s").exists()


def test_the_estimate_of_a_dry_run_is_json_where_that_is_wanted(tree, tmp_path):
    result = run("--dataset", "lrw", "--root", tree, "--store", tmp_path / "s", *SOUND, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) == {"seconds", "left", "clips", "failed"}
    assert result.stderr == ""


def test_a_silent_stand_in_for_weights_is_never_used_but_by_name(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    store = tmp_path / "s.zarr"
    line = refused(
        run("--dataset", "lrw", "--root", tree, "--store", store, "--stream", "audio.hubert"),
        1,
        "facebook/hubert-base-ls960",
    )
    assert "hf download facebook/hubert-base-ls960" in line
    assert "model.safetensors" in line
    assert not store.exists()
    words = ("--stream", "audio.hubert", "--model", "audio.hubert=random:hubert-tiny", "--workers", "1", "--quiet")
    assert run("--dataset", "lrw", "--root", tree, "--store", store, *words).exit_code == 0
    shown = CliRunner().invoke(main, ["store", "info", str(store), "--json"]).output
    assert json.loads(shown)["streams"][0]["specification"]["weights"]["random_seed"] == 0


def test_roots_that_hold_nothing_say_what_was_expected(tmp_path):
    refused(run("--dataset", "lrw", "--root", tmp_path / "none", "--store", tmp_path / "s"), 2, "none")
    (tmp_path / "empty").mkdir()
    refused(
        run("--dataset", "lrw", "--root", tmp_path / "empty", "--store", tmp_path / "s"),
        2,
        "expected word folders",
        "found nothing",
    )
    assert not (tmp_path / "s").exists()


def test_unknown_names_list_those_that_are_known(tree, tmp_path):
    result = run("--dataset", "lrv", "--root", tree)
    assert result.exit_code == 2
    assert "'lrw'" in result.output
    refused(run("--dataset", "lrw", "--root", tree, "--stream", "audio.hubret"), 2, "audio.hubret", "audio.hubert")
    refused(run("--dataset", "lrw", "--root", tree, "--option", "colour=red", *SOUND), 2, "colour")
    refused(run("--dataset", "grid", "--root", tree, "--target", "noun", *SOUND), 2, "noun", "letter")


@pytest.mark.parametrize(
    "words", [("--gpu", "7"), ("--device", "cuda:7"), ("--device", "tpu"), ("--gpu", "0", "--device", "cpu")]
)
def test_devices_that_are_not_there_are_refused(tree, tmp_path, words, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    refused(run("--dataset", "lrw", "--root", tree, "--store", tmp_path / "s", *words), 2)
    assert not (tmp_path / "s").exists()


def test_a_zero_length_cut_names_its_row(tree, tmp_path):
    table = tmp_path / "clips.csv"
    (tmp_path / "a.mp4").write_bytes((tree / "ABOUT/test/ABOUT_00001.mp4").read_bytes())
    table.write_text("id,video,start,end\na,a.mp4,0.5,0.5\n")
    refused(run("--dataset", "manifest", "--root", table, "--store", tmp_path / "s", *SOUND), 2, "end")
    assert not (tmp_path / "s").exists()


def test_too_many_failures_exit_with_1_and_keep_the_rest(make_tree, tmp_path):
    root = make_tree(tmp_path / "lrw")
    (root / "ABOUT/test/ABOUT_00001.mp4").write_bytes(b"\0" * 1000)
    words = ("--dataset", "lrw", "--root", root, "--store", tmp_path / "s.zarr", *SOUND)
    result = run(*words)
    assert result.exit_code == 1
    assert "5 done, 1 failed" in result.output
    assert "sound: MediaError" in result.output
    assert run(*words, "--max-failed", "20%").exit_code == 0
    refused(run(*words, "--max-failed", "many"), 2, "many")
    listed = CliRunner().invoke(main, ["store", "failures", str(tmp_path / "s.zarr")]).output
    assert listed.startswith("test/ABOUT_00001\taudio.logspec\tsound\tMediaError\t")


def test_places_that_cannot_take_a_store_stay_as_they_are(tree, make_tree, tmp_path):
    words = ("--dataset", "lrw", "--root", tree)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/main.tex").write_text("x")
    refused(run(*words, "--store", tmp_path / "thesis", *SOUND), 1, "main.tex")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["main.tex"]
    (tmp_path / "file").write_text("x")
    refused(run(*words, "--store", tmp_path / "file" / "s.zarr", *SOUND), 1, "cannot write the store here")
    assert run(*words, "--store", tmp_path / "s.zarr", *SOUND).exit_code == 0
    before = {p: p.read_bytes() for p in Path(tmp_path / "s.zarr").rglob("*") if p.is_file()}
    other = make_tree(tmp_path / "other", 2)
    refused(
        run("--dataset", "lrw", "--root", other, "--store", tmp_path / "s.zarr", *SOUND), 1, "clips: 12 here, 6 there"
    )
    assert {p: p.read_bytes() for p in Path(tmp_path / "s.zarr").rglob("*") if p.is_file()} == before


def test_fuse_on_a_stream_that_is_not_done_says_what_to_do(tree, tmp_path):
    store = tmp_path / "s.zarr"
    assert (
        run(
            "--dataset",
            "lrw",
            "--root",
            tree,
            "--store",
            store,
            "--stream",
            "audio.logspec,mouth.dct",
            "--workers",
            "1",
            "--quiet",
        ).exit_code
        == 0
    )
    next((store / "ledger/mouth.dct").glob("*.json")).unlink()
    result = CliRunner().invoke(main, ["fuse", "--store", str(store), "--out", str(tmp_path / "runs")])
    refused(result, 1, "mouth.dct is not done", "bmla extract")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--gpu", "0,x"), '--gpu: "x" is no number of a GPU'),
        (("--gpu", ","), "--gpu: expected a number"),
        (("--mouth-box", "1,2,3"), '--mouth-box: "1,2,3" is no box: expected X0,Y0,X1,Y1'),
        (("--face-box", "9,9,3,3"), "expected 0 <= x0 < x1"),
        (("--face-policy", "fixed"), "expected face_box, mouth_box or both"),
        (("--face-policy", "given"), "and its files go together"),
        (("--mouth-box", "1,2,3,4", "--detect-every", "2"), 'every 2 is for the policy "detect" alone'),
        (("--cluster", "here"), '--cluster: "here" is no cluster: expected local:N'),
        (("--stream", "audio.logspec@white=loud"), 'white is "loud"'),
        (("--stream", "audio.logspec@blur=3"), "blur is visual noise, the stream is audio"),
        (("--stream", "audio.logspec@file=3"), "no noise file was given"),
        (("--model", "audio.hubert=x"), "audio.hubert: has a model but is not extracted"),
        (("--noise-file", __file__), "a noise file is given, and no stream has the noise file="),
        (("--stream", "audio.logspec@white=3", "--noise-file", __file__), "such as audio.hubert@file=10"),
        (("--noise-seed", "5"), "noise seed 5: no stream has noise; streams: mouth.roi"),
        (("--stream", "audio.logspec", "--mouth-box", "79,115,175,211"), "no stream looks for a face: audio.logspec"),
        (("--stream", "audio.logspec", "--detect-every", "2"), "no stream looks for a face: audio.logspec"),
        (
            ("--stream", "video.mavil", "--model", "video.mavil=random:mavil-tiny", "--face-box", "1,2,3,4"),
            "video.mavil",
        ),
        (
            ("--face-box", "1,2,3,4", "--detector", __file__),
            'a detector is given, which the face policy "fixed" does not ask',
        ),
        (("--fold-by", "speaker"), "--fold-by: goes with --folds"),
    ],
)
def test_options_that_cannot_be_leave_no_store(tree, tmp_path, words, message):
    store = tmp_path / "s.zarr"
    streams = () if "--stream" in words else ("--stream", "mouth.roi")
    result = run("--dataset", "lrw", "--root", tree, "--store", store, "--quiet", *streams, *words)
    refused(result, 2, message)
    assert not (store / "ledger").exists()


def test_a_fixed_mouth_needs_no_face(tree, tmp_path):
    store = tmp_path / "s.zarr"
    words = ("--stream", "mouth.roi", "--mouth-box", "79,115,175,211", "--limit", "2", "--workers", "1", "--quiet")
    result = run("--dataset", "lrw", "--root", tree, "--store", store, *words)
    assert result.exit_code == 0, result.output
    head = json.loads((store / "streams/mouth.roi/zarr.json").read_text())["attributes"]["bmla"]
    assert head["spec"]["detector"]["mouth_box"] == [79, 115, 175, 211]


def test_noises_of_one_stream_stay_together_and_the_profile_shows_their_time(tree, tmp_path):
    words = ("--stream", "audio.logspec@white=10,mask=0.4,audio.logspec", "--limit", "2", "--workers", "1", "--profile")
    result = run("--dataset", "lrw", "--root", tree, "--store", tmp_path / "s.zarr", "--quiet", *words)
    assert result.exit_code == 0, result.output
    assert "audio.logspec@white=10,mask=0.4: 2 done, 0 failed" in result.output
    assert "%  noise" in result.output


def test_the_plan_says_how_many_shards_there_will_be(tree, tmp_path):
    given = ["--dataset", "lrw", "--root", tree, "--store", tmp_path / "s.zarr", *SOUND[:-1]]
    assert "s.zarr, 1 shard(s) of 8 clips, " in run(*given, "--dry-run").stderr
    assert "s.zarr, 2 shard(s) of 4 clips, " in run(*given, "--shard-size", "4").stderr
    assert "s.zarr, 2 shard(s) of 4 clips, " in run(*given).stderr  # as the store that is there


def test_a_dry_run_tries_some_clips_and_writes_nothing(tree, tmp_path):
    result = run("--dataset", "lrw", "--root", tree, "--store", tmp_path / "s.zarr", *SOUND, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "seconds for 6 clips, by 4 tried here" in result.stdout
    assert not (tmp_path / "s.zarr").exists()


def test_compiling_is_for_gpus(tree, tmp_path):
    refused(
        run("--dataset", "lrw", "--root", tree, "--store", tmp_path / "s", *SOUND, "--compile"), 2, "--compile", "--gpu"
    )
