"""Facts on a clip's sound against what they are by hand."""

import numpy as np
import pytest

from bmla.extract.encoders.base import Sound
from bmla.extract.quality import quality_of_sound
from bmla.store.quality import MEANINGS


def facts(*samples: float) -> dict[str, float]:
    return quality_of_sound(Sound(np.array(samples, np.float32)))


def test_a_full_scale_sine_has_3_db_less_than_full_scale() -> None:
    found = facts(*np.sin(2 * np.pi * 100 * np.arange(16_000) / 16_000))
    assert found["sound_level_dbfs"] == pytest.approx(10 * np.log10(0.5), abs=1e-3)
    assert found["silent_share"] == 0


def test_shares_are_of_samples_and_of_whole_windows() -> None:
    found = facts(*[1.0] * 80, *[0.5] * 240, *[0.0009] * 320, *[0.0011] * 320, *[0.0] * 100)  # the rest fills no window
    assert found["clipped_share"] == pytest.approx(80 / 1060)
    assert found["silent_share"] == pytest.approx(1 / 3)  # -60 dB is an amplitude of 0.001


def test_silence_is_a_number_and_nothing_is_none() -> None:
    assert facts(*[0.0] * 100) == {"sound_level_dbfs": -100.0, "clipped_share": 0.0, "silent_share": 1.0}
    assert facts() == {}
    assert facts(0.1, float("inf")) == {}


def test_the_names_are_those_that_the_store_explains() -> None:
    assert facts(0.1).keys() <= MEANINGS.keys()
