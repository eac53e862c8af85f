"""BalanceMLA: two single-modality branches, joined by residual features (BRFF) and by decision weights (ADF, CLW).

    f_m = positions + project(x_m)  ->  f_fuse-m = BRFF(f_m, f_other)  ->  the branch's own encoder, mean and head
                                                                       ->  result = alpha * audio + (1 - alpha) * visual

*Source:* Sec. 3.2, Fig. 2. "The fused representation retains the same shape as its original representation […] and can be input
into the original single-modality model": so the BRFF sits between a branch's projection and its encoder.
Pictures and spectra with derivatives go through the front end of `front.py` before that projection (ours: the paper's features are cached).
Also ours: a convolution in each layer of the encoders (`convolution.py`), and answers by cosines (`heads.py`); recipe `paper` is without.
The ratio sets the feature lengths d_a : d_v of the two projections, each of which is then mapped to the common width d (ours). Two
linear maps in a row are one of limited rank: at 1:1, where both lengths are d, they can do just what `Linear(l -> d)` can.
"""

from collections.abc import Mapping

import torch
from torch import nn

from ..config import RunConfig
from ..ratio import parse_ratio, widths
from .base import FusionModel, Input, Output, Steps
from .blocks import Project, encoder, glorot, masked_mean
from .brff import BilinearBRFF, CrossBRFF
from .decision import Decision, mix
from .heads import head
from .reliability import Reliability
from .single import Branch, SingleModality
from .table import takes


class BalanceMLA(FusionModel):
    """See the module."""

    def __init__(
        self,
        audio: Branch,
        visual: Branch,
        brff: tuple[nn.Module, nn.Module] | None,
        decision: Decision | Reliability,
        gate_input: str,
        mix_what: str,
    ):
        """Args:
        brff: for the audio branch and for the visual one; None: without.
        """
        super().__init__()
        self.audio, self.visual, self.decision = audio, visual, decision
        self.audio_brff: nn.Module | None = brff[0] if brff else None
        self.visual_brff: nn.Module | None = brff[1] if brff else None
        self.gate_input, self.mix_what = gate_input, mix_what

    def forward(self, audio: Steps | None, visual: Steps | None, brff: bool = True) -> Output:
        """Args: brff: False: every branch sees its own modality alone (to measure what it learnt by itself)."""
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        f_audio, f_visual = self.audio.embed(audio), self.visual.embed(visual)
        fused_audio, fused_visual = f_audio, f_visual
        if brff and self.audio_brff is not None and self.visual_brff is not None:
            fused_audio = self.audio_brff(f_audio, f_visual, visual.mask)
            fused_visual = self.visual_brff(f_visual, f_audio, audio.mask)
        result_audio, z_audio = self.audio.classify(fused_audio, audio.mask)
        result_visual, z_visual = self.visual.classify(fused_visual, visual.mask)
        pooled_audio, pooled_visual = z_audio, z_visual
        if self.gate_input == "brff":
            pooled_audio, pooled_visual = masked_mean(fused_audio, audio.mask), masked_mean(fused_visual, visual.mask)
        present = torch.stack([audio.present, visual.present], 1)
        if isinstance(self.decision, Reliability):
            weights = self.decision(result_audio, result_visual, z_audio, z_visual, present)
            result = mix(weights, result_audio, result_visual, self.mix_what)
            result = torch.where(present.all(1, keepdim=True), self.decision.sharpen(result), result)
        else:
            weights = self.decision(pooled_audio, pooled_visual, present)
            result = mix(weights, result_audio, result_visual, self.mix_what)
        return Output(result, result_audio, result_visual, weights[:, 0], z_audio, z_visual)


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    lengths = widths(parse_ratio(config.ratio), config.width, config.heads, config.ratio_mode)
    branches = {
        m: branch(config, inputs[m], length, classes)
        for m, length in zip(("audio", "visual"), lengths, strict=True)
        if m in takes(config.model)
    }
    if len(branches) == 1:
        ((modality, only),) = branches.items()
        return SingleModality(modality, only)
    brff = (residual(config), residual(config)) if config.brff else None
    kind = Reliability if config.gate_input == "reliability" else Decision
    decision = kind(config.width, classes, config.adf, config.clw)
    return BalanceMLA(branches["audio"], branches["visual"], brff, decision, config.gate_input, config.mix)


def branch(config: RunConfig, source: Input, length: int, classes: int) -> Branch:
    """One modality's half, with a feature length of its own before the common width."""
    widen = glorot(nn.Linear(length, config.width))
    return Branch(
        Project(source, length, config), widen, encoder(config, config.width), head(config, classes), config.dropout
    )


def residual(config: RunConfig) -> nn.Module:
    """The BRFF of one direction."""
    if config.attention == "bilinear":
        return BilinearBRFF(config.width)
    return CrossBRFF(config.width, config.heads, config.brff_layers, config.dropout)
