"""AV-HuBERT's three streams by the real path: a converted file in a folder of weights, its own preprocessing, chosen layers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm

from bmla.extract.encoders.base import Both, Sight, Sound, encode
from bmla.extract.encoders.filterbank import log_filterbank
from bmla.extract.encoders.table import build
from bmla.extract.faces.crops import mouth_crop
from bmla.extract.faces.policy import MouthCrop
from bmla.extract.upstreams.convert import convert
from bmla.extract.upstreams.loading import random_upstream
from bmla.extract.upstreams.table import RANDOM_MODELS, UPSTREAMS
from bmla.store.errors import MediaError, UsageError, WeightsNotFound

STREAMS = ("audio.avhubert", "mouth.avhubert", "av.avhubert")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small model under the published name."""
    monkeypatch.setitem(UPSTREAMS, "avhubert-base", RANDOM_MODELS["avhubert-tiny"])
    torch.save({"model": random_upstream("avhubert-tiny", "avhubert").model.state_dict()}, tmp_path / "base.pt")
    convert(tmp_path / "base.pt", "avhubert-base", tmp_path / "avhubert-base.safetensors", lambda line: None)
    return tmp_path


def prepared(sound: Sound, sight: Sight) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, T, 104) and (1, T, 88, 88) as the public code makes them."""
    bands = log_filterbank(sound.samples.astype(np.float64) * 32768)
    steps = len(sight.frames)
    stacked = np.zeros((steps * 4, 26))
    stacked[: len(bands)] = bands[: steps * 4]
    audio = layer_norm(torch.tensor(stacked.reshape(steps, 104)).float(), (104,))
    crops = mouth_crop(sight.frames, sight.landmarks, MouthCrop(88, 1.62))
    return audio[None], ((torch.tensor(crops)[None] / 255) - 0.421) / 0.165


def test_each_stream_is_the_network_over_its_inputs(
    weights: Path, make_sound: Callable[..., Sound], make_sight: Callable[..., Sight]
) -> None:
    sound, sight = make_sound(0.4, 1), make_sight(0.4, 2)
    audio, video = prepared(sound, sight)
    model: Any = random_upstream("avhubert-tiny", "avhubert").model
    for stream, clip, given in zip(
        STREAMS, (sound, sight, Both(sound, sight)), ((audio, None), (None, video), (audio, video)), strict=True
    ):
        with torch.inference_mode():
            hidden = model(*given)
        last = encode(build(stream, weights=[weights]), [clip])[0]
        np.testing.assert_allclose(last.values, hidden[-1][0].half().numpy(), rtol=2e-3, atol=2e-3)
        several = encode(build(stream, weights=[weights], layer="0,2"), [clip])[0]
        assert several.values.shape == (10, 2, 32)
        expected = torch.stack([hidden[0], hidden[2]], dim=2)[0]
        np.testing.assert_allclose(several.values, expected.half().numpy(), rtol=2e-3, atol=2e-3)
        np.testing.assert_array_equal(last.valid, np.ones(10, bool) if stream == STREAMS[0] else sight.valid)


def test_a_specification_says_checkpoint_layer_modality_and_preprocessing(weights: Path) -> None:
    described = build("mouth.avhubert", weights=[weights], layer="all").describe()
    assert described["weights"]["source"] == "base.pt"
    assert len(described["weights"]["sha256"]) == len(described["weights"]["safetensors_sha256"]) == 64
    assert described["parameters"] == {
        "modality": "visual",
        "layer": [0, 1, 2, 3],
        "layers": 3,
        "pictures": "grey, (x / 255 - 0.421) / 0.165",
        "other_modality": "zeros behind its front end",
    }
    assert (described["crop"]["size_px"], described["crop"]["width"]) == (88, 1.62)
    both = build("av.avhubert", weights=[weights]).describe()["parameters"]
    assert both["sound"] == "log filterbank 4 x 26 (25 ms, 10 ms), normalised by step"
    assert "other_modality" not in both


def test_what_can_not_be_is_one_line(tmp_path: Path, make_sound: Callable[..., Sound]) -> None:
    with pytest.raises(
        WeightsNotFound, match=r"avhubert-base\.safetensors is not on this machine .*bmla weights convert"
    ):
        build("av.avhubert", weights=[tmp_path])
    with pytest.raises(UsageError, match=r"audio\.avhubert: there is no layer 4; expected 0 to 3"):
        build("audio.avhubert", model="random:avhubert-tiny", layer=4)
    encoder = build("audio.avhubert", model="random:avhubert-tiny")
    with pytest.raises(MediaError, match=r"399 samples of sound, expected at least one window of 400"):
        encode(encoder, [Sound(make_sound(1).samples[:399])])


def test_half_precision_is_close_to_full(make_sound: Callable[..., Sound]) -> None:
    clip = make_sound(0.4, 3)
    full, half = (
        encode(build("audio.avhubert", model="random:avhubert-tiny", parameters={"precision": p}), [clip])[0]
        for p in ("fp32", "bf16")
    )
    assert not np.array_equal(full.values, half.values)
    np.testing.assert_allclose(full.values, half.values, atol=0.1)
