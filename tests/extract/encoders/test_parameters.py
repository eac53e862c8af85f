"""Encoders' parameters as typed on a command line."""

import pytest

from bmla.extract.encoders.options import defaults
from bmla.extract.encoders.table import TABLE, read_parameters
from bmla.store.errors import UnknownName, UsageError


def test_texts_become_values_of_the_fields_types() -> None:
    words = {
        "mouth.roi.crop_px": "96",
        "mouth.roi.colour": "rgb",
        "mouth.roi.sigma_frames": "1",
        "audio.logspec-cube.floor": "1e-6",
        "audio.hubert.layer": "6,9",
    }
    assert read_parameters(words) == {
        "mouth.roi": {"crop_px": 96, "colour": "rgb", "sigma_frames": 1.0},
        "audio.logspec-cube": {"floor": 1e-6},
        "audio.hubert": {"layer": "6,9"},
    }
    assert isinstance(read_parameters(words)["mouth.roi"]["sigma_frames"], float)
    assert read_parameters({}) == {}


@pytest.mark.parametrize(
    ("word", "text", "message"),
    [
        (
            "mouth.roi.crop",
            "96",
            r'mouth\.roi: unknown parameter "crop"; known: crop_px, width, align, sigma_frames, colour',
        ),
        ("mouth.roi.crop_px", "9.5", r'mouth\.roi: crop_px is "9\.5", expected a value of type int'),
        ("face.roi.margin", "wide", r'face\.roi: margin is "wide", expected a value of type float'),
        ("crop_px", "96", r'parameter "crop_px" names no stream: expected such as mouth\.roi\.crop_px'),
    ],
)
def test_words_that_make_no_sense_are_usage_errors(word: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_parameters({word: text})


def test_unknown_stream_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r'unknown encoder "mouth\.rio"; known: .*mouth\.roi'):
        read_parameters({"mouth.rio.crop_px": "96"})


@pytest.mark.parametrize("stream", TABLE)
def test_every_default_survives_the_way_through_text(stream: str) -> None:
    options = defaults(TABLE[stream].options)
    assert options
    words = {f"{stream}.{name}": str(value) for name, value in options.items()}
    assert read_parameters(words) == {stream: options}
