"""AVBERT: every published key and shape, its checkpoint by the real path, and each block against a written-out computation."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch.nn.functional import avg_pool2d, avg_pool3d, batch_norm, conv2d, conv3d, layer_norm, linear, max_pool3d

from bmla.extract.upstreams.avbert import AUDIO, MULTI, VISUAL, AvBert, AvBertConfig, FactorLinear, orthogonal
from bmla.extract.upstreams.checkpoint import Checkpoint
from bmla.extract.upstreams.convert import convert
from bmla.extract.upstreams.loading import open_upstream
from bmla.extract.upstreams.match import match
from bmla.extract.upstreams.table import UPSTREAMS, avbert
from bmla.store.errors import BmlaError

State = dict[str, torch.Tensor]
WIDTH, INNER, RANK, HEADS, LAYERS = 24, 32, 6, 4, 3
CONFIG = {"width": WIDTH, "inner": INNER, "rank": RANK, "positions": 8, "visual_width": 4, "audio_width": 4}
COPIES = ("single_visual_transformer.", "single_audio_transformer.", "multi_transformer.")
LAYER = "transformer.encoder.albert_layer_groups.0.albert_layers.0"


@pytest.fixture(scope="module")
def state(shapes_of_avbert: Callable, seeded_tensors: Callable) -> State:
    """The shared Transformer's copies are equal, and every base is orthogonal, as training leaves them."""
    tensors = seeded_tensors(shapes_of_avbert(WIDTH, INNER, RANK, 8, 4, 4), seed=3)
    for key in [k for k in tensors if k.endswith(".base")]:
        tensors[key] = torch.linalg.qr(tensors[key] + torch.eye(RANK))[0]
    for key in [k for k in tensors if k.startswith(COPIES)]:
        tensors[key] = tensors["transformer." + key.partition(".")[2]]
    return tensors


@pytest.fixture(scope="module")
def model(state: State) -> AvBert:
    made = AvBert(AvBertConfig(**CONFIG, heads=HEADS, layers=LAYERS))
    made.load_state_dict({key: state[key] for key in made.state_dict()})
    return made.eval().requires_grad_(False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPSTREAMS, "avbert", avbert(CONFIG, layers=LAYERS, heads=HEADS))


def test_every_published_key_and_shape_is_known(shapes_of_avbert: Callable) -> None:
    shapes = shapes_of_avbert(768, 3072, 128, 22, 64, 32)
    alone = {k: s for k, s in shapes.items() if not k.startswith(COPIES)}  # tensors without numbers have no equals
    meta = {key: torch.empty(shape, device="meta") for key, shape in alone.items()}
    found = match(Checkpoint("a", "", meta, None), UPSTREAMS["avbert"])
    assert found.fits
    assert {k for k, _ in found.unused} == {k for k in alone if k.endswith("num_batches_tracked") or "head" in k}
    assert found.tensors.keys() == alone.keys() - {k for k, _ in found.unused}


@pytest.mark.usefixtures("small")
def test_a_checkpoint_is_converted_and_loaded(tmp_path: Path, state: State, foreign: Any, save: Any) -> None:
    node = type("CfgNode", (dict,), {"__module__": "fvcore.common.config"})
    foreign("fvcore.common.config", "CfgNode")
    sys.modules["fvcore.common.config"].CfgNode = node  # type: ignore[attr-defined]
    settings = node(TRANSFORMER=node(NUM_HIDDEN_LAYERS=LAYERS, NUM_ATTENTION_HEADS=HEADS, ORTHOGONAL_MODE="static"))
    orthogonals = {
        f"{key[:-1]}_B": orthogonal(value, state[f"{key[:-1]}base"])
        for key, value in state.items()
        if key.endswith(".A")
    }
    path = save({"state_dict": {**state, **orthogonals}, "cfg": settings}, tmp_path / "a.pyth")
    lines: list[str] = []
    convert(path, "avbert", tmp_path / "avbert.safetensors", lines.append)
    assert f"  TRANSFORMER.NUM_HIDDEN_LAYERS: {LAYERS}" in lines
    assert "  MODEL.FUSION: not in the checkpoint, taken to be 'mid'" in lines
    loaded = open_upstream(None, "avbert", [tmp_path])
    kept = {k: v for k, v in loaded.model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert all(torch.equal(value, state[key]) for key, value in kept.items())
    assert "fvcore" not in sys.modules


@pytest.mark.usefixtures("small")
def test_what_contradicts_the_reading_of_a_checkpoint_is_refused(tmp_path: Path, state: State, save: Any) -> None:
    odd = f"multi_transformer.{LAYER.partition('.')[2]}.factor_ffn.s_linear.bias"
    turned = f"{LAYER}.factor_ffn.orthogonal_ms1_linear._B"
    path = save({"state_dict": {**state, odd: torch.ones(INNER), turned: -torch.eye(RANK)}}, tmp_path / "a.pyth")
    lines: list[str] = []
    with pytest.raises(BmlaError, match=r"a\.pyth: is not avbert as published: 2 contradictions; nothing was written"):
        convert(path, "avbert", tmp_path / "out", lines.append)
    assert f"  {odd} is not {LAYER}.factor_ffn.s_linear.bias, as it should be" in lines
    assert f"  {turned} is not base exp(A), as its code makes it with the mode static" in lines


@pytest.mark.usefixtures("small")
def test_matrices_that_can_not_be_turned_are_named_and_not_computed_with(
    tmp_path: Path, state: State, save: Any
) -> None:
    name = f"{LAYER}.factor_ffn.orthogonal_ms1_linear"
    odd = {**state, f"{name}.A": torch.ones(3, 5), f"{name}._B": torch.ones(8, 8)}
    lines: list[str] = []
    with pytest.raises(BmlaError, match=r"1 of another shape"):
        convert(save({"state_dict": odd}, tmp_path / "a.pt"), "avbert", tmp_path / "out", lines.append)
    assert any(f"{name}.A" in line and "(3, 5)" in line for line in lines)


def normed(state: State, x: torch.Tensor, name: str) -> torch.Tensor:
    mean, variance, gain, shift = (
        state[f"{name}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
    )
    return batch_norm(x, mean, variance, gain, shift)


def test_the_pictures_network_is_the_written_out_one(model: AvBert, state: State) -> None:
    views = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(1))

    def conv(x: torch.Tensor, name: str, stride: Any = 1, padding: Any = 0) -> torch.Tensor:
        return conv3d(x, state[f"{name}.weight"].double(), stride=stride, padding=padding)

    stem = "visual_conv.s1.pathway0_stem"
    x = normed(state, conv(views.double(), f"{stem}.conv", 2, (2, 3, 3)), f"{stem}.bn").relu()
    x = max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, count, kernel in ((2, 3, 1), (3, 4, 1), (4, 6, 3), (5, 3, 3)):
        for block in range(count):
            name, stride = f"visual_conv.s{stage}.pathway0_res{block}", (1, 2, 2) if stage > 2 and block == 0 else 1
            inner = normed(state, conv(x, f"{name}.branch2.a", 1, (kernel // 2, 0, 0)), f"{name}.branch2.a_bn").relu()
            inner = normed(state, conv(inner, f"{name}.branch2.b", stride, (0, 1, 1)), f"{name}.branch2.b_bn").relu()
            inner = normed(state, conv(inner, f"{name}.branch2.c"), f"{name}.branch2.c_bn")
            if block == 0:
                x = normed(state, conv(x, f"{name}.branch1", stride), f"{name}.branch1_bn")
            x = (x + inner).relu()
    x = avg_pool3d(x, (4, 2, 2), stride=1).flatten(1)  # the code's pooling, over all that the last stage gives
    x = linear(x, state["visual_fc.weight"].double(), state["visual_fc.bias"].double())
    x = layer_norm(x, (WIDTH,), state["visual_norm.weight"].double(), state["visual_norm.bias"].double(), 1e-12)
    torch.testing.assert_close(model.seen(views).double(), x, rtol=1e-3, atol=1e-4)


def test_the_sounds_network_is_the_written_out_one(model: AvBert, state: State) -> None:
    views = torch.randn(2, 1, 32, 48, generator=torch.Generator().manual_seed(2))

    def conv(x: torch.Tensor, name: str, stride: Any = 1, padding: Any = 0) -> torch.Tensor:
        return conv2d(x, state[f"{name}.weight"].double(), stride=stride, padding=padding)

    stem = "audio_conv.s1.stem"
    x = normed(state, conv(views.double(), f"{stem}.conv1", padding=(4, 0)), f"{stem}.bn1").relu()
    x = normed(state, conv(x, f"{stem}.conv2", padding=(0, 4)), f"{stem}.bn2").relu()
    for stage, count in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(count):
            name, s = f"audio_conv.s{stage}.res{block}", 1 if block else 2
            inner = normed(state, conv(x, f"{name}.branch2.a"), f"{name}.branch2.a_bn").relu()
            if stage < 4:
                inner = normed(state, conv(inner, f"{name}.branch2.b1", (s, 1), (1, 0)), f"{name}.branch2.b1_bn").relu()
                inner = normed(state, conv(inner, f"{name}.branch2.b2", (1, s), (0, 1)), f"{name}.branch2.b2_bn").relu()
            else:
                inner = normed(state, conv(inner, f"{name}.branch2.b", s, 1), f"{name}.branch2.b_bn").relu()
            inner = normed(state, conv(inner, f"{name}.branch2.c"), f"{name}.branch2.c_bn")
            if block == 0:
                x = normed(state, conv(x, f"{name}.branch1", s), f"{name}.branch1_bn")
            x = (x + inner).relu()
    x = avg_pool2d(x, (2, 3), stride=1).flatten(1)
    x = linear(x, state["audio_fc.weight"].double(), state["audio_fc.bias"].double())
    x = layer_norm(x, (WIDTH,), state["audio_norm.weight"].double(), state["audio_norm.bias"].double(), 1e-12)
    torch.testing.assert_close(model.heard(views).double(), x, rtol=1e-3, atol=1e-4)


class WrittenOut:
    """The Transformer in numpy, one head and one sum at a time."""

    def __init__(self, state: State):
        self.state = {key: value.double().numpy() for key, value in state.items()}

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def factored(self, x: np.ndarray, name: str, modality: int) -> np.ndarray:
        down = x @ self.state[f"{name}.ms{modality}_linear.weight"].T
        down = down / np.linalg.norm(down, axis=-1, keepdims=True)
        upper = np.triu(self.state[f"{name}.orthogonal_ms{modality}_linear.A"], 1)
        turn = self.state[f"{name}.orthogonal_ms{modality}_linear.base"] @ expm(upper - upper.T)
        return down @ turn @ self.state[f"{name}.s_linear.weight"].T + self.state[f"{name}.s_linear.bias"]

    def layer(self, x: np.ndarray, modality: int) -> np.ndarray:
        q, k, v = (self.factored(x, f"{LAYER}.attention.factor_{p}", modality) for p in ("query", "key", "value"))
        mixed, size = np.zeros_like(x), WIDTH // HEADS
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            scores = np.exp(q[:, own] @ k[:, own].T / np.sqrt(size))
            mixed[:, own] = scores / scores.sum(-1, keepdims=True) @ v[:, own]
        x = self.norm(
            x + self.factored(mixed, f"{LAYER}.attention.factor_dense", modality), f"{LAYER}.attention.LayerNorm"
        )
        inner = torch.tensor(self.factored(x, f"{LAYER}.factor_ffn", modality))
        inner = torch.nn.functional.gelu(inner).numpy()
        return self.norm(
            x + self.factored(inner, f"{LAYER}.factor_ffn_output", modality), f"{LAYER}.full_layer_layer_norm"
        )

    def hidden(self, x: np.ndarray, modality: int) -> list[np.ndarray]:
        states = [x]
        for _ in range(LAYERS):
            states.append(self.layer(states[-1], modality))
        return states

    def single(self, tokens: np.ndarray, modality: int, name: str) -> list[np.ndarray]:
        x = np.concatenate([self.state["summary_encoding.bos_embeddings.weight"][[modality]], tokens])
        x = x + self.state[f"{name}.position_embeddings.weight"][: len(x)]
        return self.hidden(self.norm(x, f"{name}.LayerNorm"), modality)

    def multi(self, visual: np.ndarray, audio: np.ndarray) -> list[np.ndarray]:
        name = "multi_embeddings"
        kinds, places = (self.state[f"{name}.{p}.weight"] for p in ("token_type_embeddings", "position_embeddings"))
        x = np.concatenate([visual + places[: len(visual)] + kinds[0], audio + places[: len(audio)] + kinds[1]])
        return self.hidden(self.norm(x, f"{name}.LayerNorm"), MULTI)


def test_the_transformer_is_the_written_out_one(model: AvBert, state: State) -> None:
    generator, exact = torch.Generator().manual_seed(4), WrittenOut(state)
    tokens = [torch.randn(2, 3, WIDTH, generator=generator) for _ in range(2)]
    seen, heard = model.single(tokens[0], VISUAL), model.single(tokens[1], AUDIO)
    both = model.multi(seen[-1], heard[-1])
    for row in range(2):
        visual = exact.single(tokens[0][row].double().numpy(), VISUAL, "single_visual_embeddings")
        audio = exact.single(tokens[1][row].double().numpy(), AUDIO, "single_audio_embeddings")
        for mine, theirs in ((seen, visual), (heard, audio), (both, exact.multi(visual[-1], audio[-1]))):
            assert len(mine) == len(theirs) == LAYERS + 1
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(a[row], b, rtol=1e-3, atol=1e-4)


def test_modalities_share_what_is_shared_and_nothing_else() -> None:
    torch.manual_seed(0)
    layer = FactorLinear(6, 4, 5)
    x = torch.randn(3, 6)
    before = [layer(x, modality) for modality in (VISUAL, AUDIO, MULTI)]
    with torch.no_grad():
        layer.get_submodule("ms1_linear").weight += 1
    after = [layer(x, modality) for modality in (VISUAL, AUDIO, MULTI)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]
    turned = orthogonal(torch.randn(4, 4), torch.eye(4))
    torch.testing.assert_close(turned @ turned.T, torch.eye(4), atol=1e-5, rtol=0)
