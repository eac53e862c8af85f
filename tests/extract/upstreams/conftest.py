"""Checkpoints as they are published: keys and shapes from the public code, seeded numbers, settings in objects of other packages."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def batch_norm(name: str, width: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (width,) for part in parts}, f"{name}.num_batches_tracked": ()}


def linear(name: str, length: int, width: int) -> Shapes:
    return {f"{name}.weight": (width, length), f"{name}.bias": (width,)}


def avhubert_shapes(
    layers: int, width: int, inner: int, conv_pos: int, groups: int, trunk: tuple[int, ...], classes: int = 2000
) -> Shapes:
    """A pretraining checkpoint of avhubert/hubert.py, avhubert/resnet.py and fairseq's TransformerEncoder."""
    shapes: Shapes = {"mask_emb": (104,), "label_embs_concat": (classes, 256)}
    shapes |= linear("feature_extractor_audio.proj", 104, width)
    resnet = "feature_extractor_video.resnet"
    shapes[f"{resnet}.frontend3D.0.weight"] = (trunk[0], 1, 5, 7, 7)
    shapes |= batch_norm(f"{resnet}.frontend3D.1", trunk[0])
    shapes[f"{resnet}.frontend3D.2.weight"] = (trunk[0],)
    before = trunk[0]
    for stage, channels in enumerate(trunk, 1):
        for block in range(2):
            name = f"{resnet}.trunk.layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (channels, before, 3, 3)
            shapes[f"{name}.conv2.weight"] = (channels, channels, 3, 3)
            for number in (1, 2):
                shapes |= batch_norm(f"{name}.bn{number}", channels)
                shapes[f"{name}.relu{number}.weight"] = (channels,)
            if before != channels or (block == 0 and stage > 1):  # wider, or at half the resolution
                shapes[f"{name}.downsample.0.weight"] = (channels, before, 1, 1)
                shapes |= batch_norm(f"{name}.downsample.1", channels)
            before = channels
    shapes |= linear("feature_extractor_video.proj", before, width)
    shapes |= norm("layer_norm", 2 * width)
    shapes |= linear("post_extract_proj", 2 * width, width)
    shapes["encoder.pos_conv.0.weight_g"] = (1, 1, conv_pos)
    shapes["encoder.pos_conv.0.weight_v"] = (width, width // groups, conv_pos)
    shapes["encoder.pos_conv.0.bias"] = (width,)
    for number in range(layers):
        name = f"encoder.layers.{number}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= linear(f"{name}.self_attn.{part}", width, width)
        shapes |= norm(f"{name}.self_attn_layer_norm", width) | norm(f"{name}.final_layer_norm", width)
        shapes |= linear(f"{name}.fc1", width, inner) | linear(f"{name}.fc2", inner, width)
    return shapes | norm("encoder.layer_norm", width) | linear("final_proj", width, 256)


def avbert_shapes(
    width: int, inner: int, rank: int, positions: int, visual: int, audio: int, blocks: tuple[int, ...] = (3, 4, 6, 3)
) -> Shapes:
    """A checkpoint of avbert/models (AV-SUPERB's upstream_models/avbert): the shared Transformer stands there four times."""
    shapes: Shapes = {"visual_conv.s1.pathway0_stem.conv.weight": (visual, 3, 5, 7, 7)}
    shapes |= batch_norm("visual_conv.s1.pathway0_stem.bn", visual)
    before, temporal = visual, (1, 1, 3, 3)
    for stage, (count, kernel) in enumerate(zip(blocks, temporal, strict=True)):
        narrow = visual * 2**stage
        for block in range(count):
            name = f"visual_conv.s{stage + 2}.pathway0_res{block}"
            if block == 0:
                shapes[f"{name}.branch1.weight"] = (4 * narrow, before, 1, 1, 1)
                shapes |= batch_norm(f"{name}.branch1_bn", 4 * narrow)
            shapes[f"{name}.branch2.a.weight"] = (narrow, before, kernel, 1, 1)
            shapes[f"{name}.branch2.b.weight"] = (narrow, narrow, 1, 3, 3)
            shapes[f"{name}.branch2.c.weight"] = (4 * narrow, narrow, 1, 1, 1)
            for part, channels in (("a", narrow), ("b", narrow), ("c", 4 * narrow)):
                shapes |= batch_norm(f"{name}.branch2.{part}_bn", channels)
            before = 4 * narrow
    shapes |= linear("visual_fc", before, width) | norm("visual_norm", width)
    shapes["audio_conv.s1.stem.conv1.weight"] = (audio, 1, 9, 1)
    shapes["audio_conv.s1.stem.conv2.weight"] = (audio, audio, 1, 9)
    shapes |= batch_norm("audio_conv.s1.stem.bn1", audio) | batch_norm("audio_conv.s1.stem.bn2", audio)
    before = audio
    for stage, count in enumerate(blocks):
        narrow = audio * 2**stage
        for block in range(count):
            name = f"audio_conv.s{stage + 2}.res{block}"
            if block == 0:
                shapes[f"{name}.branch1.weight"] = (4 * narrow, before, 1, 1)
                shapes |= batch_norm(f"{name}.branch1_bn", 4 * narrow)
            kernels = {"b1": (3, 1), "b2": (1, 3)} if stage < 2 else {"b": (3, 3)}
            shapes[f"{name}.branch2.a.weight"] = (narrow, before, 1, 1)
            shapes |= {f"{name}.branch2.{part}.weight": (narrow, narrow, *size) for part, size in kernels.items()}
            shapes[f"{name}.branch2.c.weight"] = (4 * narrow, narrow, 1, 1)
            for part in ("a", *kernels):
                shapes |= batch_norm(f"{name}.branch2.{part}_bn", narrow)
            shapes |= batch_norm(f"{name}.branch2.c_bn", 4 * narrow)
            before = 4 * narrow
    shapes |= linear("audio_fc", before, width) | norm("audio_norm", width)
    shapes["summary_encoding.bos_embeddings.weight"] = (2, width)
    for name in ("single_visual_embeddings", "single_audio_embeddings", "multi_embeddings"):
        shapes[f"{name}.position_embeddings.weight"] = (positions, width)
        shapes |= norm(f"{name}.LayerNorm", width)
    shapes["multi_embeddings.token_type_embeddings.weight"] = (2, width)
    for copy in ("transformer", "single_visual_transformer", "single_audio_transformer", "multi_transformer"):
        layer = f"{copy}.encoder.albert_layer_groups.0.albert_layers.0"
        shapes |= norm(f"{layer}.full_layer_layer_norm", width) | norm(f"{layer}.attention.LayerNorm", width)
        parts = {f"attention.factor_{part}": (width, width) for part in ("query", "key", "value", "dense")}
        for part, (length, out) in {**parts, "factor_ffn": (width, inner), "factor_ffn_output": (inner, width)}.items():
            for group in range(3):
                shapes[f"{layer}.{part}.ms{group}_linear.weight"] = (rank, length)
                shapes[f"{layer}.{part}.orthogonal_ms{group}_linear.A"] = (rank, rank)
                shapes[f"{layer}.{part}.orthogonal_ms{group}_linear.base"] = (rank, rank)
            shapes |= linear(f"{layer}.{part}.s_linear", rank, out)
    return shapes | linear("head.projection", 2 * width, 32)


def mavil_shapes(layers: int, layers_av: int, width: int, patch: int, heard: int, seen: int) -> Shapes:
    """The checkpoint mavil_as_pt_ft_a+v.pth, by upstream_models/mavil/models_vitmm.py and timm's blocks."""
    shapes: Shapes = {"cls_token": (1, 1, width), "cls_token_v": (1, 1, width)}
    shapes |= {"pos_embed": (1, heard + 1, width), "pos_embed_v": (1, seen + 1, width)}
    shapes |= {"patch_embed.proj.weight": (width, 1, patch, patch), "patch_embed.proj.bias": (width,)}
    shapes |= {"patch_embed_v.proj.weight": (width, 3, 2, patch, patch), "patch_embed_v.proj.bias": (width,)}
    for blocks, count in (("blocks", layers), ("blocks_v", layers), ("blocks_av", layers_av)):
        for number in range(count):
            name = f"{blocks}.{number}"
            shapes |= norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
            shapes |= linear(f"{name}.attn.qkv", width, 3 * width) | linear(f"{name}.attn.proj", width, width)
            shapes |= linear(f"{name}.mlp.fc1", width, 4 * width) | linear(f"{name}.mlp.fc2", 4 * width, width)
    return shapes | norm("fc_norm_av", 2 * width) | linear("head_av", 2 * width, 527)


def seeded(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Numbers of a size at which no layer blows up; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            values = torch.tensor(7)
        elif name.endswith(("running_var", "weight_g")):
            values = values.abs() + 0.5
        elif len(shape) > 1:
            values = values / max(1, values[0].numel()) ** 0.5
        else:
            values = values * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        tensors[name] = values
    return tensors


@pytest.fixture(scope="session")
def shapes_of_avhubert() -> Callable[..., Shapes]:
    return avhubert_shapes


@pytest.fixture(scope="session")
def shapes_of_avbert() -> Callable[..., Shapes]:
    return avbert_shapes


@pytest.fixture(scope="session")
def shapes_of_mavil() -> Callable[..., Shapes]:
    return mavil_shapes


@pytest.fixture(scope="session")
def seeded_tensors() -> Callable[..., dict[str, torch.Tensor]]:
    return seeded


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], type]]:
    """foreign(module, name) makes a class that pickles by this name; when the test ends, there is no such module.

    While a checkpoint is read it must be gone as well: `foreign.forget()`.
    """
    made: list[str] = []

    def make(module: str, name: str) -> type:
        words = module.split(".")
        for package in (".".join(words[:count]) for count in range(1, len(words) + 1)):
            if package not in sys.modules:
                sys.modules[package] = ModuleType(package)
                made.append(package)
        kind = type(name, (), {"__module__": module})
        setattr(sys.modules[module], name, kind)
        return kind

    def forget() -> None:
        for module in made:
            sys.modules.pop(module, None)

    make.forget = forget  # type: ignore[attr-defined]
    yield make
    forget()


@pytest.fixture
def omega(foreign: Any) -> Callable[[Any], Any]:
    """Plain values as omegaconf pickles them: nodes with their content and a way back to their parent."""
    config, node = foreign("omegaconf.dictconfig", "DictConfig"), foreign("omegaconf.nodes", "AnyNode")

    def wrap(value: Any, parent: Any = None) -> Any:
        if isinstance(value, dict):
            made = config()
            content = {key: wrap(inner, made) for key, inner in value.items()}
            made.__dict__.update(_metadata=node(), _parent=parent, _content=content)
            return made
        made = node()
        made.__dict__.update(_metadata=None, _parent=parent, _val=value)
        return made

    return wrap


@pytest.fixture
def save(foreign: Any) -> Callable[..., Path]:
    """save(content, path, zipped=True) writes as torch does, and forgets the foreign classes."""

    def write(content: Any, path: Path, zipped: bool = True) -> Path:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        foreign.forget()
        return path

    return write
