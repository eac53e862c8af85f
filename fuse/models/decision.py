"""Decision fusion: how much of the result each branch decides, for a sample (ADF) and for each of its classes (CLW).

*Source:* Sec. 3.2:  alpha = softmax(W [M(f_fuse-a); M(f_fuse-v)] + bias),  result = alpha * result_audio + (1 - alpha) * result_video.
The paper's alpha has no stated size. Here the softmax is over the two *modalities* (over classes, the mean alpha would be 1 / C and
sound would vanish): two numbers a sample for ADF, 2 C for CLW. Also ours: W and bias begin at zero, so that training begins at
the plain mean of both branches; and what each part is alone, since Table 3 takes them away one by one:

    ADF  CLW   logits of alpha
    no   no    0: alpha = 1/2
    yes  no    W x + b, (2,): one alpha a sample
    no   yes   b, (2, C): one alpha a class, the same for every sample
    yes  yes   W x + b, (2, C): one alpha a sample and class
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ABSENT = -1e9  # finite, so that gradients stay finite; its softmax is exactly zero


class Decision(nn.Module):
    """Weights of the two branches.

    Args of init:
        width: of each of the two pooled features.
        adf: the weights depend on the sample.
        clw: each class has its own weights.
    """

    def __init__(self, width: int, classes: int, adf: bool, clw: bool):
        super().__init__()
        self.columns = classes if clw else 1
        self.weight = nn.Parameter(torch.zeros(2 * self.columns, 2 * width)) if adf else None
        self.bias = nn.Parameter(torch.zeros(2 * self.columns)) if adf or clw else None

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Tensor:
        """Weights that sum to one over the modalities; a missing one has none.

        Args:
            audio, visual: (b, d), means over time.
            present: (b, 2) bool; a clip has at least one modality.

        Returns:
            (b, 2, c) with CLW, (b, 2, 1) without; audio first.
        """
        b = audio.shape[0]
        logits = audio.new_zeros(b, 2 * self.columns) if self.bias is None else self.bias.expand(b, -1)
        if self.weight is not None:
            logits = F.linear(torch.cat([audio, visual], 1), self.weight, self.bias)
        logits = logits.view(b, 2, self.columns)
        return logits.masked_fill(~present[..., None], ABSENT).softmax(1)


def mix(weights: Tensor, audio: Tensor, visual: Tensor, what: str) -> Tensor:
    """The fused log-probabilities.

    Args:
        weights: (b, 2, c) or (b, 2, 1).
        audio, visual: (b, c) log-probabilities.
        what: "log-probabilities" or "probabilities": of which of them the weighted sum is taken, before it is normalised.
    """
    if what == "log-probabilities":
        mixed = weights[:, 0] * audio + weights[:, 1] * visual
    else:
        logs = weights.clamp(min=torch.finfo(weights.dtype).tiny).log().masked_fill(weights == 0, ABSENT)
        mixed = torch.logaddexp(logs[:, 0] + audio, logs[:, 1] + visual)
    return F.log_softmax(mixed, -1)
