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
