"""A specification is enough to build the tools again that it came from, whatever options they had."""

import shutil
from dataclasses import replace

import pytest

from bmla.extract.encoders.speech import random_speech_model
from bmla.extract.faces.finding import FaceFinding
from bmla.extract.rebuild import Means, agreeing, maker_of
from bmla.extract.tools import ToolConfig, Tools
from bmla.store.errors import StoreError, StoreMismatch, UsageError, WeightsNotFound

HUBERT = "random:hubert-tiny"
CASES = [
    ("audio.logspec", {"parameters": {"bands": 40, "floor": 1e-8}}),
    ("audio.logspec-cube", {"parameters": {"scale": "linear"}}),
    ("audio.logspec@white=10,mask=0.4", {"noise_seed": 5}),
    ("audio.hubert", {"model": HUBERT}),
    ("audio.hubert", {"model": HUBERT, "layer": 1, "parameters": {"precision": "bf16"}}),
    ("audio.wavlm", {"model": "random:wavlm-tiny", "layer": "1,3"}),
    ("audio.wav2vec2@white=0", {"model": "random:wav2vec2-tiny", "layer": "all"}),
    ("mouth.dct", {"parameters": {"coefficients": 32, "crop_px": 64, "sigma_frames": 1.0}}),
    ("mouth.dct@blur=4", {"noise_seed": 2}),
    ("mouth.roi", {"parameters": {"colour": "rgb", "align": "box", "width": 2.0}, "finding": FaceFinding(every=3)}),
    ("mouth.roi", {"finding": FaceFinding("fixed", mouth_box=(79, 115, 175, 211))}),
    ("mouth.roi", {"finding": FaceFinding("fixed", mouth_box="picture")}),
    ("face.roi", {"parameters": {"margin": 0.2, "align": "similarity"}}),
    ("face.roi", {"parameters": {"colour": "grey"}, "finding": FaceFinding("fixed", face_box=(1, 2, 90, 99))}),
    ("face.dlib", {"parameters": {"every": 3}}),
    ("face.image", {"model": "random:dinov2-tiny", "parameters": {"output": "pooled", "crop_px": 96}}),
    ("face.vgg16", {"model": "random:vgg16-small", "parameters": {"crop_px": 96}}),
    ("mouth.avhubert", {"model": "random:avhubert-tiny", "layer": "all", "parameters": {"width": 1.8}}),
    ("av.avhubert@white=0", {"model": "random:avhubert-tiny"}),
    ("video.avbert", {"model": "random:avbert-tiny"}),
    ("audio.mavil", {"model": "random:mavil-tiny", "layer": 1}),
]


def tools_of(stream, model=None, layer=None, parameters=None, **config):
    base = stream.partition("@")[0]
    chosen = {
        "models": {base: model} if model else {},
        "layers": {base: layer} if layer is not None else {},
        "parameters": {base: parameters} if parameters else {},
    }
    return Tools(ToolConfig((stream,), **chosen, **config))


@pytest.mark.parametrize(("stream", "options"), CASES)
def test_the_tools_that_are_built_again_are_the_same(stream, options):
    spec = tools_of(stream, **options).specification(stream)
    maker = maker_of(spec, Means())
    assert maker.tools.specification(stream) == spec
    assert maker.versions == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A speech model in a folder of weights."""
    speech = random_speech_model("hubert-tiny")
    path = tmp_path_factory.mktemp("weights") / "our-hubert"
    speech.model.save_pretrained(path)
    speech.processor.save_pretrained(path)
    return path


def test_weights_are_found_by_their_name_and_known_by_their_digest(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    spec = tools_of("audio.hubert", model=str(folder)).specification("audio.hubert")
    assert spec.weights["source"] == "our-hubert"
    maker_of(spec, Means(weights=(folder.parent,)))
    with pytest.raises(WeightsNotFound, match='"our-hubert" are not on this machine'):
        maker_of(spec, Means())
    shutil.copytree(folder, tmp_path / "moved")
    maker_of(spec, Means(models={"audio.hubert": str(tmp_path / "moved")}))
    wrong = replace(spec, weights={**spec.weights, "sha256": "0" * 64})
    with pytest.raises(StoreMismatch, match=r"stream audio.hubert: .*weights.sha256: .* here, '0000"):
        maker_of(wrong, Means(weights=(folder.parent,)))


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        ({"name": "audio.imported"}, UsageError, "is of no encoder that bmla has"),
        ({"detector": {"policy": "given", "sha256": "0"}}, UsageError, "its faces were given in files"),
        ({"detector": {"policy": "fixed"}}, UsageError, "expected face_box, mouth_box or both"),
        ({"crop": {"policy": 3}}, StoreError, "its specification can't be read: TypeError"),
        ({"parameters": {"coefficients": "many"}}, UsageError, "coefficients is 'many', expected a value of type int"),
        ({"detector": {"weights": {"source": "../../other.pth"}}}, UsageError, "is no file's name"),
        ({"source": {"stream": "x"}}, StoreError, "its specification can't be read: KeyError"),
    ],
)
def test_a_specification_that_can_not_be_followed_is_one_line(change, error, expected):
    spec = tools_of("mouth.dct").specification("mouth.dct")
    with pytest.raises(error, match=expected) as raised:
        maker_of(replace(spec, **change), Means())
    assert "\n" not in str(raised.value)


def test_only_versions_and_the_names_of_files_may_differ():
    spec = tools_of("mouth.dct").specification("mouth.dct")
    other = replace(
        spec, detector={**spec.detector, "weights": {**spec.detector["weights"], "source": "elsewhere 1.0"}}
    )
    assert agreeing(spec, other) == []
    with pytest.raises(StoreMismatch, match="frame_law"):
        agreeing(spec, replace(spec, frame_law="another"))
