"""Decision weights from how sure each branch is: one alpha a sample (ADF), shifted for each class (CLW).

    x = [reliability of the audio answer; of the visual answer; M(f_fuse-a); M(f_fuse-v)], standardised
    alpha_c = sigmoid(w x + b_c),   result = log-softmax(e^s (alpha result_audio + (1 - alpha) result_video))

The reliability of an answer is its entropy, its greatest log-probability, and by how much that exceeds the second one. *Source:* the form
is that of Sec. 3.2 (softmax over two modalities of a linear map, one alpha a class); its inputs, s, and how it is fitted are ours:
`fuse/decision_fit.py` fits w, b and s on clips that the branches were not trained on, since on those that they were, both are always
sure. Everything begins at zero: alpha = 1/2, the plain mean of the two branches. Clean clips alone say nothing about noise, and a w fitted
on them fails under it; then w is MLA's certainty (`average.py`), alpha_c = sigmoid(e_visual - e_audio + b_c) of the entropies e, and
only b and s are fitted. `docs/research.md` has the measurements.
"""

import torch
from torch import Tensor, nn

from .decision import ABSENT

RELIABILITIES = 3  # numbers for each answer


class Reliability(nn.Module):
    """Args of init:
    width: of each of the two pooled features.
    adf: the weights depend on the sample.
    clw: each class has its own weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, classes: int, adf: bool, clw: bool):
        super().__init__()
        inputs = 2 * (RELIABILITIES + width)
        self.columns = classes if clw else 1
        self.weight = nn.Parameter(torch.zeros(inputs), requires_grad=False) if adf else None
        self.bias = nn.Parameter(torch.zeros(self.columns), requires_grad=False) if adf or clw else None
        self.sharpness = nn.Parameter(torch.zeros(()), requires_grad=False) if adf or clw else None
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))

    def inputs(self, audio: Tensor, visual: Tensor, pooled_audio: Tensor, pooled_visual: Tensor) -> Tensor:
        """(b, c), (b, c), (b, d), (b, d) -> (b, 2 (3 + d)). The branches learn nothing from how they are weighed."""
        return torch.cat([reliability(audio), reliability(visual), pooled_audio, pooled_visual], 1).detach()

    @torch.no_grad()
    def by_certainty(self) -> None:
        """The weights are those of the answers' entropies, each answer e^-entropy; nothing else counts."""
        assert self.weight is not None
        self.mean.zero_()
        self.std.fill_(1)
        self.weight.zero_()
        self.weight[0], self.weight[RELIABILITIES] = -1, 1

    def logits(self, x: Tensor) -> Tensor:
        """(b, 2 (3 + d)) as `inputs` gives it -> (b, columns): of alpha."""
        logits = x.new_zeros(x.shape[0], self.columns)
        if self.weight is not None:
            logits = logits + (((x - self.mean) / self.std) @ self.weight)[:, None]
        return logits if self.bias is None else logits + self.bias

    def forward(
        self, audio: Tensor, visual: Tensor, pooled_audio: Tensor, pooled_visual: Tensor, present: Tensor
    ) -> Tensor:
        """Weights that sum to one over the modalities, (b, 2, columns), audio first; a missing one has none.

        Args:
            audio, visual: (b, c) log-probabilities of the branches.
            pooled_audio, pooled_visual: (b, d), means over time.
            present: (b, 2) bool; a clip has at least one modality.
        """
        logits = self.logits(self.inputs(audio, visual, pooled_audio, pooled_visual))
        both = torch.stack([logits, torch.zeros_like(logits)], 1)  # softmax([x, 0]) = [sigmoid(x), 1 - sigmoid(x)]
        return both.masked_fill(~present[..., None], ABSENT).softmax(1)

    def sharpen(self, result: Tensor) -> Tensor:
        """(b, c) mixed log-probabilities, as sharp as held-out clips say that they may be."""
        return result if self.sharpness is None else torch.log_softmax(self.sharpness.exp() * result, -1)


def reliability(logs: Tensor) -> Tensor:
    """(b, c) log-probabilities -> (b, 3): entropy, greatest one, its lead over the second."""
    entropy = -(logs.exp() * logs).sum(1)
    first, second = logs.topk(2, 1).values.unbind(1)
    return torch.stack([entropy, first, first - second], 1)
