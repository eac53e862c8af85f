"""What each modality is worth to a trained model: its Shapley value in a game of two players.

    phi_audio = ((v(av) - v(v)) + (v(a) - v(nothing))) / 2,   phi_visual likewise;   phi_audio + phi_visual = v(av) - v(nothing)

v is the accuracy with only those modalities shown. *Source:* Shapley (1953); Hu et al. (2022, SHAPE) for audio-visual learning.
A modality that is not shown is either "absent" (masked: what the model does with a clip that lacks it) or "mean" (every step is the
mean of the training clips, so that its length still tells something). With nothing shown, the model can only guess: v(nothing) is the
accuracy of the best constant answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .data import Features
from .lockstep import Training
from .models.base import MODALITIES, FusionModel
from .predictions import Ask, Predictions

# Of dev, every epoch: at most so many, and one for so many training clips: two answers about each cost 2 to 3 % of the epoch then.
QUICK_CLIPS, TRAINING_CLIPS = 32, 30


def shapley(both: float, audio: float, visual: float, nothing: float) -> dict[str, float]:
    """The value of each modality, from v of the four subsets."""
    return {
        "audio": (both - visual + audio - nothing) / 2,
        "visual": (both - audio + visual - nothing) / 2,
    }


def contribution(
    model: FusionModel,
    features: Features,
    clips: np.ndarray,
    modalities: Sequence[str],
    impute: bool = True,
    answers: Predictions | None = None,
) -> Training[dict[str, Any]]:
    """Shapley values on some clips, for models of two modalities; empty for others. Answers are left to whoever drives it.

    Only clips that have both modalities count: what is not there cannot be taken away.

    Args:
        answers: about these clips as they are, where they are known.

    Returns:
        shapley_absent_audio, shapley_absent_visual, shapley_mean_audio, shapley_mean_visual (without `impute` the first two).
    """
    if len(modalities) < 2:
        return {}
    there = np.all([features.stream(m).present[clips] for m in MODALITIES], axis=0)
    clips = clips[there]
    if not len(clips):
        return {}
    labels = features.labels.numpy()[clips]
    nothing = float(np.bincount(labels).max() / len(labels))
    question = Ask(model, features, clips, modalities)
    both = accuracy((yield question) if answers is None else answers.take(there))
    result: dict[str, Any] = {}
    for name in ("absent", "mean") if impute else ("absent",):
        shown = {}
        for alone, other in zip(MODALITIES, reversed(MODALITIES), strict=True):
            left = yield replace(question, hidden=(other,)) if name == "absent" else replace(question, mean=(other,))
            shown[alone] = accuracy(left)
        values = shapley(both, shown["audio"], shown["visual"], nothing)
        result |= {f"shapley_{name}_{modality}": value for modality, value in values.items()}
    return result


def quick_contribution(
    model: FusionModel,
    features: Features,
    clips: np.ndarray,
    modalities: Sequence[str],
    answers: Predictions,
    training_clips: int,
) -> Training[dict[str, Any]]:
    """Of a fixed few of the clips, spread evenly over them.

    Args:
        answers: about the clips as they are; more may follow them.
    """
    count = min(QUICK_CLIPS, len(clips), max(1, training_clips // TRAINING_CLIPS))
    few = np.linspace(0, len(clips) - 1, count).astype(int)
    return (yield from contribution(model, features, clips[few], modalities, impute=False, answers=answers.take(few)))


def accuracy(predictions: Predictions) -> float:
    return float((predictions.predicted == predictions.labels).mean())
