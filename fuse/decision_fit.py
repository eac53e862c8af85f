"""Fits BalanceMLA's decision weights on clips that its branches were not trained on.

On training clips both branches are nearly always right and sure, so weights that are trained there never learn what a wrong answer looks
like; under noise they then hardly move. Here the branches are finished and stay as they are. Their answers on the dev clips, clean
and with as many noisy copies as are useful, decide the few numbers of `models/reliability.py`, by the least cross-entropy with a
penalty that keeps them small. Where there are no noisy copies, how sure the answers are decides as it stands, and only the weights of the
classes are fitted. The dev split has chosen the epoch before; the test split is not looked at.

*Source:* ours, after the calibration of a trained network on held-out data (Guo et al., 2017).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .data import Draw, Features
from .models.balancemla import BalanceMLA
from .models.base import Output
from .models.reliability import RELIABILITIES, Reliability
from .noise import noise
from .predictions import BATCH_CLIPS

COPIES = 8  # of each clip: one clean, the others with noise as on the copies that dev is judged by
NOISE_SEED = 5
ROUNDS = 150  # of L-BFGS; it ends by itself long before
# Of the sum of squares; the inputs are standardised. The 2 d pooled features are many for a few hundred clips.
PENALTY_RELIABILITY, PENALTY_CLASS, PENALTY_SHARPNESS, PENALTY_POOLED = 3e-3, 3e-3, 3e-3, 0.1


def fit_decision(model: BalanceMLA, features: Features, clips: np.ndarray, augment: Sequence[str]) -> None:
    """Sets the decision's parameters; the same clips and branches give the same numbers.

    Args:
        clips: (n,) that the branches were not trained on; those with both modalities count.
        augment: noise variants that the copies are drawn from; none: there is one copy, clean.
    """
    decision = model.decision
    if not isinstance(decision, Reliability) or decision.bias is None:
        return
    there = np.all([features.stream(m).present[clips] for m in ("audio", "visual")], axis=0)
    index = torch.from_numpy(clips[there])
    if not len(index):
        return
    answers = [answer(model, features, draw, augment) for draw in copies(index, features, augment)]
    audio, visual, x = (torch.cat(parts).double() for parts in zip(*answers, strict=True))
    labels = features.labels.to(x.device)[index.to(features.labels.device)].to(x.device)
    labels = labels.repeat(len(x) // len(index))
    fitted = {name: parameter.requires_grad_(True) for name, parameter in decision.double().named_parameters()}
    if augment or decision.weight is None:
        decision.mean.copy_(x.mean(0))
        decision.std.copy_(x.std(0, unbiased=False).clamp(min=1e-6))
    else:
        fitted.pop("weight").requires_grad_(False)
        decision.by_certainty()
    optimiser = torch.optim.LBFGS(list(fitted.values()), max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        total = objective(decision, audio, visual, x, labels)
        total.backward()
        return total

    optimiser.step(loss)
    decision.float().requires_grad_(False)


def objective(decision: Reliability, audio: Tensor, visual: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the weighted answers, and the penalties.

    Args:
        audio, visual: (n, c) log-probabilities.
        x: (n, 2 (3 + d)), `Reliability.inputs`.
    """
    assert decision.bias is not None
    assert decision.sharpness is not None  # there are both, or neither
    alpha = decision.logits(x).sigmoid()
    total = F.nll_loss(decision.sharpen(torch.log_softmax(alpha * audio + (1 - alpha) * visual, -1)), labels)
    total = total + PENALTY_CLASS * decision.bias.square().sum()
    total = (
        total + PENALTY_SHARPNESS * decision.sharpness.square()
    )  # where all answers are right, nothing else keeps it finite
    if decision.weight is not None:
        squares = decision.weight.square()
        total = total + PENALTY_RELIABILITY * squares[: 2 * RELIABILITIES].sum()
        total = total + PENALTY_POOLED * squares[2 * RELIABILITIES :].sum()
    return total


def copies(index: Tensor, features: Features, augment: Sequence[str]) -> list[Draw]:
    """The clips clean, then with noise."""
    generator = torch.Generator().manual_seed(NOISE_SEED)
    noisy = (noise(len(index), features, augment, generator) for _ in range(COPIES - 1)) if augment else ()
    return [Draw(index), *(Draw(index, versions) for versions in noisy)]


@torch.no_grad()
def answer(model: BalanceMLA, features: Features, draw: Draw, augment: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """(n, c), (n, c) log-probabilities of the branches, and (n, 2 (3 + d)) inputs of the decision."""
    assert isinstance(model.decision, Reliability)
    parts = [
        Draw(draw.clips[part], {m: v[part] for m, v in draw.versions.items()})
        for part in torch.arange(len(draw.clips)).split(BATCH_CLIPS)
    ]
    found = []
    for _, audio, visual in features.batches(parts, ("audio", "visual"), augment):
        output: Output = model(audio, visual)
        heads = (output.audio, output.visual, output.pooled_audio, output.pooled_visual)
        assert heads[0] is not None
        assert heads[1] is not None
        found.append((heads[0], heads[1], model.decision.inputs(*heads)))  # type: ignore[arg-type]
    a, v, x = (torch.cat(p) for p in zip(*found, strict=True))
    return a, v, x
