"""The probe of AV-SUPERB: how much of a task a frozen network's layers give away to a linear map.

    sum_k softmax(w)_k layer_k -> Linear(256) -> mean over time -> linear head

*Source:* Sec. 4.2, Table 2; Tseng et al. (2024), after SUPERB (Yang et al., 2021): the weights of the layers are learnt, no nonlinearity.
It is for streams that keep several layers, (t, k, l); a stream of one layer has one weight, which is 1. Ours: each feature of each layer is
standardised, so that the weights of layers of different size can be compared; the mean is over valid steps. (A mean over all steps
of a padded batch, as in that benchmark's example, would depend on the other clips; `probe_mean="all"` counts every step up to a
clip's last valid one, the invalid ones as the mean of the training clips.) With two modalities the head reads both means.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config import RunConfig
from .base import FusionModel, Input, Output, Standardise, Steps
from .blocks import masked_mean
from .table import takes


class Layers(nn.Module):
    """One stream's layers to one vector a clip."""

    def __init__(self, source: Input, width: int, mean: str):
        super().__init__()
        self.standardise = Standardise(*source.layout)
        self.weight = nn.Parameter(torch.zeros(source.layout[0])) if len(source.layout) == 2 else None
        self.project = nn.Linear(source.layout[-1], width)
        self.mean = mean

    def forward(self, steps: Steps) -> Tensor:
        """(b, t, k, l) or (b, t, l) -> (b, d), zero for a clip without this modality."""
        x = self.standardise(steps)
        if self.weight is not None:
            x = torch.einsum("k,btkl->btl", self.weight.softmax(0), x)
        mask = steps.mask
        if self.mean == "all":
            mask = mask.flip(1).cumsum(1).flip(1) > 0
        return masked_mean(self.project(x), mask)


class Probe(FusionModel):
    """See the module."""

    def __init__(self, layers: Mapping[str, Layers], width: int, classes: int):
        super().__init__()
        self.modalities = tuple(layers)
        for modality, part in layers.items():
            self.add_module(modality, part)
        self.head = nn.Linear(len(layers) * width, classes)

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        given = {"audio": audio, "visual": visual}
        pooled = {f"pooled_{m}": self.get_submodule(m)(given[m]) for m in self.modalities}
        return Output(torch.log_softmax(self.head(torch.cat(list(pooled.values()), 1)), -1), **pooled)


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    layers = {m: Layers(inputs[m], config.probe_width, config.probe_mean) for m in takes(config.model)}
    return Probe(layers, config.probe_width, classes)
