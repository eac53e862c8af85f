"""The contract of every encoder in the table."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bmla.extract.encoders.base import Both, Encoder, Features, Pictures, encode
from bmla.extract.encoders.table import EMBEDDED_DEFAULT, TABLE, build, find
from bmla.store.errors import UnknownName, UsageError
from bmla.store.spec import StreamSpec, check_stream_name

MODELS = {  # weights that no package carries
    "audio.hubert": "random:hubert-tiny",
    "audio.wav2vec2": "random:wav2vec2-tiny",
    "audio.wavlm": "random:wavlm-tiny",
    "audio.data2vec": "random:data2vec-tiny",
    "face.vggface2": "random:vggface2",
    "face.casia": "random:vggface2",
    "face.vgg16": "random:vgg16-small",
    "face.image": "random:dinov2-tiny",
    "mouth.image": "random:dinov2-tiny",
    "audio.avhubert": "random:avhubert-tiny",
    "mouth.avhubert": "random:avhubert-tiny",
    "av.avhubert": "random:avhubert-tiny",
    **{f"{part}.{name}": f"random:{name}-tiny" for name in ("avbert", "mavil") for part in ("audio", "video", "av")},
}
WHOLE_CLIP = ("avbert", "mavil")  # as many steps however long a clip is
PARAMETERS: dict[str, dict[str, Any]] = {  # small pictures where a network is slow
    "face.vggface2": {"input_px": 80},
    "face.casia": {"input_px": 80, "align": "similarity", "colour": "grey"},
    "face.vgg16": {"crop_px": 32},
    "mouth.avhubert": {"crop_px": 32},
    "av.avhubert": {"crop_px": 32, "layer": "0,3"},
}
DURATIONS_S = (0.025, 0.04, 0.1, 0.2, 0.33, 0.48)
HEAVY = ("torch", "torchvision", "transformers", "facenet_pytorch", "cv2", "dlib", "scipy", "huggingface_hub")

_built: dict[str, Encoder] = {}


@pytest.fixture(params=TABLE)
def stream(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def encoder(stream: str) -> Encoder:
    if stream not in _built:
        _built[stream] = build(stream, model=MODELS.get(stream), parameters=PARAMETERS.get(stream))
    return _built[stream]


@pytest.fixture
def make_clip(encoder: Encoder, make_sound: Callable, make_sight: Callable) -> Callable[[float, int], Any]:
    def make_both(duration_s: float, seed: int = 0) -> Both:
        return Both(make_sound(duration_s, seed), make_sight(duration_s, seed))

    def make_pictures(duration_s: float, seed: int = 0) -> Pictures:
        sight = make_sight(duration_s, seed)
        return Pictures(sight.frames, sight.valid)

    return {"sound": make_sound, "sight": make_sight, "pictures": make_pictures}.get(encoder.takes, make_both)


def parts(clip: Any) -> list[Any]:
    """What a clip consists of."""
    return [clip.sound, clip.sight] if isinstance(clip, Both) else [clip]


def close(a: Features, b: Features) -> None:
    """Equal to the rounding of float16; exactly, where the values are whole numbers."""
    np.testing.assert_array_equal(a.valid, b.valid)
    assert a.values.dtype == b.values.dtype
    if a.values.dtype == np.uint8:
        np.testing.assert_array_equal(a.values, b.values)
    else:
        np.testing.assert_allclose(a.values.astype(float), b.values.astype(float), rtol=2e-3, atol=1e-4)


def test_shape_dtype_and_length_are_as_declared(encoder: Encoder, make_clip: Callable) -> None:
    for seed, duration_s in enumerate(DURATIONS_S):
        (features,) = encode(encoder, [make_clip(duration_s, seed)])
        assert features.values.shape == (encoder.steps(duration_s), *encoder.feature_shape)
        assert features.values.dtype == encoder.dtype
        assert features.valid.shape == (len(features.values),)
        assert features.valid.dtype == bool
        assert np.isfinite(features.values.astype(float)).all()


def test_steps_are_whole_and_never_fewer_for_a_longer_clip(stream: str, encoder: Encoder) -> None:
    steps = [encoder.steps(ms / 1000) for ms in range(1, 20000, 7)]
    assert all(isinstance(n, int) and n >= 0 for n in steps)
    assert steps == sorted(steps)
    if find(stream).encoder in WHOLE_CLIP:
        assert set(steps) == {round(encoder.rate_hz * 10)}
    else:
        assert abs(steps[-1] / 20 - encoder.rate_hz) < 0.2  # about 20 s


def test_features_differ_between_clips_and_between_steps(encoder: Encoder, make_clip: Callable) -> None:
    a, b = encode(encoder, [make_clip(0.48, 1), make_clip(0.48, 2)])
    assert not np.array_equal(a.values, b.values)
    assert len(a.values) == 1 or not np.array_equal(a.values[0], a.values[-1])


def test_same_clip_gives_the_same_bytes(encoder: Encoder, make_clip: Callable) -> None:
    first, second = (encode(encoder, [make_clip(0.2, 3), make_clip(0.33, 4)]) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.values.tobytes() == b.values.tobytes()
        assert a.valid.tobytes() == b.valid.tobytes()


def test_second_loading_gives_the_same_bytes(stream: str, encoder: Encoder, make_clip: Callable) -> None:
    again = build(stream, model=MODELS.get(stream), parameters=PARAMETERS.get(stream))
    assert again.describe() == encoder.describe()
    clip = make_clip(0.2, 5)
    assert encode(again, [clip])[0].values.tobytes() == encode(encoder, [clip])[0].values.tobytes()


def test_batch_equals_single(encoder: Encoder, make_clip: Callable) -> None:
    clips = [make_clip(duration_s, seed) for seed, duration_s in enumerate((0.2, 0.33, 0.2, 0.48, 0.2))]
    together = encode(encoder, clips)
    assert len(together) == len(clips)
    for clip, features in zip(clips, together, strict=True):
        close(features, encode(encoder, [clip])[0])


def test_no_clips_give_no_features(encoder: Encoder) -> None:
    assert encode(encoder, []) == []


def test_input_is_left_as_it_was(encoder: Encoder, make_clip: Callable) -> None:
    clip, same = make_clip(0.2, 6), make_clip(0.2, 6)
    encode(encoder, [clip])
    for whole, other in zip(parts(clip), parts(same), strict=True):
        for name, value in vars(whole).items():
            np.testing.assert_array_equal(value, getattr(other, name))


def test_validity_passes_through_and_invalid_steps_have_values(encoder: Encoder, make_clip: Callable) -> None:
    clip = make_clip(1.0, 7)
    (features,) = encode(encoder, [clip])
    if encoder.takes == "sound" or "pictures" in encoder.takes:  # these are of the whole clip
        assert features.valid.all()
        return
    clip = parts(clip)[-1]
    every = round(25 / encoder.rate_hz)
    np.testing.assert_array_equal(features.valid, clip.valid[::every])
    assert 0 < features.valid.sum() < len(features.valid)
    assert all(step.any() for step in features.values)
    features.valid[:] = False  # a copy: the clip is shared by encoders
    assert clip.valid.any()


def test_description_fits_the_stream_specification(stream: str, encoder: Encoder) -> None:
    entry, described = find(stream), encoder.describe()
    assert set(described) <= {"weights", "parameters", "crop", "versions"}
    assert ("crop" in described) == ("sight" in encoder.takes)
    assert entry.takes == encoder.takes
    spec = StreamSpec(
        name=stream,
        modality=entry.modality,
        encoder=entry.encoder,
        dtype=encoder.dtype,
        feature_shape=encoder.feature_shape,
        rate_hz=encoder.rate_hz,
        frame_law=encoder.frame_law,
        **described,
    )
    assert StreamSpec.from_dict(spec.to_dict()).digest() == spec.digest()
    assert all(isinstance(v, str) for v in spec.versions.values())


def test_description_names_no_machine(encoder: Encoder) -> None:
    text = json.dumps(encoder.describe())
    assert sys.prefix not in text
    assert not re.search(r'[" ](/|[A-Z]:\\\\)\w', text)
    assert "cpu" not in text
    assert "cuda" not in text


def test_compiled_networks_are_the_ones_called(
    stream: str, encoder: Encoder, make_clip: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, called = [], []
    monkeypatch.setattr(
        "torch.compile", lambda f, **how: compiled.append(f) or (lambda *x, **named: called.append(f) or f(*x, **named))
    )
    again = build(stream, model=MODELS.get(stream), parameters=PARAMETERS.get(stream), compiled=True)
    assert again.describe() == encoder.describe()  # it is no part of it
    ways = {"avbert": 4, "mavil": 3}.get(stream.partition(".")[2], int(stream in MODELS))
    assert len(compiled) == ways  # all that have a network on the device, and all ways into it
    clip = make_clip(0.2, 5)
    assert encode(again, [clip])[0].values.tobytes() == encode(encoder, [clip])[0].values.tobytes()
    if stream.startswith("av."):
        assert len(set(called)) == ways
    assert bool(called) == (stream in MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["av.avhubert", "av.avbert", "av.mavil"])
def test_networks_of_ours_can_be_compiled(
    stream: str,
    encoder: Encoder,
    make_clip: Callable,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    compile_it = torch.compile
    monkeypatch.setattr("torch.compile", lambda f, **how: compile_it(f, backend="eager", **how))
    again = build(stream, model=MODELS[stream], parameters=PARAMETERS.get(stream), compiled=True)
    clip = make_clip(0.2, 5)
    np.testing.assert_array_equal(encode(again, [clip])[0].values, encode(encoder, [clip])[0].values)
    assert not [record for record in caplog.records if record.name == "bmla"]  # one, where compiling fails


def test_table_is_in_order(stream: str) -> None:
    entry = find(stream)
    assert check_stream_name(stream) == stream
    assert entry.modality == {"sound": "audio", "sight": "visual", "pictures": "visual"}.get(
        entry.takes, "audio-visual"
    )
    assert entry.description
    assert "\n" not in entry.description
    assert entry.needs_weights == (stream in MODELS)


def test_default_streams_are_the_papers_and_those_that_need_nothing() -> None:
    expected = ["audio.logspec", "audio.hubert", "face.vggface2", "mouth.roi", "mouth.dct", "face.dlib"]
    assert [name for name, entry in TABLE.items() if entry.by_default] == expected


def test_embedded_default_needs_no_weights() -> None:
    assert [s for s in EMBEDDED_DEFAULT if find(s).needs_weights] == []
    assert {find(s).modality for s in EMBEDDED_DEFAULT} == {"audio", "visual"}


def test_unknown_stream_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownName, match=r'unknown encoder "audio\.wave"; known: audio\.logspec, audio\.logspec-cube, '
    ):
        build("audio.wave")


def test_choice_that_an_encoder_does_not_have_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r'audio\.logspec: there is no model to choose, got "x"'):
        build("audio.logspec", model="x")
    with pytest.raises(UsageError, match=r"mouth\.dct: there is no layer to choose, got 3"):
        build("mouth.dct", layer=3)


def test_parameters_reach_the_encoder_and_wrong_ones_are_usage_errors() -> None:
    assert build("audio.logspec", parameters={"scale": "linear"}).feature_shape == (771,)
    assert build("audio.logspec", parameters={"bands": 40}).feature_shape == (120,)
    assert (
        build("audio.hubert", model="random:hubert-tiny", parameters={"layer": 1}).describe()["parameters"]["layer"]
        == 1
    )
    with pytest.raises(UsageError, match=r'audio\.logspec: unknown parameter "band"; known: scale, bands, floor'):
        build("audio.logspec", parameters={"band": 40})
    with pytest.raises(UsageError, match=r"audio\.logspec: bands is '40', expected a value of type int"):
        build("audio.logspec", parameters={"bands": "40"})
    with pytest.raises(UsageError, match=r"audio\.logspec: bands is True, expected a value of type int"):
        build("audio.logspec", parameters={"bands": True})


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_device_that_is_not_there_is_a_usage_error(device: str) -> None:
    with pytest.raises(UsageError, match=f'device "{device}"'):
        build("audio.hubert", model="random:hubert-tiny", device=device)


def test_importing_the_table_loads_no_model_library() -> None:
    script = f"import sys, bmla.extract.encoders.table; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
