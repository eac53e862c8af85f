"""OPM: the modality that is ahead is hidden in some clips, the more the further it is ahead.

    rho_m as in OGM, of the step before;   q_m = q (1 + slope tanh(rho_m - 1)) where rho_m > 1, else 0, at most 1

In a share of the batches, each clip with both modalities loses modality m with probability q_m.

*Source:* Wei et al. (2024), "On-the-fly Modulation for Balanced Multimodal Learning", IEEE TPAMI; q .5, slope .5 and the share .7
are the public code's. There, features are zeroed and the rest is scaled up; here a hidden modality is a mask, which every model
knows how to do without.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import RunConfig
from ..models.base import FusionModel, Steps
from .base import Balance, Step, discrepancy, hide, true_class_scores


class OPM(Balance):
    """Buffers: rho, (2,) of the last step that could tell; hidden (2,), clips: of this epoch."""

    rho: Tensor
    hidden: Tensor
    clips: Tensor

    def __init__(self, config: RunConfig):
        super().__init__(config)
        self.base, self.slope, self.share = config.opm_base, config.opm_slope, config.opm_share
        self.register_buffer("rho", torch.ones(2))
        self.register_buffer("hidden", torch.zeros(2))
        self.register_buffer("clips", torch.zeros(()))

    def inputs(self, audio: Steps | None, visual: Steps | None) -> tuple[Steps | None, Steps | None]:
        audio, visual = super().inputs(audio, visual)
        assert audio is not None  # models of one modality are not balanced
        assert visual is not None
        q = chances(self.rho, self.base, self.slope)
        place = self.rho.device
        now, draw = torch.rand((), device=place) < self.share, torch.rand(len(audio.mask), device=place)
        both = audio.present & visual.present
        dropped = [both & now & (draw < chance) for chance in q]  # one of the two chances is zero
        self.hidden += torch.stack([d.sum() for d in dropped])
        self.clips += both.sum()
        return hide(audio, dropped[0]), hide(visual, dropped[1])

    @torch.no_grad()
    def backward(self, step: Step) -> Tensor:
        with torch.enable_grad():
            loss = super().backward(step)
        rho = discrepancy(true_class_scores(step, step.unimodal()))
        self.rho.copy_(torch.where(step.both.any(), rho, self.rho))
        return loss

    def figures(self) -> dict[str, float]:
        """The share of the clips with both modalities in which each was hidden."""
        audio, visual = (self.hidden / self.clips.clamp(min=1)).tolist()
        self.hidden.zero_()
        self.clips.zero_()
        return {"hidden_audio": audio, "hidden_visual": visual}


def chances(rho: Tensor, base: float, slope: float) -> Tensor:
    """q of each modality, (2,)."""
    return torch.where(rho > 1, base * (1 + slope * torch.tanh(rho - 1)), torch.zeros_like(rho)).clamp(max=1)


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return OPM(config)
