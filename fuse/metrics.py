"""What a list of answers is worth: accuracy, top-5 accuracy, F1, recall, confusions, each branch by itself, and the mean decision weight.

A number that has no clips to stand on is None. UAR (unweighted average recall) and macro F1 are over the classes that occur.

*Source:* the figures are those of scikit-learn to the last bit, without its checks of what it is given, which take far longer than the
figures: every epoch of every run has some.
"""

from typing import Any

import numpy as np

from .predictions import Predictions

TOP = 5


def scores(predictions: Predictions, alone: Predictions | None = None) -> dict[str, Any]:
    """Everything that is reported about a run, as plain JSON values.

    Args:
        predictions: of the model as it was trained.
        alone: of the same model with BRFF off, on the same clips; None where there is no BRFF.

    Returns:
        clips, accuracy, top_k_accuracy and its top_k (5, or one less than there are classes), macro_f1, weighted_f1, uar, confusion
        (rows: truth); for models with branches audio_accuracy, visual_accuracy (each over the clips that have the modality),
        audio_alone_accuracy, visual_alone_accuracy (BRFF off), alpha (mean share of audio over clips with both modalities),
        alpha_per_class.
    """
    truth, predicted = predictions.labels, predictions.predicted
    classes = predictions.result.shape[1]
    counts = confusion(truth, predicted, classes)
    result: dict[str, Any] = {
        "clips": len(truth),
        "accuracy": float((truth == predicted).mean()),
        "top_k": top_k(classes),
        "top_k_accuracy": top_k_accuracy(predictions.result, truth, top_k(classes)),
        "macro_f1": macro_f1(counts),
        "weighted_f1": weighted_f1(counts),
        "uar": uar(counts),
        "confusion": counts.tolist(),
    }
    for modality in ("audio", "visual"):
        result[f"{modality}_accuracy"] = branch_accuracy(predictions, modality)
        result[f"{modality}_alone_accuracy"] = None if alone is None else branch_accuracy(alone, modality)
    alpha = own_class_alpha(predictions)
    result["alpha"] = mean(alpha[~np.isnan(alpha)])
    result["alpha_per_class"] = [mean(alpha[(truth == c) & ~np.isnan(alpha)]) for c in range(classes)]
    return result


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(c, c) how many clips of each class (rows) were taken for which."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def macro_f1(counts: np.ndarray) -> float:
    """Mean over the classes that occur, as truth or as an answer. Args: counts: see `confusion`."""
    return float(f1_of_each(counts)[0].mean())


def weighted_f1(counts: np.ndarray) -> float:
    """The same, each class with the share of the clips that it has."""
    f1, clips = f1_of_each(counts)
    return float(np.average(f1, weights=clips))


def uar(counts: np.ndarray) -> float:
    """Mean recall of the classes that are the truth of a clip."""
    clips = counts.sum(1)
    there = clips > 0
    return float((counts.diagonal()[there] / clips[there]).mean())


def f1_of_each(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each class that occurs, and how many clips it has."""
    clips, answered = counts.sum(1), counts.sum(0)
    there = clips + answered > 0
    return 2 * counts.diagonal()[there] / (clips + answered)[there], clips[there]


def top_k(classes: int) -> int:
    """Of so many classes, how many answers count; among all of them, the right one always is."""
    return min(TOP, classes - 1)


def top_k_accuracy(result: np.ndarray, truth: np.ndarray, k: int) -> float:
    """The share of the clips whose class is among the k most probable; of equals the lower number goes first, as in `predicted`.

    Args:
        result: (n, c); truth: (n,).
    """
    own = np.take_along_axis(result, truth[:, None], 1)
    lower = np.arange(result.shape[1]) < truth[:, None]
    behind = (own > result) | ((own == result) & ~lower)  # asked this way, an answer that is no number is never right
    return float(((~behind).sum(1) < k).mean())


def branch_accuracy(predictions: Predictions, modality: str) -> float | None:
    """Accuracy of one branch's own head over the clips that have its modality."""
    answer = getattr(predictions, modality)
    if answer is None:
        return None
    present = getattr(predictions, f"{modality}_present")
    return mean((answer.argmax(1) == predictions.labels)[present])


def own_class_alpha(predictions: Predictions) -> np.ndarray:
    """(n,) the share of audio in the score of each clip's own class; NaN where it was not free to choose.

    That is the sample's alpha without class-level weights, and alpha of the true class with them.
    """
    if predictions.alpha is None:
        return np.full(len(predictions), np.nan)
    column = predictions.labels if predictions.alpha.shape[1] > 1 else np.zeros(len(predictions), int)
    alpha = predictions.alpha[np.arange(len(predictions)), column].astype(float)
    return np.where(predictions.audio_present & predictions.visual_present, alpha, np.nan)


def mean(values: np.ndarray) -> float | None:
    """None of nothing."""
    return float(values.mean()) if len(values) else None
