"""Who speaks over a clip: other speakers of its own split, each as loud as the next."""

from collections.abc import Callable

import numpy as np
import pytest

from bmla.extract.noise.talkers import Talkers
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import MediaError, UsageError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clip(i: int, **columns: str | None) -> Clip:
    return Clip(**{"id": f"c{i}", "start_s": 0, "end_s": 1, "audio": f"{i}.wav", "split": "train", **columns})


def talkers(clips: list[Clip], sound: Callable[[int], np.ndarray] | None = None) -> Talkers:
    return Talkers(ClipTable.from_clips(clips), sound or (lambda row: np.full(10, row + 1, np.float32)))


def test_voices_are_of_other_speakers_of_the_same_split() -> None:
    clips = [clip(i, speaker=f"s{i % 3}", split=("train", "test")[i // 6]) for i in range(12)]
    found = talkers(clips)
    assert found.apart == "speaker"
    assert found.candidates(clips[0]).tolist() == [1, 2, 4, 5]
    assert found.candidates(clips[7]).tolist() == [6, 8, 9, 11]


def test_where_speakers_are_not_known_voices_are_of_other_recordings() -> None:
    clips = [clip(i, speaker=None if i == 3 else f"s{i}", group=f"g{i // 2}") for i in range(6)]
    found = talkers(clips)
    assert found.apart == "group"
    assert found.candidates(clips[2]).tolist() == [0, 1, 4, 5]


def test_where_there_is_one_speaker_voices_are_of_other_files() -> None:
    clips = [clip(i, speaker="s1", audio=f"{i // 2}.mpg", split=None) for i in range(4)]
    found = talkers(clips)
    assert found.apart == "audio"
    assert found.candidates(clips[0]).tolist() == [2, 3]
    assert "another audio" in found.describe()["talkers_drawn"]


def test_clips_without_sound_do_not_speak() -> None:
    clips = [clip(0, speaker="a"), clip(1, speaker="b", audio=None), clip(2, speaker="b"), clip(3, audio=None)]
    assert talkers(clips).candidates(clips[0]).tolist() == [2]


def test_a_split_with_one_file_can_have_no_babble() -> None:
    with pytest.raises(UsageError, match=r"at least two files in every split; fewer in: dev"):
        talkers([clip(0), clip(1), clip(2, split="dev")])


def test_a_clip_of_another_table_is_refused() -> None:
    with pytest.raises(UsageError, match=r'clip "c9" is not of the clip table'):
        talkers([clip(0), clip(1)]).candidates(clip(9))


def test_eight_different_voices_speak_and_all_are_drawn_in_time() -> None:
    heard: list[int] = []

    def sound(row: int) -> np.ndarray:
        heard.append(row)
        return np.ones(5, np.float32)

    clips = [clip(i) for i in range(30)]
    found = talkers(clips, sound)
    for seed in range(20):
        heard.clear()
        found.speak(clips[4], 7, rng(seed))
        assert len(heard) == len(set(heard)) == 8
        assert 4 not in heard
    everyone = {row for seed in range(60) for row in drawn(found, clips[4], heard, seed)}
    assert everyone == set(range(30)) - {4}


def drawn(found: Talkers, over: Clip, heard: list[int], seed: int) -> list[int]:
    heard.clear()
    found.speak(over, 7, rng(seed))
    return list(heard)


def test_where_there_are_fewer_all_of_them_speak_equally_loud() -> None:
    """Constant voices of levels 2 to 4: brought to mean square 1, three of them add up to 3 everywhere."""
    clips = [clip(i) for i in range(4)]
    np.testing.assert_allclose(talkers(clips).speak(clips[0], 25, rng()), 3.0)


def test_a_voice_begins_anywhere_and_is_looped() -> None:
    clips = [clip(0), clip(1)]
    ramp = np.arange(1, 6, dtype=np.float32)
    unit = ramp / np.sqrt((ramp.astype(float) ** 2).mean())
    firsts = set()
    for seed in range(40):
        babble = talkers(clips, lambda row: ramp).speak(clips[0], 12, rng(seed))
        start = int(np.argmin(np.abs(unit - babble[0])))
        np.testing.assert_allclose(babble, [unit[(start + k) % 5] for k in range(12)])
        firsts.add(start)
    assert firsts == {0, 1, 2, 3, 4}


def test_clips_that_cannot_be_heard_are_passed_over() -> None:
    silent, broken = np.zeros(9, np.float32), np.full(9, np.nan, np.float32)

    def sound(row: int) -> np.ndarray:
        if row == 1:
            raise MediaError("1.wav: truncated")
        return {2: silent, 3: broken}.get(row, np.ones(9, np.float32))

    clips = [clip(i) for i in range(6)]
    np.testing.assert_allclose(talkers(clips, sound).speak(clips[0], 9, rng()), 2.0)
    with pytest.raises(MediaError, match=r"none of 3 clips of its split and another audio can be heard"):
        talkers(clips[:4], sound).speak(clips[0], 9, rng())
