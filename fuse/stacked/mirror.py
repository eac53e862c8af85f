"""One model that computes what E models of the same architecture would, built from them layer by layer.

A layer with numbers of its own gets a stacked twin (`layers.py`). A module that is made of such layers, and treats every clip for
itself, is taken as it is, over the twins of its parts: clips of several runs in one batch do not disturb it. Both are listed here by
type. A model claims to stack if every module in it is known; GRUs, convolutions over pictures and probes do not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...store.errors import BmlaError
from ..models.align import lengthen, pooled_length
from ..models.average import LogitAverage, SharedHead
from ..models.balancemla import BalanceMLA
from ..models.base import MODALITIES, FusionModel, Standardise, Steps
from ..models.blocks import Attention, Encoder, EncoderLayer, Project
from ..models.brff import BilinearBRFF, CrossBlock, CrossBRFF
from ..models.convolution import ConvolutionModule, Depthwise
from ..models.decision import Decision
from ..models.film import FiLM
from ..models.gated import Gated
from ..models.heads import Cosine
from ..models.joint import CosineHead, Joint, LinearHead
from ..models.reliability import Reliability
from ..models.single import Branch, SingleModality, Tower
from ..models.transformer import ConcatTransformer
from .layers import (
    Slot,
    StackedCosine,
    StackedDecision,
    StackedDepthwise,
    StackedDropout,
    StackedLinear,
    StackedLinearHead,
    StackedNorm,
    StackedReliability,
    StackedStandardise,
)
from .layout import Layout

LAYERS: dict[type, Callable[[Any, Layout], nn.Module]] = {
    nn.Linear: StackedLinear,
    Cosine: StackedCosine,
    nn.LayerNorm: StackedNorm,
    Depthwise: StackedDepthwise,
    Standardise: StackedStandardise,
    LinearHead: StackedLinearHead,
    Decision: StackedDecision,
    Reliability: StackedReliability,
}
# Made of known layers, with no numbers of their own, and no clip's output depends on another clip of the batch.
FOLDED: set[type] = {
    *(nn.ModuleList, nn.Identity, Attention, ConvolutionModule, EncoderLayer, Encoder),
    *(Project, Tower, Branch, SingleModality),
    *(ConcatTransformer, CrossBlock, CrossBRFF, BilinearBRFF, BalanceMLA),
    *(Joint, CosineHead, LogitAverage, SharedHead, Gated, FiLM),
}


class DoesNotStack(BmlaError):
    """A model has a part that only works for one run."""


class StackedConcat(ConcatTransformer):
    """Runs of different ratios: unit k of the joint features reads sound if k < d_a, else sight.

    Attributes:
        reads_audio: (E, 1, 1, d) bool.
    """

    reads_audio: Tensor
    layout: Layout

    def join(self, audio: Steps, visual: Steps) -> tuple[Tensor, Tensor]:
        parts = self.project(self.audio, audio), self.project(self.visual, visual)
        t = max(part.mask.shape[1] for part in parts)
        left, right = (lengthen(part, t) for part in parts)
        ours, theirs = (self.layout.unfold(present_of(p)) for p in (left, right))
        return torch.where(self.reads_audio, ours, theirs).flatten(0, 1), left.mask | right.mask


def present_of(steps: Steps) -> Tensor:
    """The values, zero at invalid steps."""
    return steps.values.masked_fill(~steps.mask[..., None], 0.0)


def mirror(models: Sequence[FusionModel], layout: Layout) -> FusionModel:
    """See the module. The slots of its layers are empty until `rows.Rows` fills them.

    Raises:
        DoesNotStack: naming a part that is not known.
    """
    joined = [m for m in models if isinstance(m, ConcatTransformer)]
    if len({m.audio.linear.out_features for m in joined}) > 1:
        return mirrored_ratios(joined, layout)
    whole: FusionModel = mirrored(models, layout, "shared")
    return whole


def mirrored_ratios(models: Sequence[ConcatTransformer], layout: Layout) -> StackedConcat:
    lengths = [m.audio.linear.out_features for m in models]
    width = models[0].head.in_features
    projects = {}
    for modality, starts in (("audio", [0] * len(models)), ("visual", lengths)):
        parts: list[Project] = [getattr(m, modality) for m in models]
        linear = StackedLinear([p.linear for p in parts], layout, starts)
        for slot in linear.slots:
            slot.widened((width, *slot.shape[1:]))
        standardise = StackedStandardise([p.standardise for p in parts], layout)
        projects[modality] = twin(parts[0], Project, {"standardise": standardise, "linear": linear})
    rest = {
        name: mirrored([m.get_submodule(name) for m in models], layout, "shared")
        for name, _ in models[0].named_children()
        if name not in projects
    }
    whole: StackedConcat = twin(models[0], StackedConcat, projects | rest)
    whole.layout = layout
    place = models[0].head.weight.device
    units = torch.arange(width, device=place)
    whole.reads_audio = (units < torch.tensor(lengths, device=place)[:, None])[:, None, None]
    return whole


def mirrored(parts: Sequence[nn.Module], layout: Layout, owner: str) -> Any:
    """Args: owner: whose steps the part works on; its children may say otherwise by their names, as in `parameter_groups`."""
    kind = type(parts[0])
    if kind is nn.Dropout:
        return StackedDropout(parts, layout, owner)  # type: ignore[arg-type]
    if kind in LAYERS:
        return LAYERS[kind](parts, layout)
    if kind not in FOLDED:
        raise DoesNotStack(f"{kind.__name__} works for one run at a time")
    children = {}
    for name, _ in parts[0].named_children():
        named = name.split("_")[0]
        whose = named if owner == "shared" and named in MODALITIES else owner
        children[name] = mirrored([p.get_submodule(name) for p in parts], layout, whose)
    return twin(parts[0], kind, children)


def twin(module: nn.Module, kind: type[nn.Module], children: Mapping[str, nn.Module]) -> Any:
    """The same module over other parts."""
    assert not module._parameters
    assert not module._buffers
    other = kind.__new__(kind)
    other.__dict__.update(module.__dict__)
    other.__dict__["_modules"] = dict(children)
    return other


def unknown_parts(model: nn.Module) -> list[str]:
    """The types of a model's modules that do not stack, each once; [] if all do."""
    return list(dict.fromkeys(type(part).__name__ for part in top_parts(model)))


def top_parts(module: nn.Module) -> list[nn.Module]:
    kind = type(module)
    if kind is nn.Dropout or kind in LAYERS:
        return []
    if kind in FOLDED:
        return [unknown for child in module.children() for unknown in top_parts(child)]
    return [module]


def slots_of(model: FusionModel) -> dict[str, list[Slot]]:
    """By owner, as `parameter_groups` has it."""
    owned: dict[str, list[Slot]] = {"audio": [], "visual": [], "shared": []}
    for name, part in model.named_modules():
        owner = name.split(".")[0].split("_")[0]
        owned[owner if owner in owned else "shared"] += getattr(part, "slots", [])
    return {owner: slots for owner, slots in owned.items() if slots}


def steps_of(model: FusionModel, sizes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """`Layout.steps` of a batch.

    Args:
        sizes: t_e of each run, by modality.
    """
    if not isinstance(model, ConcatTransformer):
        return dict(sizes)
    pooled = [
        [pooled_length(t, project.rate_hz, model.rate_hz) for t in sizes[m]]
        for m, project in (("audio", model.audio), ("visual", model.visual))
    ]
    return {**sizes, "shared": [max(pair) for pair in zip(*pooled, strict=True)]}
