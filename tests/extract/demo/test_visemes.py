"""Mouth shapes follow the phonemes: lips close for p, b, m, the lower lip tucks for f, and neighbours blend."""

import numpy as np
import pytest

from bmla.extract.demo.speech import Phone
from bmla.extract.demo.visemes import REST, SHAPE, VISEMES, mouth_shapes, viseme_of

MOMENTS_S = np.arange(0, 1.8, 0.01)


def word(*names, start_s=0.6, each_s=0.1):
    return [Phone(name, start_s + k * each_s, start_s + (k + 1) * each_s) for k, name in enumerate(names)]


def at(shapes, time_s, name):
    return shapes[round(time_s * 100), SHAPE.index(name)]


@pytest.mark.parametrize("name", sorted(VISEMES))
def test_every_phoneme_gives_shapes_between_0_and_1(name):
    shapes = mouth_shapes(word("a", name, "i:"), MOMENTS_S)
    assert shapes.shape == (180, 6)
    assert shapes.min() >= 0
    assert shapes.max() <= 1


def test_lips_close_for_m_between_open_vowels():
    shapes = mouth_shapes(word("a", "m", "a", each_s=0.16), MOMENTS_S)
    vowel, closure, again = 0.68, 0.84, 1.0
    assert at(shapes, vowel, "opening") > 0.5
    assert at(shapes, closure, "opening") < 0.1
    assert at(shapes, closure, "press") > 0.8
    assert at(shapes, again, "opening") > 0.5


def test_f_tucks_the_lip_and_th_shows_the_tongue():
    f, th = (mouth_shapes(word(name, "3:", "s"), MOMENTS_S) for name in ("f", "T"))
    assert at(f, 0.65, "tuck") > 0.6 > 0.2 > at(th, 0.65, "tuck")
    assert at(th, 0.65, "tongue") > 0.5 > 0.2 > at(f, 0.65, "tongue")


def test_p_b_and_m_look_alike_and_n_does_not():
    assert viseme_of("p") == viseme_of("b") == viseme_of("m") != viseme_of("n")
    m, n = (mouth_shapes(word(name, "oU", "S"), MOMENTS_S) for name in "mn")
    assert np.abs(m - n).max() > 0.5


def test_a_vowel_reaches_into_the_consonants_around_it():
    rounded, spread = (mouth_shapes(word("t", vowel, "t"), MOMENTS_S) for vowel in ("u:", "i:"))
    assert at(rounded, 0.65, "rounding") > at(spread, 0.65, "rounding") + 0.2


def test_movement_is_smooth_and_starts_and_ends_at_rest():
    shapes = mouth_shapes(word("p", "a", "tS", "I2", "z"), MOMENTS_S)
    assert np.abs(np.diff(shapes, axis=0)).max() < 0.25  # in a hundredth of a second
    assert np.abs(shapes[0] - REST[: len(SHAPE)]).max() < 0.05
    assert np.abs(shapes[-1] - REST[: len(SHAPE)]).max() < 0.1


def test_the_longest_known_name_counts_and_an_unknown_one_is_an_error():
    assert viseme_of("3:r") == VISEMES["3"]
    assert viseme_of("tS") != viseme_of("t#")
    with pytest.raises(KeyError, match='no mouth shape for the phoneme "§"'):
        viseme_of("§")
