"""`bmla predict` and `bmla fuse export`, as they are typed."""

import json

import av
import numpy as np
import pytest
from click.testing import CliRunner

from bmla.cli import main
from bmla.store.errors import UsageError


def typed(*words):
    return CliRunner().invoke(main, [str(w) for w in words])


def test_a_clip_is_answered_for_a_person(run, store, tree):
    result = typed("predict", run.path, tree / str(store.clips[0].video), "--top", 2, "--attention")
    assert result.exit_code == 0, result.output
    first, second, *others = result.stdout.splitlines()
    assert first.startswith(str(store.clips[0].video).rsplit("/", 1)[-1] + " 0.00-1.16 s: ")
    assert "ABOUT" in first
    assert "PEOPLE" in first
    assert second.startswith("  decided by sound ")
    assert any(line.startswith("  sound looks at sight most at ") for line in others)


def test_the_clips_of_a_store_are_answered_for_a_program(run, store):
    result = typed("predict", run.path, "--store", store.path, "--split", "test", "--json", "--attention", "--quiet")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["model"] == "balancemla"
    assert len(document["clips"]) == 2
    for clip in document["clips"]:
        assert sum(entry["probability"] for entry in clip["classes"]) == pytest.approx(1, abs=1e-4)
        assert clip["label"] in run.classes
        assert sum(clip["alpha"].values()) == pytest.approx(1, abs=1e-4)
        sound, sight = clip["attention"]
        assert (sound["asking"], sound["answering"], sound["answering_rate_hz"]) == ("audio", "visual", 25.0)
        np.testing.assert_allclose(np.sum(sight["weights"], 1), 1, atol=1e-2)


def test_clips_that_fail_are_told_apart_from_those_that_do_not(run, store, tree, tmp_path):
    (tmp_path / "a.mp4").symlink_to(next(tree.rglob("*.mp4")))
    (tmp_path / "b.mp4").write_bytes(b"no media")
    result = typed("predict", run.path, tmp_path, "--quiet")
    assert result.exit_code == 1
    assert result.stdout.startswith("a.mp4 ")
    assert result.stderr.startswith("b.mp4 ")
    assert "no sound: b.mp4" in result.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "nothing to ask about: name files or folders, or a store by --store"),
        (["none.mp4"], "none.mp4: no such file"),
        (["CLIP", "--from", "2", "--to", "1"], "from 2 to 1 s: expected 0 <= from < to"),
        (["CLIP", "--split", "test"], "--split: chooses among the clips of --store"),
        (["--store", "S", "--annotate", "a.mp4"], "--from, --to and --annotate are for files"),
    ],
)
def test_bad_words_are_one_line(run, store, tree, words, expected):
    clip = next(tree.rglob("*.mp4"))
    given = [{"CLIP": clip, "S": store.path}.get(word, word) for word in words]
    result = typed("predict", run.path, *given)
    assert result.exit_code == 2
    assert expected in result.output
    assert result.output.count("\n") == 1


def test_what_was_seen_is_drawn_into_the_clip(run, store, tree, tmp_path, write, portrait, blank):
    """Frames without a face are kept, and what is drawn is not the picture alone."""
    images = np.stack([portrait[:256, :256]] * 29)
    images[10:20] = blank[10:20]
    write(tmp_path / "half.mp4", images, 1)
    result = typed("predict", run.path, tmp_path / "half.mp4", "--annotate", tmp_path / "seen.mp4", "--quiet")
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "seen.mp4")) as file:
        assert file.streams.audio
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 29
    assert frames[0].shape == (512, 512, 3)

    def greens(frame):
        red, green, blue = frame.astype(int).transpose(2, 0, 1)
        return int(((green > 150) & (red < 110) & (blue < 110)).sum())

    assert greens(frames[0]) > 300, "the box of the face that was found"
    assert greens(frames[15]) == 0, "grey where it was not"


def test_a_clip_without_any_face_is_drawn_too(run, tmp_path, write, blank):
    write(tmp_path / "wall.mp4", blank[:, :100, :120], 1, sound=True)
    result = typed("predict", run.path, tmp_path / "wall.mp4", "--annotate", tmp_path / "seen.mp4")
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "seen.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 29


def test_a_run_is_exported_with_its_card(run, store, tmp_path):
    result = typed("fuse", "export", run.path, "--format", "torch", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["files"][0]["inputs"] == ["audio", "audio_mask", "visual", "visual_mask"]
    assert document["files"][0]["difference"] < 1e-5
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["classes"] == list(run.classes)
    card = (tmp_path / "out" / "README.md").read_text()
    for line in (
        "## Use",
        'model = torch.export.load("model.pt2").module()',
        "| `audio` | float32 (batch, steps, 240) | `audio.logspec`, 100 steps a second, not standardised |",
        "- data set lrw: BBC, non-commercial research by agreement",
        "trained on iBUG 300-W, whose licence excludes commercial use",
        "- Noise and missing modalities were not tested.",
        "| clean | 2 | ",
    ):
        assert line in card
    from bmla.fuse.data import features_from_store
    from bmla.fuse.export import torch_call
    from bmla.fuse.predictions import predict

    features = features_from_store(store, "audio.logspec", "mouth.dct", models=["balancemla"])
    batch = features.batch(features.labels.new_tensor([0, 3]), ["audio", "visual"])
    given = [batch.audio.values.float(), batch.audio.mask, batch.visual.values.float(), batch.visual.mask]
    answers = predict(run.model(), features, np.array([0, 3]), ["audio", "visual"])
    np.testing.assert_allclose(torch_call(tmp_path / "out" / "model.pt2")(given)[0], answers.result, atol=1e-4)


def test_fuse_is_what_it_was_and_tells_options_that_export_has_no_use_for(run):
    result = typed("fuse", "--ratio", "1:2", "export", run.path, "--format", "onnx")
    assert result.exit_code == 2
    assert result.output == "Error: --ratio: has nothing to do with `bmla fuse export`\n"
    assert isinstance(typed("--debug", "fuse", "--model", "none").exception, UsageError)


def test_text_of_a_data_set_stays_text_in_the_card():
    from bmla.apply.card import text

    assert text("a|b `c`\n<script>") == "a/b 'c' &lt;script&gt;"
