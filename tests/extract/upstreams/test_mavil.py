"""MAViL: every published key and shape, its checkpoint by the real path, and its blocks against torch's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv3d, layer_norm

from bmla.extract.upstreams.checkpoint import Checkpoint
from bmla.extract.upstreams.convert import convert
from bmla.extract.upstreams.loading import open_upstream
from bmla.extract.upstreams.match import match
from bmla.extract.upstreams.mavil import Mavil, MavilConfig, pool
from bmla.extract.upstreams.table import UPSTREAMS, mavil
from bmla.store.errors import BmlaError

State = dict[str, torch.Tensor]
CONFIG = {"layers": 2, "layers_av": 2, "width": 16, "patch": 8, "frames": 4, "side": 16, "columns": 24, "bands": 16}
HEARD, SEEN, HEADS, WIDTH = 3 * 2, 2 * 2 * 2, 4, 16


@pytest.fixture(scope="module")
def state(shapes_of_mavil: Callable, seeded_tensors: Callable) -> State:
    return seeded_tensors(shapes_of_mavil(2, 2, WIDTH, 8, HEARD, SEEN), seed=5)


@pytest.fixture(scope="module")
def model(state: State) -> Mavil:
    made = Mavil(MavilConfig(**CONFIG, heads=HEADS))
    made.load_state_dict({key: state[key] for key in made.state_dict()})
    return made.eval().requires_grad_(False)


def test_every_published_key_and_shape_is_known(shapes_of_mavil: Callable) -> None:
    shapes = shapes_of_mavil(12, 3, 768, 16, 64 * 8, 4 * 14 * 14)
    meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    found = match(Checkpoint("a", "", meta, None), UPSTREAMS["mavil"])
    assert found.fits
    assert {k for k, _ in found.unused} == {"head_av.weight", "head_av.bias"}
    assert found.tensors.keys() == shapes.keys() - {k for k, _ in found.unused}


def test_a_checkpoint_is_converted_and_loaded(
    tmp_path: Path, state: State, save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(UPSTREAMS, "mavil", mavil(CONFIG, heads=HEADS))
    lines: list[str] = []
    convert(save({"model": state}, tmp_path / "a.pth"), "mavil", tmp_path / "mavil.safetensors", lines.append)
    assert "  num_heads: not in the checkpoint, taken to be 4" in lines
    loaded = open_upstream(None, "mavil", [tmp_path])
    assert all(torch.equal(value, state[key]) for key, value in loaded.model.state_dict().items())
    separate = {key: value for key, value in state.items() if not key.startswith(("blocks_av", "fc_norm_av"))}
    with pytest.raises(BmlaError, match=r"b\.pth: is not mavil as published: 26 keys missing"):
        convert(save({"model": separate}, tmp_path / "b.pth"), "mavil", tmp_path / "out", lines.append)
    assert "  blocks_av.0.norm1.weight      expected (16,)" in lines


def torchs_block(state: State, name: str) -> nn.TransformerEncoderLayer:
    block = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    names = {
        "norm1.": "norm1.",
        "norm2.": "norm2.",
        "attn.qkv.": "self_attn.in_proj_",
        "attn.proj.": "self_attn.out_proj.",
        "mlp.fc1.": "linear1.",
        "mlp.fc2.": "linear2.",
    }
    block.load_state_dict(
        {f"{new}{part}": state[f"{name}.{old}{part}"] for old, new in names.items() for part in ("weight", "bias")}
    )
    return block.double().eval().requires_grad_(False)


def test_blocks_and_tokens_are_the_written_out_ones(model: Mavil, state: State) -> None:
    generator = torch.Generator().manual_seed(6)
    sound, pictures = (
        torch.randn(2, 1, 24, 16, generator=generator),
        torch.randn(2, 3, 4, 16, 16, generator=generator),
    )
    exact = {key: value.double() for key, value in state.items()}
    heard = conv2d(sound.double(), exact["patch_embed.proj.weight"], exact["patch_embed.proj.bias"], 8)
    seen = conv3d(pictures.double(), exact["patch_embed_v.proj.weight"], exact["patch_embed_v.proj.bias"], (2, 8, 8))
    states = {}
    for suffix, patches in (("", heard), ("_v", seen)):
        x = patches.reshape(2, WIDTH, -1).transpose(1, 2)
        cls = exact[f"cls_token{suffix}"].repeat(2, 1, 1)
        x = torch.cat([cls, x], dim=1) + exact[f"pos_embed{suffix}"]
        states[suffix] = [x]
        for number in range(2):
            x = torchs_block(state, f"blocks{suffix}.{number}")(x)
            states[suffix].append(x)
    audio, video = model.audio(sound), model.video(pictures)
    for mine, theirs in ((audio, states[""]), (video, states["_v"])):
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(pool(audio[1]), audio[1][:, 1:].mean(1))

    x = torch.cat([states[""][-1], states["_v"][-1]], dim=1)
    both = []
    for number in range(3):
        both.append(torch.cat([x[:, 1 : HEARD + 1].mean(1), x[:, HEARD + 2 :].mean(1)], dim=1))
        x = torchs_block(state, f"blocks_av.{number}")(x) if number < 2 else x
    both[-1] = layer_norm(both[-1], (2 * WIDTH,), exact["fc_norm_av.weight"], exact["fc_norm_av.bias"], 1e-6)
    for a, b in zip(model.both(audio[-1], video[-1]), both, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-4)


def test_blocks_after_the_wanted_state_are_not_computed(model: Mavil) -> None:
    sound = torch.randn(1, 1, 24, 16, generator=torch.Generator().manual_seed(7))
    states = model.audio(sound)
    for last in range(3):
        assert len(model.audio(sound, last)) == last + 1
        assert torch.equal(model.audio(sound, last)[-1], states[last])
