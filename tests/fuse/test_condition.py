import pytest

from bmla.fuse.condition import CLEAN, Condition, expand, parse_condition
from bmla.store.errors import UsageError

STREAMS = ["audio.logspec", "audio.logspec@mask=0.2", "audio.logspec@white=0", "audio.logspec@white=10",
           "audio.hubert@white=0", "mouth.dct", "mouth.dct@blur=4"]  # fmt: skip
USED = {"audio": "audio.logspec", "visual": "mouth.dct"}


@pytest.mark.parametrize(
    "text",
    [
        "clean",
        "audio.logspec@white=0",
        "audio.logspec@white=10,mask=0.4",
        "audio.logspec@white=0 + mouth.dct@blur=4",
        "no-audio",
        "mouth.dct@blur=4 + no-audio",
    ],
)
def test_what_is_written_reads_back(text: str) -> None:
    assert str(parse_condition(text)) == text
    assert parse_condition(text.replace(" ", "")) == parse_condition(text)


@pytest.mark.parametrize(
    "text", ["audio.logspec", "audio.logspec@white=0 + audio.logspec@white=10", "no-audio + no-visual", "no-smell"]
)
def test_what_cannot_be_tested_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="test condition"):
        parse_condition(text)


def test_a_condition_concerns_a_run_only_in_its_own_streams() -> None:
    both = Condition(("audio.logspec@white=0", "mouth.dct@blur=4"))
    assert both.seen_by(USED) == both
    assert both.seen_by({"audio": "audio.logspec"}) == Condition(("audio.logspec@white=0",))
    assert both.seen_by({"audio": "audio.hubert"}) == CLEAN
    assert Condition(hidden=("visual",)).seen_by({"audio": "audio.logspec"}) == CLEAN
    assert Condition(hidden=("visual",)).seen_by({"visual": "mouth.dct"}) == Condition(hidden=("visual",))


def test_patterns_find_the_variants_of_the_streams_in_use() -> None:
    assert expand(["audio.logspec@white=*"], STREAMS, USED.values()) == STREAMS[2:4]
    assert expand(["all"], STREAMS, USED.values()) == [*STREAMS[1:4], STREAMS[6]]
    assert expand(["mouth.dct@blur=4 + audio.logspec@mask=*"], STREAMS, USED.values()) == [STREAMS[1], STREAMS[6]]
    with pytest.raises(
        UsageError, match=r'"audio.hubert@\*": no such noise variant here; there are: audio.logspec@mask'
    ):
        expand(["audio.hubert@*"], STREAMS, USED.values())
    with pytest.raises(UsageError, match="there are: none"):
        expand(["all"], ["audio.logspec"], USED.values())
