"""AVBERT's and MAViL's streams: the network over what the AV-SUPERB protocol makes of a clip, written out again."""

from typing import Any

import numpy as np
import pytest
import soxr
import torch
from torch.nn.functional import interpolate

from bmla.extract.encoders.avbert import AvBertInput, cuts, slack, view_starts
from bmla.extract.encoders.base import Both, Pictures, Sound, encode
from bmla.extract.encoders.mavil import MavilInput, shown_frames
from bmla.extract.encoders.spectra import kaldi_log_mel, stretched_log_mel
from bmla.extract.encoders.table import build
from bmla.extract.upstreams.avbert import AUDIO, VISUAL, AvBertConfig
from bmla.extract.upstreams.loading import random_upstream
from bmla.store.errors import MediaError, UsageError, WeightsNotFound

AVBERT, MAVIL = "random:avbert-tiny", "random:mavil-tiny"


def sound_of(samples: int, seed: int = 0) -> Sound:
    return Sound(np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32))


def pictures_of(frames: int, height: int, width: int, seed: int = 0) -> Pictures:
    images = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)
    return Pictures(images, np.ones(frames, bool))


def avbert_views(clip: Pictures, side: int, frames: int, views: int) -> torch.Tensor:
    """(3, V, 3, F, S, S): short side scaled by the nearest pixel, three cuts along the long one."""
    count, height, width = clip.frames.shape[:3]
    span = frames * 2 * 25 / 30
    new_h, new_w = (int(height / width * side), side) if width < height else (side, int(width / height * side))
    rows = (np.arange(new_h) * (height / new_h)).astype(int)
    columns = (np.arange(new_w) * (width / new_w)).astype(int)
    small = clip.frames[:, rows][:, :, columns].astype(np.float64) / 255
    small = (small - 0.45) / 0.225
    middle_y, middle_x = -((side - new_h) // 2), -((side - new_w) // 2)
    places = [0, middle_y, new_h - side] if height > width else [0, middle_x, new_w - side]
    made = []
    for place in places:
        y, x = (place, middle_x) if height > width else (middle_y, place)
        for view in range(views):
            start = max(count - span, 0) * view / (views - 1)
            shown = [int(min(max(start + (span - 1) * k / (frames - 1), 0), count - 1)) for k in range(frames)]
            made.append(small[shown, y : y + side, x : x + side].transpose(3, 0, 1, 2))
    return torch.tensor(np.stack(made)).float().view(3, views, 3, frames, side, side)


@pytest.mark.parametrize(("frames", "height", "width"), [(20, 60, 40), (20, 33, 70), (4, 32, 32)])
def test_avbert_sees_and_hears_the_protocols_views(frames: int, height: int, width: int) -> None:
    model: Any = random_upstream("avbert-tiny", "avbert").model
    config: AvBertConfig = model.config
    sound, pictures = sound_of(frames * 640, 1), pictures_of(frames, height, width, 2)

    filled = np.append(sound.samples, np.zeros(max(0, 16_385 - len(sound.samples)), np.float32))
    whole = soxr.resample(filled, 16_000, 44_100, quality="HQ")
    length, spare = 44_100 * config.frames * 2 // 30, max(frames - config.frames * 5 / 3, 0)
    shares = [i / (config.views - 1) if spare else 0 for i in range(config.views)]
    starts = [int(max(len(whole) - length, 0) * share) for share in shares]
    spectra = [stretched_log_mel(whole[s : s + length], 44_100, config.bands, config.columns) for s in starts]
    with torch.inference_mode():
        heard = model.single(model.heard(torch.tensor(np.stack(spectra))[:, None])[None], AUDIO)
        seen = [
            model.single(model.seen(views)[None], VISUAL)
            for views in avbert_views(pictures, config.side, config.frames, config.views)
        ]
        both = [model.multi(one[-1], heard[-1]) for one in seen]
    for stream, clip, layers in (
        ("audio.avbert", sound, heard),
        ("video.avbert", pictures, side_by_side(seen)),
        ("av.avbert", Both(sound, pictures), side_by_side(both)),
    ):
        (found,) = encode(build(stream, model=AVBERT, layer="all"), [clip])
        expected = torch.stack(layers, dim=2)[0]
        assert found.values.shape == expected.shape
        np.testing.assert_allclose(found.values, expected.half().numpy(), rtol=5e-3, atol=5e-3)
        (last,) = encode(build(stream, model=AVBERT), [clip])
        np.testing.assert_array_equal(last.values, found.values[:, -1])


def side_by_side(cut_layers: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """Per layer (1, T, D) of each cut -> (1, 3 T, D), the cuts of a step next to each other."""
    return [torch.stack(states, dim=2).flatten(1, 2) for states in zip(*cut_layers, strict=True)]


def test_avberts_published_views_are_ten_of_two_seconds() -> None:
    config = AvBertConfig()
    assert [round(s, 2) for s in view_starts(250, config)[::3]] == [0, 65.56, 131.11, 196.67]
    assert slack(29, config) == 0
    spectra = AvBertInput(config).heard(sound_of(18_560), 29)
    assert spectra.shape == (10, 1, 80, 128)
    assert np.abs(spectra - spectra[:1]).max() == 0  # LRW's clips are shorter than a view
    assert cuts(128, 170, 128) == [(0, 0), (0, 21), (0, 42)]
    assert cuts(171, 128, 128) == [(0, 0), (22, 0), (43, 0)]


@pytest.mark.parametrize(("frames", "samples"), [(60, 9000), (20, 3000), (5, 500)])
def test_mavil_sees_and_hears_the_protocols_clip(frames: int, samples: int) -> None:
    model: Any = random_upstream("mavil-tiny", "mavil").model
    config = model.config
    sound, pictures = sound_of(samples, 3), pictures_of(frames, 50, 70, 4)
    bands = kaldi_log_mel(sound.samples - sound.samples.mean(), config.bands)
    filled = torch.zeros(config.columns, config.bands, dtype=torch.float64)
    count = min(len(bands), config.columns)
    filled[:count] = torch.tensor(bands[:count])
    filled = (filled - filled.mean()) / (2 * filled.std())
    np.testing.assert_allclose(MavilInput(config).heard(sound, 29), filled.numpy(), rtol=1e-5, atol=1e-6)

    shown = [int(12.5 * k) for k in range(max(1, int(frames / 12.5)))]
    shown = (shown * config.frames)[: config.frames]
    x = interpolate(torch.tensor(pictures.frames[shown]).permute(0, 3, 1, 2) / 255, (config.side,) * 2, mode="bilinear")
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((x - mean[:, None, None]) / deviation[:, None, None]).transpose(0, 1)[None]
    with torch.inference_mode():
        heard, seen = model.audio(filled[None, None].float()), model.video(x)
        pooled = {
            "audio.mavil": [state[:, 1:].mean(1) for state in heard],
            "video.mavil": [state[:, 1:].mean(1) for state in seen],
            "av.mavil": model.both(heard[-1], seen[-1]),
        }
    for stream, clip in (("audio.mavil", sound), ("video.mavil", pictures), ("av.mavil", Both(sound, pictures))):
        (found,) = encode(build(stream, model=MAVIL, layer="0,2"), [clip])
        expected = torch.stack([pooled[stream][0], pooled[stream][2]], dim=1)
        assert found.values.shape == expected.shape
        np.testing.assert_allclose(found.values, expected.half().numpy(), rtol=5e-3, atol=5e-3)


def test_mavils_eight_pictures_repeat_where_a_clip_is_over() -> None:
    assert shown_frames(250, 8).tolist() == [0, 12, 25, 37, 50, 62, 75, 87]
    assert shown_frames(29, 8).tolist() == [0, 12] * 4
    assert shown_frames(75, 8).tolist() == [0, 12, 25, 37, 50, 62, 0, 12]
    assert shown_frames(3, 8).tolist() == [0] * 8


def test_specifications_say_modality_layer_and_inputs() -> None:
    avbert = build("av.avbert", model=AVBERT, layer=1).describe()["parameters"]
    assert (avbert["modality"], avbert["layer"], avbert["layers"]) == ("audio-visual", 1, 2)
    assert avbert["views"] == "a summary and 3 of 0.267 s, evenly over the clip"
    assert {"sound", "pictures"} <= avbert.keys()
    mavil = build("video.mavil", model=MAVIL).describe()["parameters"]
    assert (mavil["modality"], mavil["layer"], mavil["pooling"]) == ("visual", 2, "mean over patches")
    assert "sound" not in mavil
    assert build("av.mavil", model=MAVIL).describe()["parameters"]["pooling"].endswith("sound and sight side by side")


def test_what_can_not_be_is_one_line(tmp_path: Any) -> None:
    with pytest.raises(WeightsNotFound, match=r"mavil\.safetensors is not on this machine"):
        build("video.mavil", weights=[tmp_path])
    with pytest.raises(UsageError, match=r"av\.avbert: there is no layer 7; expected 0 to 2"):
        build("av.avbert", model=AVBERT, layer=7)
    with pytest.raises(MediaError, match=r"399 samples of sound"):
        encode(build("audio.mavil", model=MAVIL), [sound_of(399)])
    silent = Sound(np.zeros(16_000, np.float32))
    assert np.isfinite(encode(build("audio.avbert", model=AVBERT), [silent])[0].values).all()
