"""What is exported answers as the model does: any batch, any number of steps, with masks, without a modality."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bmla.fuse import export as exporting
from bmla.fuse.config import RunConfig
from bmla.fuse.export import FORMATS, NotExported, Plain, compare, onnx_call, torch_call, traced, trial, write
from bmla.fuse.models.base import FusionModel, Input
from bmla.fuse.models.kinds import PIXELS, STACKS, VECTORS
from bmla.fuse.models.table import MODELS, build, entry, takes

SOURCES = {
    VECTORS: {"audio": Input(12, 100.0), "visual": Input(8, 25.0)},
    STACKS: {"audio": Input(24, 100.0, (3, 8)), "visual": Input(16, 25.0, (2, 8))},
    PIXELS: {"audio": Input(144, 25.0, (12, 12), True), "visual": Input(144, 25.0, (12, 12), True)},
}
LAYERS = {"gru_layers": 2}  # of all others one is traced
GRAPHS = [
    pytest.param(name, kind, wishes, marks=[] if kind == entry(name).kinds[0] else pytest.mark.slow)
    for name in MODELS
    for kind in (entry(name).kinds if name.startswith(("stconv", "bgru", "concat", "probe")) else (VECTORS,))
    for wishes in [LAYERS if (name, kind) == ("concat", VECTORS) else {}]
] + [  # what the others do with pictures is in their projection, which is the same in all
    ("balancemla", PIXELS, {}),
    ("transformer", STACKS, {}),
    ("balancemla", VECTORS, {"adf": False, "clw": False}),
    ("probe", STACKS, {"probe_mean": "all"}),
    ("joint", VECTORS, {"head": "cosine"}),
    ("balancemla", VECTORS, {"head": "cosine"}),
    ("balancemla", VECTORS, {"convolution": 3}),
]
FILES = [
    ("balancemla", {}),
    ("balancemla", {"attention": "bilinear", "gate_input": "brff", "mix": "probabilities"}),
    ("transformer", {"norm": "post"}),
    ("concat", {}),
]


@pytest.fixture
def make(tiny: Callable[..., RunConfig]) -> Callable[..., tuple[FusionModel, dict[str, Input]]]:
    """A small model whose every parameter matters, and what it takes."""

    def make(name: str, kind: str, **wishes: object) -> tuple[FusionModel, dict[str, Input]]:
        inputs = {m: SOURCES[kind][m] for m in takes(name)}
        torch.manual_seed(0)
        model = build(tiny(name, **{"gru_layers": 1, **wishes}), inputs, 5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        for modality, source in inputs.items():
            shape = source.layout[2:] or (1,) if source.pixels else source.layout
            middle, spread = (128.0, 60.0) if source.pixels else (0.5, 1.5)
            model.set_statistics(modality, torch.full(shape, middle), torch.full(shape, spread))
        return model.eval(), inputs

    return make


@pytest.mark.parametrize(("name", "kind", "wishes"), GRAPHS)
def test_every_model_is_one_graph_for_any_length(
    make: Callable[..., object], name: str, kind: str, wishes: dict[str, object]
) -> None:
    model, inputs = make(name, kind, **wishes)
    plain = Plain(model, tuple(inputs)).eval()
    program = traced(plain, inputs).module()

    def call(tensors: list[Tensor]) -> list[np.ndarray]:
        with torch.no_grad():
            return [value.numpy() for value in program(*tensors)]

    assert compare(plain, inputs, call) < 1e-5


@pytest.mark.parametrize(("name", "wishes"), FILES)
def test_what_is_written_is_read_by_others_with_the_same_answers(
    make: Callable[..., object], name: str, wishes: dict[str, object], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="ONNX is written by onnxscript: pip install 'bmla[export]'")
    model, inputs = make(name, entry(name).kinds[0], **wishes)
    files = write(model, inputs, tuple(FORMATS), tmp_path / "new", {"bmla": "{}"})
    assert {file.path.name for file in files} == {*FORMATS.values()} == {p.name for p in (tmp_path / "new").iterdir()}
    for kind, file in zip(FORMATS, files, strict=True):
        assert file.inputs == ("audio", "audio_mask", "visual", "visual_mask")
        assert file.outputs[0] == "log_probabilities"
        assert file.difference < 1e-5
        read = {"torch": torch_call, "onnx": onnx_call}[kind](file.path)
        tensors = trial(inputs, 4, (13, 6))
        result = read(tensors)[0]
        np.testing.assert_allclose(np.exp(result).sum(1), 1, atol=1e-5)
        tensors[0][~tensors[1]] = 1e6  # what stands at an invalid step is never used
        np.testing.assert_allclose(read(tensors)[0], result, atol=1e-5)


def test_what_is_missing_or_wrong_is_one_line(
    make: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = make("transformer-ao", VECTORS)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(NotExported, match=r"the format onnx needs onnxscript: pip install 'bmla\[export\]'"):
        write(model, inputs, ("onnx",), tmp_path, {})
    monkeypatch.setattr(exporting, "compare", lambda *words: 1.0)
    with pytest.raises(
        NotExported, match=r"model.pt2: its answers differ from the model's by up to 1, expected 0.0001: not"
    ):
        write(model, inputs, ("torch",), tmp_path, {})
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(NotExported, match="cannot write here"):
        write(model, inputs, ("torch",), tmp_path / "file", {})
