"""A trained model as a file that runs without bmla: `torch.export` (.pt2) or ONNX, standardisation inside.

    inputs   for each modality that the model takes: its features (batch, steps, …) float32 or uint8, and its mask (batch, steps) bool
    outputs  log_probabilities (batch, classes); where the model has them audio_log_probabilities, visual_log_probabilities and
             alpha, the share of sound: (batch, 1) or (batch, classes)

Any batch of one or more clips, any number of steps of one or more, each modality its own; a step whose mask is False counts for nothing,
and a clip whose mask is False all along lacks the modality. Every model of the table can be exported. What was written is read again
and compared with the model, on odd lengths, single clips, single steps and missing modalities.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from ..store.errors import BmlaError, UsageError
from .models.base import FusionModel, Input, Steps
from .models.table import takes
from .run import Run, first_line, input_of

FORMATS = {"torch": "model.pt2", "onnx": "model.onnx"}
TOLERANCE = 1e-4  # of log-probabilities, between the model and what was exported
TRIALS = ((1, (1, 1)), (1, (7, 3)), (3, (1, 5)), (2, (31, 8)), (5, (4, 19)))  # clips, and steps of each modality
SEED = 0
INSTALL = "pip install 'bmla[export]'"

Call = Callable[[Sequence[Tensor]], list[np.ndarray]]


class NotExported(BmlaError):
    """The model could not be written, or what was written answers otherwise."""


@dataclass(frozen=True)
class Exported:
    """A written model.

    Attributes:
        path: of the file.
        inputs, outputs: their names, in order.
        difference: the largest between the model's outputs and the file's, over the trials.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    difference: float


class Plain(nn.Module):
    """A fusion model from tensors to tensors.

    Attributes:
        inputs, outputs: names, in order.
    """

    def __init__(self, model: FusionModel, modalities: Sequence[str]):
        super().__init__()
        self.model, self.modalities = model, tuple(modalities)
        self.inputs = tuple(name for m in modalities for name in (m, f"{m}_mask"))
        self.outputs: tuple[str, ...] = ()
        self.requires_grad_(False)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = {m: Steps(tensors[2 * i], tensors[2 * i + 1]) for i, m in enumerate(self.modalities)}
        output = self.model(given.get("audio"), given.get("visual"))
        named = {
            "log_probabilities": output.result,
            "audio_log_probabilities": output.audio,
            "visual_log_probabilities": output.visual,
            "alpha": output.alpha,
        }
        self.outputs = tuple(name for name, value in named.items() if value is not None)
        return tuple(value for value in named.values() if value is not None)


def export(run: Run, kinds: Sequence[str], folder: Path) -> list[Exported]:
    """Writes the model of a run, and proves each file.

    Args:
        kinds: of FORMATS.
        folder: where the files go; made where it is not there.

    Raises:
        UsageError: no such format.
        NotExported: a library is missing, or what was written answers otherwise.
        RunDamaged: the run's weights can't be used.
    """
    if unknown := [kind for kind in kinds if kind not in FORMATS]:
        raise UsageError(f'no format "{unknown[0]}"; known: {", ".join(FORMATS)}')
    streams = run.document["features"]["streams"]
    inputs = {m: input_of(streams[m]) for m in takes(run.config.model)}
    about = {
        "run": run.name,
        "model": run.config.model,
        "classes": list(run.classes),
        "streams": {m: {k: streams[m][k] for k in ("name", "digest", "rate_hz")} for m in inputs},
    }
    return write(run.model(), inputs, kinds, folder, {"bmla": json.dumps(about, ensure_ascii=False)})


def write_beside(folder: Path, texts: Mapping[str, str]) -> None:
    """Text files beside an export. Raises NotExported."""
    try:
        for name, content in texts.items():
            (folder / name).write_text(content, "utf-8")
    except OSError as error:
        raise NotExported(f"{folder}: cannot write here: {error.strerror or error}") from error


def write(
    model: FusionModel, inputs: Mapping[str, Input], kinds: Sequence[str], folder: Path, about: Mapping[str, str]
) -> list[Exported]:
    """As `export`, of a model, whose graph is traced once for all formats. about: texts that each file is to hold."""
    plain = Plain(model, tuple(inputs)).eval()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotExported(f"{folder}: cannot write here: {error.strerror or error}") from error
    with quiet():
        program = traced(plain, inputs)
        return [written(program, plain, inputs, kind, folder / FORMATS[kind], about) for kind in kinds]


def written(
    program: torch.export.ExportedProgram,
    plain: Plain,
    inputs: Mapping[str, Input],
    kind: str,
    path: Path,
    about: Mapping[str, str],
) -> Exported:
    """One format; kept if it answers as the model does."""
    if kind == "torch":
        torch.export.save(program, str(path), extra_files=dict(about))
        call = torch_call(path)
    else:
        write_onnx(program, plain, path, about)
        call = onnx_call(path)
    difference = compare(plain, inputs, call)
    if not difference <= TOLERANCE:
        path.unlink()
        raise NotExported(
            f"{path.name}: its answers differ from the model's by up to {difference:.2g}, expected {TOLERANCE:g}: not kept"
        )
    return Exported(path, plain.inputs, plain.outputs, difference)


def traced(plain: Plain, inputs: Mapping[str, Input]) -> torch.export.ExportedProgram:
    """The graph, for any batch and any number of steps."""
    batch = Dim("batch", min=1)
    shapes: list[dict[int, Dim]] = []
    for modality in inputs:
        shapes += [{0: batch, 1: Dim(f"{modality}_steps", min=1)}] * 2
    try:
        with quiet():
            given = tuple(trial(inputs, 3, (9, 5)))
            return torch.export.export(plain, given, dynamic_shapes=(tuple(shapes),), strict=False)
    except Exception as error:  # torch has many ways to say that it can't
        raise NotExported(f"torch.export can't take this model: {first_line(error)[:300]}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' remarks on torch's own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_onnx(program: torch.export.ExportedProgram, plain: Plain, path: Path, about: Mapping[str, str]) -> None:
    """One file, weights inside."""
    try:
        import onnxscript  # noqa: F401 - torch writes ONNX by it, and says less clearly that it is missing
    except ImportError as error:
        raise NotExported(f"the format onnx needs onnxscript: {INSTALL}") from error
    import onnx

    exported = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=list(plain.inputs), output_names=list(plain.outputs)
    )
    assert exported is not None
    model = exported.model_proto
    name_axes(model.graph, plain.inputs)
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def name_axes(graph: Any, inputs: Sequence[str]) -> None:
    """Batch and steps by names that a person understands, where the exporter has numbered them."""
    names: dict[str, str] = {}
    for given in graph.input:
        modality = given.name.removesuffix("_mask")
        for axis, name in enumerate(("batch", f"{modality}_steps")):
            names[given.type.tensor_type.shape.dim[axis].dim_param] = name
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def torch_call(path: Path) -> Call:
    """What a .pt2 file answers."""
    module = torch.export.load(str(path)).module()

    def call(tensors: Sequence[Tensor]) -> list[np.ndarray]:
        with torch.no_grad():
            return [value.numpy() for value in module(*tensors)]

    return call


def onnx_call(path: Path) -> Call:
    """What an ONNX file answers, by onnxruntime on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NotExported(f"the format onnx is proven by onnxruntime: {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def call(tensors: Sequence[Tensor]) -> list[np.ndarray]:
        return list(session.run(None, {n: t.numpy() for n, t in zip(names, tensors, strict=True)}))

    return call


def compare(plain: Plain, inputs: Mapping[str, Input], call: Call) -> float:
    """The largest difference over the trials, each also without one modality and then the other."""
    worst = 0.0
    for clips, steps in TRIALS:
        whole = trial(inputs, clips, steps)
        trials = [whole]
        if len(inputs) == 2:
            trials += [[t & False if i == hidden else t for i, t in enumerate(whole)] for hidden in (1, 3)]
        for tensors in trials:
            with torch.no_grad():
                expected = plain(*tensors)
            for mine, theirs in zip(expected, call(tensors), strict=True):
                gap = np.abs(mine.numpy() - theirs).max() if mine.shape == theirs.shape else np.inf
                worst = max(worst, float(gap) if np.isfinite(gap) else np.inf)
    return worst


def trial(inputs: Mapping[str, Input], clips: int, steps: Sequence[int]) -> list[Tensor]:
    """Made-up features and masks. Every clip has a valid step of each modality, and most have invalid ones."""
    generator = torch.Generator().manual_seed(SEED)
    tensors: list[Tensor] = []
    for (_, source), t in zip(inputs.items(), steps, strict=False):
        shape = (clips, t, *source.layout)
        if source.pixels:
            tensors.append(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))
        else:
            tensors.append(torch.randn(shape, generator=generator))
        mask = torch.rand(clips, t, generator=generator) > 0.3
        mask[:, t // 2] = True
        tensors.append(mask)
    return tensors
