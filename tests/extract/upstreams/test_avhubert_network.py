"""AV-HuBERT's blocks against other computations: transformers' encoder, torchvision's ResNet-18, written-out sums."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, conv3d, layer_norm, linear, max_pool3d, prelu
from torchvision.models import resnet18
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2EncoderStableLayerNorm

from bmla.extract.upstreams.avhubert import AvHubert, AvHubertConfig, ResEncoder

LAYERS, WIDTH, INNER, HEADS, CONV_POS, GROUPS, TRUNK = 3, 32, 48, 4, 16, 4, (4, 6, 8, 10)
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(shapes_of_avhubert: Callable, seeded_tensors: Callable) -> State:
    return seeded_tensors(shapes_of_avhubert(LAYERS, WIDTH, INNER, CONV_POS, GROUPS, TRUNK), seed=1)


@pytest.fixture(scope="module")
def model(state: State) -> AvHubert:
    made = AvHubert(AvHubertConfig(LAYERS, WIDTH, INNER, HEADS, CONV_POS, GROUPS, TRUNK))
    made.load_state_dict({key: value for key, value in state.items() if key in made.state_dict()})
    return made.eval().requires_grad_(False)


def part(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def transformers_hidden(state: State, x: torch.Tensor) -> list[torch.Tensor]:
    """Hidden states of transformers' encoder, whose names are not fairseq's."""
    encoder = Wav2Vec2EncoderStableLayerNorm(
        Wav2Vec2Config(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=INNER,
            num_conv_pos_embeddings=CONV_POS,
            num_conv_pos_embedding_groups=GROUPS,
            do_stable_layer_norm=True,
        )
    )
    names = {
        "pos_conv.0.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
        "pos_conv.0.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
        "pos_conv.0.bias": "pos_conv_embed.conv.bias",
    }
    renamed = {}
    for key, value in part(state, "encoder.").items():
        name = names.get(key, key)
        for old, new in (
            (".self_attn_layer_norm.", ".layer_norm."),
            (".self_attn.", ".attention."),
            (".fc1.", ".feed_forward.intermediate_dense."),
            (".fc2.", ".feed_forward.output_dense."),
        ):
            name = name.replace(old, new)
        renamed[name] = value
    encoder.load_state_dict(renamed)
    encoder.eval().requires_grad_(False)
    hidden = [x + encoder.pos_conv_embed(x)]
    for layer in encoder.layers:
        given = layer(hidden[-1])
        hidden.append(given[0] if isinstance(given, tuple) else given)  # by the version of transformers
    last = encoder.layer_norm(hidden.pop())
    torch.testing.assert_close(last, encoder(x.clone()).last_hidden_state)
    return [*hidden, last]


def test_the_encoder_is_that_of_transformers(model: AvHubert, state: State) -> None:
    x = torch.randn(2, 21, WIDTH, generator=torch.Generator().manual_seed(2))
    hidden = model.encoder(x.clone())
    expected = transformers_hidden(state, x)
    assert len(hidden) == len(expected) == LAYERS + 1
    for mine, theirs in zip(hidden, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_layers_after_the_wanted_one_are_not_computed(model: AvHubert) -> None:
    x = torch.randn(1, 9, WIDTH, generator=torch.Generator().manual_seed(3))
    hidden = model.encoder(x)
    for last in range(LAYERS + 1):
        some = model.encoder(x, last)
        assert len(some) == last + 1
        assert all(torch.equal(a, b) for a, b in zip(some, hidden, strict=False))


def written_out(state: State, video: torch.Tensor) -> torch.Tensor:
    """(1, T, S, S) -> (T, channels): the front end operation by operation, in double precision."""
    weights = {key: value.double() for key, value in part(state, "feature_extractor_video.resnet.").items()}

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, gain, shift = (
            weights[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")
        )
        return batch_norm(x, mean, variance, gain, shift)

    x = conv3d(video.double()[:, None], weights["frontend3D.0.weight"], stride=(1, 2, 2), padding=(2, 3, 3))
    x = prelu(normed(x, "frontend3D.1"), weights["frontend3D.2.weight"])
    x = max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))[0].transpose(0, 1)  # (T, channels, S / 4, S / 4)
    for stage in range(1, 5):
        for block in range(2):
            name = f"trunk.layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            inner = conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = prelu(normed(inner, f"{name}.bn1"), weights[f"{name}.relu1.weight"])
            inner = normed(conv2d(inner, weights[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in weights:
                x = normed(conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = prelu(x + inner, weights[f"{name}.relu2.weight"])
    return x.mean(dim=(2, 3))


def test_the_front_end_is_the_written_out_one(model: AvHubert, state: State) -> None:
    video = torch.randn(1, 6, 40, 40, generator=torch.Generator().manual_seed(4))
    expected = written_out(state, video)
    torch.testing.assert_close(model.feature_extractor_video.resnet(video)[0].double(), expected, rtol=1e-4, atol=1e-5)


def test_with_relus_the_trunk_is_torchvisions_resnet18() -> None:
    torch.manual_seed(5)
    theirs = resnet18(weights=None).eval()
    mine = ResEncoder((64, 128, 256, 512)).eval()
    mine.trunk.load_state_dict({k: v for k, v in theirs.state_dict().items() if k.startswith("layer")}, strict=False)
    for module in mine.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.zeros_(module.weight)
    x = torch.randn(2, 64, 22, 22)
    with torch.no_grad():
        expected = mine_out = x
        for number in range(1, 5):
            expected = getattr(theirs, f"layer{number}")(expected)
            mine_out = getattr(mine.trunk, f"layer{number}")(mine_out)
    torch.testing.assert_close(mine_out, expected)


@pytest.mark.parametrize("given", ["audio", "video", "both"])
def test_fusion_is_the_written_out_one_and_a_modality_that_is_not_there_is_zero_behind_its_front_end(
    model: AvHubert, state: State, given: str
) -> None:
    generator = torch.Generator().manual_seed(6)
    audio, video = torch.randn(1, 7, 104, generator=generator), torch.randn(1, 7, 32, 32, generator=generator)
    heard = linear(audio, *(state[f"feature_extractor_audio.proj.{p}"] for p in ("weight", "bias")))
    seen = written_out(state, video).float()[None]
    seen = linear(seen, *(state[f"feature_extractor_video.proj.{p}"] for p in ("weight", "bias")))
    if given == "audio":
        seen = torch.zeros_like(seen)
    if given == "video":
        heard = torch.zeros_like(heard)
    both = torch.cat([heard, seen], dim=-1)
    both = layer_norm(both, both.shape[-1:], state["layer_norm.weight"], state["layer_norm.bias"])
    both = linear(both, state["post_extract_proj.weight"], state["post_extract_proj.bias"])
    expected = transformers_hidden(state, both)
    hidden = model(audio if given != "video" else None, video if given != "audio" else None)
    for mine, theirs in zip(hidden, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
