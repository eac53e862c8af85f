"""eSpeak through ctypes: the same list of words gives the same samples, with phonemes in time."""

import numpy as np
import pytest

from bmla.extract.demo.speech import Utterance, speak
from bmla.extract.demo.visemes import viseme_of
from bmla.store.errors import BmlaError

pytest.importorskip("espeakng_loader", reason="needs the demo extra: pip install 'bmla[demo]'")

UTTERANCES = [
    Utterance("million", "gmw/en-US+f2"),
    Utterance("thirst", "gmw/en-GB-scotland+m2", 140),
    Utterance("thirst", "gmw/en-GB-scotland+m2", 180),
]


def test_words_have_sound_and_phonemes_in_order_and_are_the_same_every_time():
    first, second = speak(UTTERANCES), speak(UTTERANCES)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.samples, b.samples)
        assert a.phones == b.phones
        assert a.rate_hz == 22_050
        assert 0.1 < np.abs(a.samples).max() <= 1
        starts = [p.start_s for p in a.phones]
        assert starts == sorted(starts)
        assert all(p.start_s < p.end_s <= len(a.samples) / a.rate_hz + 0.01 for p in a.phones)
        assert all(viseme_of(p.name) for p in a.phones)
    assert first[0].phones[0].name == "m"
    assert first[1].phones[0].name == "T"
    assert first[2].phones[-1].end_s < first[1].phones[-1].end_s  # more words a minute


def test_an_unknown_voice_is_named():
    with pytest.raises(BmlaError, match='eSpeak NG has no voice "xx-nowhere"'):
        speak([Utterance("hello", "xx-nowhere")])
