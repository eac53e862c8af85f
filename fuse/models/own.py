"""A model of one's own in the place of one of the table: any `nn.Module` with this call.

    forward(audio, audio_mask, visual, visual_mask) -> logits, or a dict        of one modality alone: forward(steps, mask)

    audio, visual     (b, t, …) float32, standardised by the training clips' statistics, zero at invalid steps
    …_mask            (b, t) bool: the step is valid; all False for a clip that lacks the modality
    logits            (b, c)
    dict              "logits" and whatever there is of: "audio", "visual" (b, c), logits of each modality alone; "audio_features",
                      "visual_features" (b, d), what these are read from; "alpha" (b, 1) or (b, c), the share of sound

Methods of balance that need one of the latter refuse a model without it; those that change the pace of one modality know its
parameters by their names, which begin with `audio` or `visual`.

A run keeps the name of the class and a digest of its source and parts, never the code: whoever loads it gives the class again.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...store.errors import UsageError
from ..config import RunConfig
from .base import MODALITIES, FusionModel, Input, Output, Standardise, Steps
from .joint import CosineHead

Builder = Callable[[Mapping[str, Input], int], nn.Module]  # called with what a step of each modality is, and C

ANSWERS = ("audio", "visual")
FEATURES = ("audio_features", "visual_features")
KEYS = ("logits", *ANSWERS, *FEATURES, "alpha")
PROBE_STEPS = 16
OF_LIBRARIES = ("torch.", "torchvision.", "bmla.", "builtins")
PLAIN = (bool, int, float, str)


class Own(FusionModel):
    """See the module.

    Args of init:
        inputs: what a step is, of the modalities that it takes.
        scale: of a cosine head on its features, instead of its own logits (balance `mmcosine`); None: without.
    """

    def __init__(self, name: str, own: nn.Module, inputs: Mapping[str, Input], classes: int, scale: float | None):
        super().__init__()
        self.name, self.inputs, self.classes = name, dict(inputs), classes
        self.own = own
        for modality, source in inputs.items():
            self.add_module(f"{modality}_standardise", standardise(source))
        self.cosine: CosineHead | None = None
        first = self.probe()
        if scale is not None:
            if first.pooled_audio is None or first.pooled_visual is None:
                raise UsageError(f"{name}: a head of cosines needs the keys {' and '.join(FEATURES)}")
            widths = first.pooled_audio.shape[1], first.pooled_visual.shape[1]
            self.cosine = CosineHead(widths, classes, scale)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        shown = {m: s for m, s in zip(MODALITIES, (audio, visual), strict=True) if m in self.inputs and s is not None}
        arguments = [part for m, s in shown.items() for part in (self.get_submodule(f"{m}_standardise")(s), s.mask)]
        answer = self.own(*arguments)
        parts = answer if isinstance(answer, Mapping) else {"logits": answer}
        self.check(parts, len(next(iter(shown.values())).mask))
        logits = {key: parts[key] for key in ("logits", *ANSWERS) if key in parts}
        z = {m: parts[f"{m}_features"] * s.present[:, None] for m, s in shown.items() if f"{m}_features" in parts}
        if self.cosine is not None:
            left, right = self.cosine(z["audio"], z["visual"])
            logits = {"logits": left + right, "audio": left, "visual": right}
        logs = {key: torch.log_softmax(value, -1) for key, value in logits.items()}
        return Output(
            logs["logits"], logs.get("audio"), logs.get("visual"), parts.get("alpha"), z.get("audio"), z.get("visual")
        )

    def check(self, parts: Mapping[str, Any], clips: int) -> None:
        """Raises UsageError unless the answer is what the module says."""
        if unknown := [key for key in parts if key not in KEYS]:
            raise UsageError(f'{self.name}: forward gave the key "{unknown[0]}"; known: {", ".join(KEYS)}')
        for key in ("logits", *(k for k in KEYS[1:] if k in parts)):
            value = parts.get(key)
            columns = {"alpha": (1, self.classes)}.get(key, (self.classes,) if key in ("logits", *ANSWERS) else None)
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            kind = f" of {value.dtype}" if isinstance(value, Tensor) and not value.is_floating_point() else ""
            fits = isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 2 and len(value) == clips
            if not fits or (columns and shape[1] not in columns):
                wanted = " or ".join(map(str, columns)) if columns else "d"
                raise UsageError(
                    f"{self.name}: forward gave {key} {shape}{kind}, expected a tensor ({clips}, {wanted}) of floats"
                )
        for pair in (ANSWERS, FEATURES):
            if len(self.inputs) == 2 and len([key for key in pair if key in parts]) == 1:
                raise UsageError(f"{self.name}: forward gave one of {' and '.join(pair)}, expected both or none")

    def probe(self) -> Output:
        """Shows it one clip of mean features. Raises UsageError where it can't answer."""
        steps = {m: clip_of_zeros(self.get_submodule(f"{m}_standardise"), s) for m, s in self.inputs.items()}
        training = self.training
        with torch.no_grad(), torch.random.fork_rng([]):
            try:
                output: Output = self.eval()(steps.get("audio"), steps.get("visual"))
                return output
            except UsageError:
                raise
            except Exception as error:
                shapes = ", ".join(f"{m} {tuple(s.values.shape)}, mask {tuple(s.mask.shape)}" for m, s in steps.items())
                raise UsageError(
                    f"{self.name}: its forward failed on one clip, called with {shapes}: {type(error).__name__}: {error}"
                ) from error
            finally:
                self.train(training)

    def gives(self) -> frozenset[str]:
        """See `balance.table.NEEDS`."""
        output, groups, found = self.probe(), self.parameter_groups(), set()
        if output.audio is not None and output.visual is not None:
            found.add("answers")
        if output.pooled_audio is not None and output.pooled_visual is not None:
            found.add("features")
            widths = {output.pooled_audio.shape[1], output.pooled_visual.shape[1]}
            if isinstance(self.head, nn.Linear) and widths == {self.head.in_features}:
                found.add("head")
        if all(modality in groups for modality in MODALITIES):
            found.add("parts")
        return frozenset(found)

    @property
    def head(self) -> nn.Module | None:
        """What both modalities' features may go through (balance `mla`)."""
        return getattr(self.own, "head", None)

    def set_statistics(self, modality: str, mean: Tensor, std: Tensor) -> None:
        self.standardiser(modality).take(mean, std)

    def mean_of(self, modality: str) -> Tensor:
        return self.standardiser(modality).mean

    def standardiser(self, modality: str) -> Standardise:
        part = self.get_submodule(f"{modality}_standardise")
        assert isinstance(part, Standardise)
        return part

    def group_of(self, name: str) -> str:
        return super().group_of(name.removeprefix("own."))


def standardise(source: Input) -> Standardise:
    """Of each feature; of pictures, of each colour."""
    if source.pixels:
        return Standardise(source.layout[2] if len(source.layout) == 3 else 1)
    return Standardise(*source.layout)


def clip_of_zeros(part: nn.Module, source: Input) -> Steps:
    """One clip, on the device of a part."""
    device = next(part.buffers()).device
    values = torch.zeros(1, PROBE_STEPS, *source.layout, device=device)
    return Steps(values, torch.ones(1, PROBE_STEPS, dtype=torch.bool, device=device))


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int, builder: Builder) -> FusionModel:
    """See `table.build`."""
    scale = config.cosine_scale if config.head == "cosine" else None
    model = Own(config.model, made(builder, inputs, classes), inputs, classes, scale)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"{name_of(builder)} made a module without a parameter to train")
    return model


def made(builder: Builder, inputs: Mapping[str, Input], classes: int) -> nn.Module:
    """A module with fresh weights. Raises UsageError where it is none."""
    try:
        own = builder(inputs, classes)
    except Exception as error:
        raise UsageError(
            f"{name_of(builder)} can't be made, called with the inputs by modality and the number of classes: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(own, nn.Module):
        raise UsageError(f"{name_of(builder)} made {type(own).__name__}, expected an nn.Module")
    return own


def identity(builder: Builder, inputs: Mapping[str, Input], classes: int) -> str:
    """What a run keeps of it: its name and a digest of its source, of that of all classes that it is made of, and of how it is made.

    The last tells apart what the same source makes of other numbers, as a function that reads them from around it. Functions that
    the classes call are not looked at. The name alone where the source can't be read, as of a class that was typed into a prompt.

    Raises:
        UsageError: it can't be made, or is the same module each time, whose weights one run would hand to the next.
    """
    sources = [builder.func if isinstance(builder, partial) else builder]
    with torch.random.fork_rng([]):
        module = made(builder, inputs, classes)
        if made(builder, inputs, classes) is module:
            raise UsageError(
                f"{name_of(builder)} gives one and the same module each time, expected a new one for every run"
            )
    kinds = {base for part in module.modules() for base in type(part).__mro__}
    sources += sorted((k for k in kinds if not f"{k.__module__}.".startswith(OF_LIBRARIES)), key=name_of)
    try:
        texts = [inspect.getsource(source) for source in sources]
    except (OSError, TypeError):
        return name_of(builder)
    if isinstance(builder, partial):
        texts.append(repr((builder.args, sorted(builder.keywords.items()))))
    texts += structure(module)
    return f"{name_of(builder)} {hashlib.sha256(repr(texts).encode()).hexdigest()[:16]}"


def structure(module: nn.Module) -> list[str]:
    """Its parts, the plain values that they hold, and the shapes of all tensors: what it is but for the numbers in its weights."""
    parts = []
    for name, part in module.named_modules():
        plain = sorted(
            (k, v) for k, v in vars(part).items() if is_plain(v) and k != "training" and not k.startswith("_")
        )
        parts.append(f"{name} {name_of(type(part))} {plain}")
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        parts.append(name if is_lazy(value) else f"{name} {tuple(value.shape)} {value.dtype}")
    return parts


def is_plain(value: Any) -> bool:
    """Whether its text says all about it."""
    return value is None or isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(is_plain, value)))


def name_of(builder: Any) -> str:
    """Module and name."""
    made = builder.func if isinstance(builder, partial) else builder
    return f"{made.__module__}.{getattr(made, '__qualname__', type(made).__name__)}"
