import numpy as np
import pytest

from bmla.fuse.metrics import scores, top_k_accuracy
from bmla.fuse.predictions import Predictions


def log(*rows: list[float]) -> np.ndarray:
    return np.log(np.array(rows, np.float32) / np.sum(rows, 1, keepdims=True))


def predictions(**change: object) -> Predictions:
    """Truth 0 0 0 1 2, answers 0 0 1 1 1; class 3 never occurs."""
    values = dict(
        ids=np.array(list("abcde"), object),
        groups=np.array(list("abcde"), object),
        labels=np.array([0, 0, 0, 1, 2]),
        result=log([9, 1, 1, 1], [9, 1, 1, 1], [1, 9, 1, 1], [1, 9, 1, 1], [1, 9, 1, 1]),
        audio=log([9, 1, 1, 1], [1, 9, 1, 1], [9, 1, 1, 1], [9, 1, 1, 1], [1, 1, 9, 1]),
        visual=log([1, 9, 1, 1], [1, 9, 1, 1], [1, 9, 1, 1], [1, 9, 1, 1], [1, 9, 1, 1]),
        alpha=np.array([[0.9], [0.7], [1.0], [0.2], [0.4]], np.float32),
        audio_present=np.array([True] * 4 + [False]),
        visual_present=np.array([True, True, False, True, True]),
    )
    return Predictions(**{**values, **change})


def test_scores_equal_the_written_out_numbers() -> None:
    found = scores(predictions())
    assert found["clips"] == 5
    assert found["accuracy"] == pytest.approx(3 / 5)
    f1 = [2 * 1 * (2 / 3) / (1 + 2 / 3), 2 * (1 / 3) * 1 / (1 / 3 + 1), 0.0]
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert found["weighted_f1"] == pytest.approx((3 * f1[0] + f1[1]) / 5)
    assert found["uar"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["confusion"] == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_branches_are_judged_by_the_clips_that_have_their_modality() -> None:
    found = scores(predictions(), alone=predictions(audio=predictions().visual))
    assert found["audio_accuracy"] == pytest.approx(2 / 4)  # the fifth clip is silent
    assert found["visual_accuracy"] == pytest.approx(1 / 4)
    assert found["audio_alone_accuracy"] == pytest.approx(1 / 4)


def test_alpha_counts_only_where_both_modalities_are() -> None:
    found = scores(predictions())
    assert found["alpha"] == pytest.approx((0.9 + 0.7 + 0.2) / 3)
    assert found["alpha_per_class"] == [pytest.approx(0.8), pytest.approx(0.2), None, None]


def test_alpha_of_class_level_weights_is_that_of_the_true_class() -> None:
    alpha = np.arange(20, dtype=np.float32).reshape(5, 4) / 20
    found = scores(predictions(alpha=alpha))
    assert found["alpha_per_class"] == [pytest.approx((0 + 4) / 2 / 20), pytest.approx(13 / 20), None, None]


def test_what_a_model_does_not_have_is_none() -> None:
    found = scores(predictions(audio=None, visual=None, alpha=None))
    for name in ("audio_accuracy", "visual_accuracy", "audio_alone_accuracy", "visual_alone_accuracy", "alpha"):
        assert found[name] is None
    assert found["alpha_per_class"] == [None] * 4


def test_an_answer_that_is_no_number_is_never_among_the_k() -> None:
    result = np.array([[np.nan, np.nan, np.nan], [np.nan, 0.9, 0.1], [0.5, np.nan, 0.1]])
    assert [top_k_accuracy(result, np.array([0, 0, 1]), k) for k in (1, 2)] == [0, 0]
    assert top_k_accuracy(result, np.array([0, 1, 0]), 2) == pytest.approx(2 / 3)
