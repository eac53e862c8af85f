"""The gated unit and FiLM against sums that are written out."""

import math

import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import FusionModel, Input, Steps
from bmla.fuse.models.table import build

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 25.0)}


def model(name: str) -> FusionModel:
    torch.manual_seed(0)
    return build(RunConfig(name, width=4, heads=2, layers=1), INPUTS, 3).eval()


def pair() -> tuple[Steps, Steps]:
    generator = torch.Generator().manual_seed(1)
    audio = Steps(torch.randn(1, 6, 6, generator=generator), torch.ones(1, 6, dtype=torch.bool))
    return audio, Steps(torch.randn(1, 3, 5, generator=generator), torch.ones(1, 3, dtype=torch.bool))


def test_each_feature_comes_from_either_modality_in_the_share_of_its_gate() -> None:
    gated = model("gated")
    out = gated(*pair())
    za, zv = out.pooled_audio[0].tolist(), out.pooled_visual[0].tolist()
    ma, mv, g = gated.audio_map.weight.tolist(), gated.visual_map.weight.tolist(), gated.gate.weight.tolist()
    hidden = []
    for k in range(4):
        share = 1 / (1 + math.exp(-sum(w * x for w, x in zip(g[k], za + zv, strict=True))))
        ha = math.tanh(sum(w * x for w, x in zip(ma[k], za, strict=True)))
        hv = math.tanh(sum(w * x for w, x in zip(mv[k], zv, strict=True)))
        hidden.append(share * ha + (1 - share) * hv)
    logits = gated.head.weight @ torch.tensor(hidden) + gated.head.bias
    torch.testing.assert_close(out.result[0], logits.log_softmax(0))


def test_without_a_modality_the_gate_is_all_the_others() -> None:
    gated = model("gated")
    audio, visual = pair()
    both = gated(audio, visual)
    torch.testing.assert_close(gated(audio, visual.absent()).result, both.audio)
    torch.testing.assert_close(gated(audio.absent(), visual).result, both.visual)


def test_sight_scales_and_shifts_each_feature_of_sound() -> None:
    film = model("film")
    out = film(*pair())
    za, zv = out.pooled_audio[0], out.pooled_visual[0]
    change = film.modulation.weight @ zv + film.modulation.bias
    z = torch.stack([(1 + change[k]) * za[k] + change[4 + k] for k in range(4)])
    torch.testing.assert_close(out.result[0], (film.head.weight @ z + film.head.bias).log_softmax(0))


def test_without_sight_nothing_is_modulated_and_without_sound_the_shift_is_left() -> None:
    film = model("film")
    with torch.no_grad():
        film.modulation.bias.add_(0.7)
    audio, visual = pair()
    out = film(audio, visual.absent())
    torch.testing.assert_close(out.result, film.head(out.pooled_audio).log_softmax(1))
    out = film(audio.absent(), visual)
    shift = film.modulation(out.pooled_visual)[:, 4:]
    torch.testing.assert_close(out.result, film.head(shift).log_softmax(1))
