"""The figures of `metrics.scores`, on random answers, equal those of scikit-learn and of torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from bmla.fuse.metrics import scores, top_k_accuracy
from bmla.fuse.predictions import Predictions


def made_up(seed: int, clips: int, classes: int, absent: int) -> Predictions:
    """Random answers; the last `absent` classes never occur, but are answered."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - absent, clips)
    logits = rng.normal(size=(clips, classes)).astype(np.float32)
    logits[np.arange(clips), labels] += rng.uniform(0, 2, clips)
    names = np.array([f"{i}" for i in range(clips)])
    present = np.ones(clips, bool)
    logs = torch.from_numpy(logits).log_softmax(1).numpy()
    return Predictions(names, names, labels, logs, None, None, None, present, present)


CASES = [(0, 200, 10, 0), (1, 200, 10, 3), (2, 40, 25, 5), (3, 30, 4, 1), (4, 25, 2, 0), (5, 7, 6, 0), (6, 3, 12, 4)]


@pytest.mark.parametrize(("seed", "clips", "classes", "absent"), CASES)
def test_every_figure_is_that_of_scikit_learn_and_torchmetrics(
    seed: int, clips: int, classes: int, absent: int
) -> None:
    predictions = made_up(seed, clips, classes, absent)
    found = scores(predictions)
    truth, answers, every = predictions.labels, predictions.predicted, np.arange(classes)
    occurring = np.union1d(truth, answers)
    k = min(5, classes - 1)
    assert found["top_k"] == k

    by_sklearn = {
        "accuracy": sk.accuracy_score(truth, answers),
        "macro_f1": sk.precision_recall_fscore_support(truth, answers, labels=occurring, zero_division=0)[2].mean(),
        "weighted_f1": sk.f1_score(truth, answers, labels=every, average="weighted", zero_division=0),
        "uar": sk.recall_score(truth, answers, labels=np.unique(truth), average=None, zero_division=0).mean(),
        "top_k_accuracy": sk.top_k_accuracy_score(truth, predictions.result, k=k, labels=every)
        if classes > 2
        else sk.accuracy_score(truth, answers),
    }
    y, p, logs = (torch.from_numpy(x) for x in (truth, answers, predictions.result))
    each = tm.multiclass_f1_score(p, y, classes, average=None)
    recalls = tm.multiclass_recall(p, y, classes, average=None)
    by_torchmetrics = {
        "accuracy": tm.multiclass_accuracy(p, y, classes, average="micro"),
        "macro_f1": each[torch.from_numpy(occurring)].mean(),
        "weighted_f1": tm.multiclass_f1_score(p, y, classes, average="weighted"),
        "uar": recalls[y.unique()].mean(),
        "top_k_accuracy": tm.multiclass_accuracy(logs, y, classes, average="micro", top_k=k),
    }
    for name, value in by_sklearn.items():
        assert found[name] == float(value), name  # to the last bit
        assert found[name] == pytest.approx(float(by_torchmetrics[name]), abs=1e-6), name
    assert found["confusion"] == sk.confusion_matrix(truth, answers, labels=every).tolist()
    assert found["confusion"] == tm.multiclass_confusion_matrix(p, y, classes).tolist()


def test_top_k_counts_the_k_most_probable_and_the_first_of_equals() -> None:
    result = np.array([[4.0, 3, 2, 1], [4, 3, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    truth = np.array([1, 2, 1, 2])
    assert [top_k_accuracy(result, truth, k) for k in (1, 2, 3, 4)] == [0, 0.5, 1, 1]
    assert top_k_accuracy(result, np.zeros(4, int), 1) == (result.argmax(1) == 0).mean()
