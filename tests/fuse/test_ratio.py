import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmla.fuse.ratio import LARGEST_PART, Ratio, describe_widths, parse_ratio, widths
from bmla.store.errors import UnknownName, UsageError

ratios = st.builds(lambda a, v: parse_ratio(f"{a}:{v}"), st.integers(1, LARGEST_PART), st.integers(1, LARGEST_PART))


WRONG = [
    "0:1",
    "1:0",
    "1:2:3",
    "a:b",
    "-1:2",
    "1:-2",
    "1",
    "1:",
    ":1",
    "",
    "1.5:1",
    "1/2",
    "١:٢",
    "1 :2",
    "1:65",
    "9" * 12 + ":1",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_ratio_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ratio(text)
    assert f'ratio "{text}"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_audio_comes_first_and_terms_are_lowest() -> None:
    assert parse_ratio("1:2") == Ratio(audio=1, visual=2)
    assert str(parse_ratio(" 4:2 ")) == "2:1"


@given(ratio=ratios, heads=st.integers(1, 16), units=st.integers(1, 64))
def test_fixed_total_keeps_the_total_and_every_head_whole(ratio: Ratio, heads: int, units: int) -> None:
    audio, visual = widths(ratio, heads * units, heads)
    assert audio + visual == 2 * heads * units
    assert audio % heads == visual % heads == 0
    assert min(audio, visual) >= heads
    assert widths(Ratio(ratio.visual, ratio.audio), heads * units, heads) in (
        (visual, audio),
        (visual + heads, audio - heads),
    )
    if min(audio, visual) > heads:
        assert abs(audio / (audio + visual) - ratio.audio / sum(ratio)) <= 0.5 / (2 * units) + 1e-12


@given(ratio=ratios, heads=st.integers(1, 16), units=st.integers(1, 64))
def test_fixed_base_keeps_the_shorter_side_and_every_head_whole(ratio: Ratio, heads: int, units: int) -> None:
    audio, visual = widths(ratio, heads * units, heads, "fixed-base")
    assert min(audio, visual) == heads * units
    assert audio % heads == visual % heads == 0
    assert (audio > visual) <= (ratio.audio > ratio.visual)


def test_known_widths() -> None:
    assert widths(Ratio(1, 1), 256, 8) == (256, 256)
    assert widths(Ratio(1, 3), 256, 8) == (128, 384)
    assert widths(Ratio(1, 2), 256, 8) == (168, 344)
    assert widths(Ratio(1, 2), 256, 8, "fixed-base") == (256, 512)
    assert widths(Ratio(3, 2), 256, 8, "fixed-base") == (384, 256)


def test_rounding_is_told() -> None:
    assert describe_widths(Ratio(1, 3), 256, 8) == "ratio 1:3: 128 audio + 384 visual features"
    assert "rounded to multiples of 8 heads: 1:2.05 instead of 1:2" in describe_widths(Ratio(1, 2), 256, 8)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UnknownName, match="fixed-total, fixed-base"):
        widths(Ratio(1, 1), 256, 8, "fixed")
