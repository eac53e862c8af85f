import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input, Steps
from bmla.fuse.models.table import build
from bmla.fuse.models.transformer import ConcatTransformer

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 25.0)}


def model(ratio: str = "1:1") -> ConcatTransformer:
    torch.manual_seed(0)
    made = build(RunConfig("transformer", width=8, heads=2, layers=2, ratio=ratio), INPUTS, 4).eval()
    assert isinstance(made, ConcatTransformer)
    return made


def clip() -> tuple[Steps, Steps]:
    generator = torch.Generator().manual_seed(1)
    audio = Steps(torch.randn(1, 8, 6, generator=generator), torch.ones(1, 8, dtype=torch.bool))
    return audio, Steps(torch.randn(1, 4, 5, generator=generator), torch.ones(1, 4, dtype=torch.bool))


def test_the_faster_stream_is_pooled_to_the_slower_one() -> None:
    audio, visual = clip()
    pairs = audio.values.view(1, 4, 2, 6)
    means = pairs.mean(2, keepdim=True).expand(1, 4, 2, 6).reshape(1, 8, 6)
    out = model()(audio, visual).result
    torch.testing.assert_close(model()(Steps(means, audio.mask), visual).result, out)
    swapped = pairs.flip(2).reshape(1, 8, 6)
    torch.testing.assert_close(model()(Steps(swapped, audio.mask), visual).result, out)
    assert not torch.allclose(model()(Steps(audio.values.flip(1), audio.mask), visual).result, out, atol=1e-3)


def test_the_encoder_sees_both_modalities_side_by_side_at_the_slower_rate() -> None:
    fused = model("1:3")
    seen = []
    fused.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    fused(*clip())
    x, mask = seen[0]
    assert x.shape == (1, 4, 16)
    assert mask.all()
    assert (fused.audio.linear.out_features, fused.visual.linear.out_features) == (4, 12)
