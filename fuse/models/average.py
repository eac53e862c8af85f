"""Two answers, one of each modality, put together without anything learnt: the logit average, and MLA's weighting by certainty.

    logit-average   result = (log p_audio + log p_visual) / 2, normalised
    shared-head     result = sum_m alpha_m logits_m,   alpha_m = exp(-e_m) / sum_k exp(-e_k),   e_m = -p_m^T log p_m

*Source:* the first is the plainest decision fusion there is; its branches are BalanceMLA's at 1:1, and its recipe trains them as
`balancemla-ao` and `balancemla-vo`, each to its own best epoch, and nothing after that. The second is the network of MLA (Zhang et al.,
2024, Sec. 3): one linear head that both modalities' z go through, and weights by the entropy e of each answer. (Their weights are
exp(max e - e_m), normalised: the same numbers.) Entropies are of one clip's classes; the public code summed over the batch.

No gradient comes from the result: each modality learns from its own answer alone. A clip that lacks a modality is answered by the other.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import RunConfig
from .balancemla import branch
from .base import FusionModel, Input, Output, Steps
from .heads import head
from .single import Branch, Tower, tower

ABSENT = -1e9  # a score so low that its softmax is exactly zero


class LogitAverage(FusionModel):
    """See the module."""

    def __init__(self, audio: Branch, visual: Branch):
        super().__init__()
        self.audio, self.visual = audio, visual

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        left, z_audio = self.audio.classify(self.audio.embed(audio), audio.mask)
        right, z_visual = self.visual.classify(self.visual.embed(visual), visual.mask)
        alpha = shares(left.new_zeros(left.shape[0], 2), audio, visual)
        return Output(weighted(alpha, left, right), left, right, alpha[:, :1], z_audio, z_visual)


class SharedHead(FusionModel):
    """See the module."""

    def __init__(self, audio: Tower, visual: Tower, head: nn.Linear):
        super().__init__()
        self.audio, self.visual, self.head = audio, visual, head

    def forward(self, audio: Steps | None, visual: Steps | None) -> Output:
        assert audio is not None  # the table says that this model takes both
        assert visual is not None
        z_audio, z_visual = self.audio(audio), self.visual(visual)
        left, right = self.head(z_audio), self.head(z_visual)
        logs = left.log_softmax(-1), right.log_softmax(-1)
        alpha = shares(torch.stack([-entropy(each) for each in logs], 1).detach(), audio, visual)
        return Output(weighted(alpha, left, right), *logs, alpha[:, :1], z_audio, z_visual)


def entropy(logs: Tensor) -> Tensor:
    """(b, c) log-probabilities -> (b,), in nats."""
    return -(logs.exp() * logs).sum(-1)


def shares(scores: Tensor, audio: Steps, visual: Steps) -> Tensor:
    """(b, 2) scores -> their softmax over the modalities that each clip has."""
    present = torch.stack([audio.present, visual.present], 1)
    return scores.masked_fill(~present, ABSENT).softmax(1)


def weighted(alpha: Tensor, audio: Tensor, visual: Tensor) -> Tensor:
    """The normalised sum of two answers, (b, c) log-probabilities without a gradient."""
    return F.log_softmax(alpha[:, :1] * audio.detach() + alpha[:, 1:] * visual.detach(), -1)


def build(config: RunConfig, inputs: Mapping[str, Input], classes: int) -> FusionModel:
    """See `table.build`."""
    if config.model == "shared-head":
        return SharedHead(tower(config, inputs["audio"]), tower(config, inputs["visual"]), head(config, classes))
    audio, visual = (branch(config, inputs[m], config.width, classes) for m in ("audio", "visual"))
    return LogitAverage(audio, visual)
