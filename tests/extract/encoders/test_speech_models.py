"""HuBERT and its kin: small seeded models in the hub's own format, loaded by the real path."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
)
from transformers.utils import logging

from bmla.extract.encoders.base import Sound, encode
from bmla.extract.encoders.hub import HubModel
from bmla.extract.encoders.parameters import SpeechOptions
from bmla.extract.encoders.speech import SpeechEncoder
from bmla.extract.encoders.table import build
from bmla.extract.weights import sha256_of
from bmla.store.errors import BmlaError, MediaError, UnknownName, UsageError, WeightsNotFound

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 15,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 12,
}
CONFIGS: dict[str, Callable] = {
    "hubert": lambda: HubertConfig(**SMALL),
    "hubert-large": lambda: HubertConfig(**SMALL, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True),
    "wav2vec2": lambda: Wav2Vec2Config(**SMALL),
    "wavlm": lambda: WavLMConfig(**SMALL),
    "data2vec-audio": lambda: Data2VecAudioConfig(**SMALL),
}


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with one small model of each family."""
    root = tmp_path_factory.mktemp("weights")
    logging.disable_progress_bar()
    for name, config in CONFIGS.items():
        torch.manual_seed(1)
        model = AutoModel.from_config(config())
        with torch.no_grad():  # a fresh norm is all ones and zeros: a swapped one would go unseen
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(root / name)
        Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(root / name)
    logging.enable_progress_bar()
    return root


@pytest.fixture
def hubert(models: Path, tmp_path: Path) -> Path:
    """A copy of the small HuBERT that a test may break."""
    return shutil.copytree(models / "hubert", tmp_path / "hubert")


def by_transformers(folder: Path, samples: np.ndarray, layer: int) -> np.ndarray:
    """(T, D) as transformers itself gives it for one clip."""
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    inputs = extractor(samples, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        output = model(inputs.input_values, output_hidden_states=True)
    last = layer == model.config.num_hidden_layers
    return (output.last_hidden_state if last else output.hidden_states[layer])[0].numpy()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_features_are_those_of_transformers_own_use(models: Path, name: str, layer: int) -> None:
    encoder = build("audio.hubert", weights=[models], model=f"someone/{name}", layer=layer)
    assert isinstance(encoder, SpeechEncoder)
    samples = noise(5000)
    expected = by_transformers(models / name, samples, layer)
    inner = encoder._forward([samples], "fp32")[0]  # before float16
    np.testing.assert_allclose(inner, expected, atol=1e-4)
    np.testing.assert_allclose(encode(encoder, [Sound(samples)])[0].values, expected, atol=5e-3, rtol=1e-3)


STREAMS = {
    "audio.hubert": ("facebook/hubert-base-ls960", "hubert"),
    "audio.wav2vec2": ("facebook/wav2vec2-base", "wav2vec2"),
    "audio.wavlm": ("microsoft/wavlm-base", "wavlm"),
    "audio.data2vec": ("facebook/data2vec-audio-base", "data2vec-audio"),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_every_stream_has_its_own_default_model(models: Path, tmp_path: Path, stream: str) -> None:
    hub_id, family = STREAMS[stream]
    with pytest.raises(WeightsNotFound, match=f"hf download {hub_id} --local-dir"):
        build(stream, weights=[tmp_path])
    (tmp_path / hub_id.rsplit("/", 1)[-1]).symlink_to(models / family)
    encoder = build(stream, weights=[tmp_path])
    described = encoder.describe()
    assert described["weights"]["source"] == hub_id
    assert described["parameters"]["model_type"] == family
    expected = by_transformers(models / family, noise(2000), 3)
    np.testing.assert_allclose(encode(encoder, [Sound(noise(2000))])[0].values, expected, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("layer", "kept"), [("0,2", [0, 2]), ("3,1", [1, 3]), ("all", [0, 1, 2, 3])])
def test_several_layers_are_each_that_of_transformers(models: Path, name: str, layer: str, kept: list[int]) -> None:
    encoder = build("audio.hubert", model=str(models / name), layer=layer)
    samples = noise(3000)
    values = encode(encoder, [Sound(samples)])[0].values  # (T, K, D)
    assert encoder.feature_shape == values.shape[1:] == (len(kept), 32)
    assert encoder.describe()["parameters"]["layer"] == kept
    for i, k in enumerate(kept):
        np.testing.assert_allclose(values[:, i], by_transformers(models / name, samples, k), atol=5e-3, rtol=1e-3)


def test_one_layer_is_the_same_alone_and_among_others(models: Path) -> None:
    alone, among = (build("audio.hubert", model=str(models / "hubert"), layer=k) for k in (2, "2,3"))
    sound = Sound(noise(2000))
    np.testing.assert_array_equal(encode(among, [sound])[0].values[:, 0], encode(alone, [sound])[0].values)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("1,1", 'layer "1,1" names one twice'),
        ("1,9", "there is no layer 9; expected 0 to 3"),
        ("six", 'layer "six": expected a number, several such as 6,9,12, "last" or "all"'),
        ("1,", 'layer "1,"'),
    ],
)
def test_layers_that_make_no_sense_are_usage_errors(models: Path, layer: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"audio.hubert: {message}"):
        build("audio.hubert", model=str(models / "hubert"), layer=layer)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_is_near_and_recorded(models: Path, name: str, precision: str) -> None:
    full, half = (
        build("audio.hubert", model=str(models / name), parameters={"precision": p}) for p in ("fp32", precision)
    )
    a, b = (encode(e, [Sound(noise(3000))])[0].values.astype(float) for e in (full, half))
    assert np.abs(a - b).max() > 0
    assert np.abs(a - b).mean() < 0.03 * np.abs(a).mean() + 0.02
    said = {"precision": precision, "not_finite": "again in fp32"}
    assert half.describe()["parameters"] == full.describe()["parameters"] | said


def test_clip_that_overflows_in_half_precision_is_encoded_in_full(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, half = (
        build("audio.hubert", model=str(models / "hubert"), parameters={"precision": p}) for p in ("fp32", "fp16")
    )
    forward = SpeechEncoder._forward
    tried: list[tuple[int, str]] = []

    def overflowing(self: SpeechEncoder, sounds: list[np.ndarray], precision: str) -> np.ndarray:
        tried.append((len(sounds), precision))
        values = forward(self, sounds, precision)
        if precision == "fp16":
            values[1, 0, 0] = np.inf
        return values

    sounds = [Sound(noise(2000, seed)) for seed in range(3)]
    near = encode(half, sounds)
    monkeypatch.setattr(SpeechEncoder, "_forward", overflowing)
    found = encode(half, sounds)
    assert tried == [(3, "fp16"), (1, "fp32")]
    np.testing.assert_array_equal(found[1].values, encode(full, [sounds[1]])[0].values)
    np.testing.assert_array_equal(found[0].values, near[0].values)
    monkeypatch.setattr(SpeechEncoder, "_forward", lambda self, s, p: forward(self, s, p) * np.nan)
    with pytest.raises(MediaError, match=r"clip 1 of the 3 .*NaN or infinite"):
        encode(half, sounds)


def test_batch_that_does_not_fit_is_halved_and_gives_the_same(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build("audio.hubert", model=str(models / "hubert"))
    assert isinstance(encoder, SpeechEncoder)
    sounds = [Sound(noise(2000, seed)) for seed in range(5)]
    expected = encode(encoder, sounds)
    forward = SpeechEncoder._forward

    def small(self: SpeechEncoder, part: list[np.ndarray], precision: str) -> np.ndarray:
        if len(part) > 2:
            raise torch.OutOfMemoryError("too much")
        return forward(self, part, precision)

    monkeypatch.setattr(SpeechEncoder, "_forward", small)
    for a, b in zip(expected, encode(encoder, sounds), strict=True):
        np.testing.assert_allclose(a.values.astype(float), b.values.astype(float), atol=4e-3)
    assert encoder.batch.size == 2 * 2000


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_equals_single(models: Path, name: str) -> None:
    encoder = build("audio.hubert", model=str(models / name))
    lengths = [5000, 3210, 5000, 400, 5000, 3210]
    sounds = [Sound(noise(n, seed)) for seed, n in enumerate(lengths)]
    together = encode(encoder, sounds)
    for sound, features in zip(sounds, together, strict=True):
        alone = encode(encoder, [sound])[0].values
        np.testing.assert_allclose(features.values.astype(float), alone.astype(float), atol=4e-3)
        assert features.values.shape == alone.shape


def test_unequal_lengths_never_share_a_batch(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build("audio.hubert", model=str(models / "hubert"))
    seen: list[list[int]] = []
    forward = SpeechEncoder._forward
    monkeypatch.setattr(
        SpeechEncoder,
        "_forward",
        lambda self, sounds, *rest: (seen.append([len(s) for s in sounds]), forward(self, sounds, *rest))[1],
    )
    encode(encoder, [Sound(noise(n)) for n in (1000, 2000, 1000, 2001)])
    assert sorted(seen) == [[1000, 1000], [2000], [2001]]


@pytest.mark.parametrize("samples", [400, 719, 720, 1040, 3999, 16000, 18560, 20001])
def test_steps_follow_the_frame_law(models: Path, samples: int) -> None:
    encoder = build("audio.hubert", model=str(models / "hubert"))
    features = encode(encoder, [Sound(noise(samples))])[0]
    assert len(features.values) == len(features.valid) == encoder.steps(samples / 16000) == (samples - 400) // 320 + 1
    assert encoder.frame_law == "T = floor((n - 400) / 320) + 1 for n samples at 16 kHz"
    assert encoder.rate_hz == 50


def test_one_word_of_lrw_has_57_steps(models: Path) -> None:
    encoder = build("audio.hubert", model=str(models / "hubert"))
    assert len(encode(encoder, [Sound(noise(18560))])[0].values) == encoder.steps(1.16) == 57


def test_loudness_does_not_matter_where_the_model_normalises(models: Path) -> None:
    encoder = build("audio.hubert", model=str(models / "hubert"))
    loud, soft = encode(encoder, [Sound(noise(2000)), Sound(0.1 * noise(2000))])
    np.testing.assert_allclose(loud.values.astype(float), soft.values.astype(float), atol=4e-3)


def test_model_that_does_not_normalise_is_left_so(hubert: Path) -> None:
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(hubert)
    encoder = build("audio.hubert", model=str(hubert))
    assert encoder.describe()["parameters"]["normalise"] is False
    expected = by_transformers(hubert, noise(2000), 3)
    np.testing.assert_allclose(encode(encoder, [Sound(noise(2000))])[0].values, expected, atol=5e-3, rtol=1e-3)


def test_silence_is_finite(models: Path) -> None:
    assert np.isfinite(
        encode(build("audio.hubert", model=str(models / "hubert")), [Sound(np.zeros(2000, np.float32))])[0].values
    ).all()


def test_layers_after_the_wanted_one_are_dropped(models: Path) -> None:
    encoder = build("audio.hubert", model=str(models / "hubert"), layer=1)
    assert len(encoder.model.encoder.layers) == 2  # type: ignore[attr-defined]
    assert encoder.describe()["parameters"] == {"model_type": "hubert", "layer": 1, "layers": 3, "normalise": True}


@pytest.mark.parametrize("layer", [-1, 4])
def test_layer_that_is_not_there_is_a_usage_error(models: Path, layer: int) -> None:
    with pytest.raises(UsageError, match=f"no layer {layer}; expected 0 to 3"):
        build("audio.hubert", model=str(models / "hubert"), layer=layer)


def test_sound_shorter_than_a_window_is_a_media_error(models: Path) -> None:
    with pytest.raises(MediaError, match=r"^399 samples of sound, expected at least .* 400"):
        encode(build("audio.hubert", model=str(models / "hubert")), [Sound(noise(399)), Sound(noise(400))])


def test_samples_that_are_not_numbers_are_a_media_error(models: Path) -> None:
    bad = noise(2000)
    bad[7] = np.inf
    with pytest.raises(MediaError, match=r"^1 of 2000 samples of sound are NaN or infinite"):
        encode(build("audio.hubert", model=str(models / "hubert")), [Sound(noise(2000)), Sound(bad)])


def test_features_that_are_not_numbers_are_a_media_error(models: Path) -> None:
    encoder = build("audio.hubert", model=str(models / "hubert"))
    with torch.no_grad():
        encoder.model.encoder.layers[-1].final_layer_norm.bias.fill_(torch.nan)  # type: ignore[attr-defined]
    with pytest.raises(MediaError, match=r"^192 of 192 feature values are NaN or infinite"):
        encode(encoder, [Sound(noise(2000))])


def test_features_beyond_float16_are_a_media_error(models: Path) -> None:
    encoder = build("audio.hubert", model=str(models / "hubert"))
    with torch.no_grad():
        encoder.model.encoder.layers[-1].final_layer_norm.weight.mul_(1e6)  # type: ignore[attr-defined]
    with pytest.raises(MediaError, match="beyond float16"):
        encode(encoder, [Sound(noise(2000))])


def test_description_says_where_the_weights_came_from_and_no_path(models: Path) -> None:
    digest = sha256_of(models / "hubert" / "model.safetensors")
    by_id = build("audio.hubert", weights=[models], model="someone/hubert").describe()
    by_folder = build("audio.hubert", model=str(models / "hubert")).describe()
    assert by_id["weights"] == {"source": "someone/hubert", "sha256": digest}
    assert by_folder["weights"] == {"source": "hubert", "sha256": digest}
    assert str(models) not in json.dumps([by_id, by_folder])


def test_pickled_checkpoint_with_old_names_loads_the_same(models: Path, hubert: Path) -> None:
    expected = encode(build("audio.hubert", model=str(hubert)), [Sound(noise(2000))])[0].values
    state = AutoModel.from_pretrained(hubert).state_dict()
    old = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in state.items()
        if key != "masked_spec_embed"
    }
    assert sum(key.endswith(("weight_g", "weight_v")) for key in old) == 2
    (hubert / "model.safetensors").unlink()
    torch.save(old, hubert / "pytorch_model.bin")
    encoder = build("audio.hubert", model=str(hubert))
    np.testing.assert_array_equal(encode(encoder, [Sound(noise(2000))])[0].values, expected)
    assert encoder.describe()["weights"]["sha256"] == sha256_of(hubert / "pytorch_model.bin")


def test_checkpoint_with_a_head_loads_without_it_and_quietly(hubert: Path, capfd: pytest.CaptureFixture) -> None:
    torch.manual_seed(2)
    with_head = HubertForCTC(HubertConfig(**SMALL))
    with_head.save_pretrained(hubert)
    capfd.readouterr()
    encoder = build("audio.hubert", model=str(hubert))
    assert capfd.readouterr() == ("", "")
    expected = by_transformers(hubert, noise(2000), 3)
    np.testing.assert_allclose(encode(encoder, [Sound(noise(2000))])[0].values, expected, atol=5e-3, rtol=1e-3)


def test_checkpoint_that_lacks_weights_is_an_error_and_not_filled_in(hubert: Path) -> None:
    state = AutoModel.from_pretrained(hubert).state_dict()
    del state["encoder.layers.1.attention.k_proj.weight"]
    (hubert / "model.safetensors").unlink()
    torch.save(state, hubert / "pytorch_model.bin")
    with pytest.raises(
        BmlaError, match=r"lacks 1 weights of a hubert model, such as encoder\.layers\.1\.attention\.k_proj"
    ):
        build("audio.hubert", model=str(hubert))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_unreadable_checkpoint_is_one_clear_line(hubert: Path, file: str) -> None:
    (hubert / "model.safetensors").unlink()
    (hubert / file).write_bytes(b"<html>404</html>" * 9)
    with pytest.raises(BmlaError, match=f"{file}: can't be loaded as a hubert model") as caught:
        build("audio.hubert", model=str(hubert))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", "{}"),
        ("config.json", '{"model_type": "no such"}'),
        ("preprocessor_config.json", "{"),
    ],
)
def test_unreadable_description_is_one_clear_line(hubert: Path, file: str, content: str) -> None:
    (hubert / file).write_text(content)
    with pytest.raises(BmlaError, match="hubert: its json files describe no model") as caught:
        build("audio.hubert", model=str(hubert))
    assert "\n" not in str(caught.value)


def test_pickle_that_runs_code_is_refused(hubert: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (hubert / "owned",))

    (hubert / "model.safetensors").unlink()
    torch.save({"x": Evil()}, hubert / "pytorch_model.bin")
    with pytest.raises(BmlaError, match="can't be loaded"):
        build("audio.hubert", model=str(hubert))
    assert not (hubert / "owned").exists()


def test_missing_weights_say_what_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound) as caught:
        build("audio.hubert", weights=[tmp_path])
    for part in (
        "facebook/hubert-base-ls960",
        "config.json, preprocessor_config.json and model.safetensors or pytorch_model.bin",
        str(tmp_path),
        "hf download facebook/hubert-base-ls960 --local-dir WEIGHTS/hubert-base-ls960",
    ):
        assert part in str(caught.value)


def test_model_of_another_family_is_a_usage_error(hubert: Path) -> None:
    config = json.loads((hubert / "config.json").read_text())
    (hubert / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(UsageError, match='is of type "bert"; known: hubert, wav2vec2, wavlm, data2vec-audio'):
        build("audio.hubert", model=str(hubert))


def test_model_for_another_sample_rate_is_a_usage_error(hubert: Path) -> None:
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(hubert)
    with pytest.raises(UsageError, match="wants 8000 Hz"):
        build("audio.hubert", model=str(hubert))


def test_model_that_pools_its_output_is_a_usage_error() -> None:
    model = AutoModel.from_config(Wav2Vec2Config(**SMALL, add_adapter=True))
    with pytest.raises(UsageError, match="add_adapter"):
        SpeechEncoder(HubModel(model, Wav2Vec2FeatureExtractor(), {"source": "x"}), SpeechOptions())


def test_random_model_comes_only_by_name_and_says_so() -> None:
    before = torch.random.get_rng_state()
    first, second = (build("audio.hubert", model="random:hubert-tiny") for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.describe()["weights"] == {"source": "random:hubert-tiny", "random_seed": 0}
    sound = Sound(noise(2000))
    np.testing.assert_array_equal(encode(first, [sound])[0].values, encode(second, [sound])[0].values)
    with pytest.raises(UnknownName, match="random:hubert-base, random:hubert-tiny"):
        build("audio.hubert", model="random:huge")


def test_random_base_model_has_768_dimensions() -> None:
    assert build("audio.hubert", model="random:hubert-base").feature_shape == (768,)
