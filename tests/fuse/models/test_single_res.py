import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import FusionModel, Input, Steps
from bmla.fuse.models.blocks import masked_mean, positions
from bmla.fuse.models.table import build

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 25.0)}


def model(**options: object) -> FusionModel:
    torch.manual_seed(0)
    return build(RunConfig("single-res", width=8, heads=2, layers=1, **options), INPUTS, 3).eval()


def pair() -> tuple[Steps, Steps]:
    generator = torch.Generator().manual_seed(1)
    audio = Steps(torch.randn(1, 6, 6, generator=generator), torch.ones(1, 6, dtype=torch.bool))
    return audio, Steps(torch.randn(1, 3, 5, generator=generator), torch.ones(1, 3, dtype=torch.bool))


def test_sounds_encoder_reads_sound_plus_what_it_found_in_sight() -> None:
    single = model(attention="bilinear")
    audio, visual = pair()
    sound = single.audio.project.linear(audio.values) + positions(6, 8, 50.0)
    sight = single.visual.linear(visual.values) + positions(3, 8, 25.0)
    beta = torch.einsum("bid,de,bje->bji", sight, single.audio_brff.weight.weight, sound).softmax(-1)
    fused = sound + beta @ sight
    z = masked_mean(single.audio.encoder(fused, audio.mask), audio.mask)
    torch.testing.assert_close(single(audio, visual).result, single.head(z).log_softmax(1))


def test_training_begins_at_sound_alone() -> None:
    single = model()
    audio, visual = pair()
    torch.testing.assert_close(single(audio, visual).result, single(audio, visual.absent()).result)


def test_without_sound_one_learnt_step_looks_at_sight() -> None:
    single = model(attention="bilinear")
    audio, visual = pair()
    out = single(audio.absent(), visual).result
    torch.testing.assert_close(out, single(Steps(audio.values[:, :1] * 9, audio.mask[:, :1]).absent(), visual).result)
    assert not torch.allclose(out, single(audio.absent(), Steps(visual.values + 1, visual.mask)).result, atol=1e-4)
    out[:, 0].sum().backward()
    assert single.silence.grad.abs().sum() > 0
