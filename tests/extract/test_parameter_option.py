"""`bmla extract --parameter` and `--layer`, and what `bmla encoders` says of them."""

import json

import pytest
from click.testing import CliRunner

from bmla.cli import main
from bmla.extract.available import can_make, default_streams
from bmla.extract.encoders.table import EMBEDDED_DEFAULT, TABLE


def run(*words):
    return CliRunner().invoke(main, [str(w) for w in words])


def specification(store, stream):
    streams = json.loads(run("store", "info", store, "--json").output)["streams"]
    return next(s["specification"] for s in streams if s["specification"]["name"] == stream)


def test_parameters_shape_the_stream_and_its_specification(tree, tmp_path):
    store = tmp_path / "s.zarr"
    words = ("extract", "--dataset", "lrw", "--root", tree, "--store", store, "--workers", 1, "--quiet", "--limit", 1)
    done = run(
        *words,
        *(
            "--stream",
            "mouth.roi,face.roi",
            "--parameter",
            "mouth.roi.crop_px=48",
            "--parameter",
            "face.roi.crop_px=40",
        ),
        *("--parameter", "mouth.roi.colour=rgb", "--parameter", "face.roi.align=similarity"),
    )
    assert done.exit_code == 0, done.output
    mouth, face = (specification(store, name) for name in ("mouth.roi", "face.roi"))
    assert (mouth["feature_shape"], mouth["crop"]["colour"]) == ([48, 48, 3], "rgb")
    assert (face["feature_shape"], face["crop"]["policy"]) == ([40, 40, 3], "face, aligned by eyes and nose")
    other = run(*words, "--stream", "mouth.roi")
    assert other.exit_code == 1
    assert "mouth.roi" in other.output.splitlines()[-1]


def test_several_layers_become_one_stream(tree, tmp_path):
    store = tmp_path / "s.zarr"
    done = run(
        *("extract", "--dataset", "lrw", "--root", tree, "--store", store, "--workers", 1, "--quiet", "--limit", 1),
        *("--stream", "audio.wavlm", "--model", "audio.wavlm=random:wavlm-tiny", "--layer", "audio.wavlm=1,3"),
        *("--parameter", "audio.wavlm.precision=bf16"),
    )
    assert done.exit_code == 0, done.output
    made = specification(store, "audio.wavlm")
    assert made["feature_shape"] == [2, 32]
    assert made["parameters"]["layer"] == [1, 3]
    assert made["parameters"]["precision"] == "bf16"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--parameter", "mouth.roi.size=9"), 'mouth.roi: unknown parameter "size"; known: crop_px, width'),
        (("--parameter", "mouth.roi.crop_px"), '--parameter: "mouth.roi.crop_px" is not of the form NAME=VALUE'),
        (("--parameter", "mouth.dct.crop_px=64"), "mouth.dct: has parameters but is not extracted; streams: mouth.roi"),
        (("--layer", "mouth.roi=3"), "mouth.roi: there is no layer to choose, got 3"),
    ],
)
def test_choices_that_make_no_sense_are_one_clear_line(tree, tmp_path, words, message):
    done = run(
        "extract", "--dataset", "lrw", "--root", tree, "--store", tmp_path / "s", "--stream", "mouth.roi", *words
    )
    assert done.exit_code == 2
    assert message in done.output.strip().splitlines()[-1]
    assert not (tmp_path / "s").exists()


def test_encoders_lists_every_stream_with_its_parameters():
    lines = run("encoders").output.splitlines()
    assert [line.split()[0] for line in lines[::2]] == list(TABLE)
    below = dict(zip(TABLE, (line.strip() for line in lines[1::2]), strict=True))
    assert below["mouth.roi"] == "crop_px=80 width=1.5 align=similarity sigma_frames=2.0 colour=grey"
    assert below["audio.wavlm"] == "layer=last precision=fp32"
    assert below["face.dlib"] == "every=5"


def test_streams_by_default_are_those_whose_weights_are_here(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    there, missing = default_streams([tmp_path])
    assert (sorted(there), missing) == (sorted(EMBEDDED_DEFAULT), ["audio.hubert", "face.vggface2"])
    (tmp_path / "20180402-114759-vggface2.pt").touch()
    there, missing = default_streams([tmp_path])
    assert (there, missing) == (["audio.logspec", "face.vggface2", "mouth.roi", "mouth.dct"], ["audio.hubert"])
    assert [name for name in TABLE if not can_make(name, [tmp_path])] == [
        *("audio.hubert", "audio.wav2vec2", "audio.wavlm", "audio.data2vec"),
        *("audio.avhubert", "mouth.avhubert", "av.avhubert"),
        *("audio.avbert", "video.avbert", "av.avbert", "audio.mavil", "video.mavil", "av.mavil"),
        *("face.casia", "face.vgg16", "face.image", "mouth.image"),
    ]
    (tmp_path / "vgg16-face-1024.pth").touch()
    assert can_make("face.vgg16", [tmp_path])
