"""GRID: words cut by their alignments, checked against the sentence in the file's name."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bmla.extract.datasets.grid import words_of_name
from bmla.extract.datasets.table import find
from bmla.extract.media import read_audio, read_frames
from bmla.store.clips import ClipTable
from bmla.store.errors import UsageError

grid = find("grid").adapter()

BOUNDS = (0, 14_500, 20_000, 25_000, 27_000, 31_000, 37_000, 45_000, 74_500)


def alignment(name, words=None, newline="\n"):
    texts = ["sil", *(words or words_of_name(name)), "sil"]
    lines = [f"{a} {b} {w}" for a, b, w in zip(BOUNDS, BOUNDS[1:], texts, strict=False)]
    return (newline.join(lines) + newline).encode()


def plant(put, speaker, *names, top=""):
    for name in names:
        put(f"{top}{speaker}/{name}.mpg", "grid.mpg")
        put(f"{top}alignments/{speaker}/{name}.align", alignment(name))


def test_a_name_stands_for_its_sentence():
    assert words_of_name("bbaf2n") == ("bin", "blue", "at", "f", "two", "now")
    assert words_of_name("swwzza") == ("set", "white", "with", "z", "zero", "again")
    for wrong in ("bbaw2n", "xbaf2n", "bbaf2", "bbaf0n", "id2_vcd_swwp2s"):
        assert words_of_name(wrong) is None


def test_one_clip_a_word_cut_by_ticks_of_1_25000_s_with_the_margin(put, tmp_path):
    plant(put, "s1", "bbaf2n")
    found = grid(tmp_path, margin_s=0.1, split="sentence")
    assert [c.id for c in found.clips] == [
        f"s1/bbaf2n/{w}" for w in ("0-bin", "1-blue", "2-at", "3-f", "4-two", "5-now")
    ]
    first, last = found.clips[0], found.clips[-1]
    assert (first.start_s, first.end_s) == (0.48, 0.9)
    assert (first.word_start_s, first.word_end_s) == (0.1, 0.32)
    assert (last.start_s, last.end_s, last.label) == (1.38, 1.9, "now")
    assert first.video == first.audio == "s1/bbaf2n.mpg"
    assert (first.speaker, first.group, first.text) == ("s1", "s1/bbaf2n", "bin blue at f two now")
    assert len(found.classes) == 51
    assert set(words_of_name("bbaf2n")) < set(found.classes)
    assert read_frames(found.root / first.video, first.start_s, first.end_s).images.shape[0] in (10, 11)
    assert read_audio(found.root / first.audio, first.start_s, first.end_s).shape == (round(0.42 * 16_000),)


def test_cuts_stay_inside_the_recording(put, tmp_path):
    put("s1/bbaf2n.mpg", "grid.mpg")
    lines = [
        "0 1000 sil",
        "1000 6000 bin",
        "6000 7000 blue",
        "7000 8000 at",
        "8000 9000 f",
        "9000 10000 two",
        "10000 74500 now",
    ]
    put("alignments/s1/bbaf2n.align", "\n".join(lines).encode())
    clips = grid(tmp_path, margin_s=0.1).clips
    assert clips[0].start_s == 0
    assert clips[0].word_start_s == 0.04
    assert clips[-1].end_s == 2.98
    assert read_frames(tmp_path / clips[-1].video, clips[-1].start_s, clips[-1].end_s).present.all()


@pytest.mark.parametrize(
    ("target", "label", "classes"),
    [
        ("command", "bin", 4),
        ("colour", "blue", 4),
        ("preposition", "at", 4),
        ("letter", "f", 25),
        ("digit", "two", 10),
        ("adverb", "now", 4),
    ],
)
def test_a_target_takes_one_word_of_each_sentence(put, tmp_path, target, label, classes):
    plant(put, "s1", "bbaf2n")
    found = grid(tmp_path, target=target)
    assert [c.label for c in found.clips] == [label]
    assert len(found.classes) == classes
    assert list(found.classes) == sorted(found.classes)
    assert found.options["target"] == target


def test_silences_and_short_pauses_are_no_words_and_line_ends_may_be_windows(put, tmp_path):
    put("s1/bbaf2n.mpg", "grid.mpg")
    words = ["bin", "blue", "sp", "at", "f", "two", "now"]
    lines = [f"{1000 * k} {1000 * (k + 1)} {w}" for k, w in enumerate(["sil", *words, "sil"])]
    put("alignments/s1/bbaf2n.align", "\r\n".join([*lines, "", ""]).encode())
    found = grid(tmp_path, margin_s=0)
    assert [c.label for c in found.clips] == ["bin", "blue", "at", "f", "two", "now"]
    assert found.clips[2].start_s == pytest.approx(4000 / 25_000)


def test_each_recording_that_is_left_out_is_counted_with_its_reason(put, tmp_path):

    plant(put, "s1", "bbaf2n", "bbaf3s", "bbaf4p", "bbaf5a", "bbal6n")
    put("alignments/s1/bbaf3s.align", alignment("bbaf3s", ("bin", "blue", "at", "g", "three", "soon")))
    put("alignments/s1/bbaf4p.align", b"0 1000 sil\n1000 500 bin\n")
    put("alignments/s1/bbaf5a.align", alignment("bbaf5a", ("bin", "blue", "at", "f", "five")))
    put("alignments/s1/bbal6n.align", "stub")
    put("s1/bbal7s.mpg", "grid.mpg")
    put("s1/holiday.mpg", "grid.mpg")
    put("alignments/s1/holiday.align", alignment("bbaf2n"))
    put("s1/bbal8p.mpg", "stub")
    put("alignments/s1/bbal8p.align", alignment("bbal8p"))
    put("s1/bbal9a.mpg", b"")
    put("alignments/s21/bbal9a.align", alignment("bbal9a"))
    put("s1/copy/bbaf2n.mpg", "grid.mpg")
    put("s1/._bbaf2n.mpg", b"x")
    put("__MACOSX/s1/bbaf2n.mpg", b"x")
    put("other_speakers/id2_vcd_swwp2s.mpg", "grid.mpg")
    found = grid(tmp_path)
    assert {c.group for c in found.clips} == {"s1/bbaf2n"}
    assert {d.item: d.reason for d in found.dropped} == {
        "s1/bbaf3s.mpg": "the alignment says 'bin blue at g three soon', the name 'bin blue at f three soon'",
        "s1/bbaf4p.mpg": "alignment line 2 is '1000 500 bin', expected START END WORD in order of time",
        "s1/bbaf5a.mpg": "the alignment says 'bin blue at f five', the name 'bin blue at f five again'",
        "s1/bbal6n.mpg": "alignment: a git-lfs stub, not the file itself; fetch it with: git lfs pull",
        "s1/bbal7s.mpg": "no alignment",
        "s1/holiday.mpg": "the file's name is no sentence of GRID's grammar",
        "s1/bbal8p.mpg": "a git-lfs stub, not the file itself; fetch it with: git lfs pull",
        "s1/bbal9a.mpg": "empty file",
        "alignments/s21/bbal9a.align": "no video",
        "s1/copy/bbaf2n.mpg": "the same recording as s1/bbaf2n.mpg",
        "other_speakers/id2_vcd_swwp2s.mpg": "no alignment",
    }


def test_deeper_folders_and_a_doubled_root_belong_to_their_speaker(put, tmp_path):
    put("GRID/s3/video/mpg_6000/bbaf2n.mpg", "grid.mpg")
    put("GRID/s3/align/bbaf2n.align", alignment("bbaf2n"))
    put("GRID/s3/guests/s5/bbaf3s.mpg", "grid.mpg")
    put("GRID/alignments/s5/bbaf3s.align", alignment("bbaf3s"))
    found = grid(tmp_path)
    assert {c.group for c in found.clips} == {"s3/bbaf2n", "s5/bbaf3s"}
    assert found.clips[0].video == "s3/video/mpg_6000/bbaf2n.mpg"
    assert ClipTable.from_clips(found.clips).digest() == ClipTable.from_clips(grid(tmp_path / "GRID").clips).digest()


NAMES = [
    f"{c}{k}a{x}{d}{a}"
    for c, k, x, d, a in zip(
        "blps" * 20, "bgrw" * 20, "abcdefghijklmnopqrst" * 4, "123456789z" * 8, "anps" * 20, strict=True
    )
][:20]


def test_sentences_split_by_their_hash_and_never_across_splits(put, tmp_path):
    plant(put, "s3", *NAMES)
    found = grid(tmp_path)
    of_group = {}
    for clip in found.clips:
        of_group.setdefault(clip.group, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in of_group.values())
    assert len({c.split for c in found.clips}) > 1
    assert found.options["split"] == "sentence"
    assert "split by the hash of the sentence (seed 0)" in found.notes[0]
    again, other = grid(tmp_path), grid(tmp_path, seed="1")
    assert [c.split for c in again.clips] == [c.split for c in found.clips]
    assert [c.split for c in other.clips] != [c.split for c in found.clips]


def test_the_usual_speakers_are_held_out_where_both_kinds_are_there(put, tmp_path):
    for speaker in ("s1", "s3", "s10", "s4", "s22"):
        plant(put, speaker, "bbaf2n")
    found = grid(tmp_path)
    splits = {c.speaker: c.split for c in found.clips}
    assert splits["s1"] == splits["s22"] == "test"
    assert Counter(splits[s] for s in ("s3", "s4", "s10")) == {"train": 2, "dev": 1}
    assert found.options["split"] == "speaker"
    assert "test s1 s22" in found.notes[0]
    assert list(dict.fromkeys(c.speaker for c in found.clips)) == ["s1", "s3", "s4", "s10", "s22"]
    assert grid(tmp_path, split="sentence").options["split"] == "sentence"


def test_splitting_by_speaker_needs_both_kinds(put, tmp_path):
    plant(put, "s1", "bbaf2n")
    with pytest.raises(
        UsageError,
        match=r"split=speaker needs one of s1 s2 s20 s22 for test and two others.*found s1; use split=sentence",
    ):
        grid(tmp_path, split="speaker")


def real_root() -> Path:
    root = Path(os.environ.get("BMLA_TEST_DATA", Path(__file__).parents[4] / "shared")) / "data" / "grid"
    if not root.is_dir():
        pytest.skip("needs the real GRID clips (BMLA_TEST_DATA)")
    return root


def test_the_real_clips_give_1800_words_and_drop_the_unaligned():
    found = grid(real_root())
    assert len(found.clips) == 1800
    assert Counter(d.reason for d in found.dropped) == {"no alignment": 10}
    assert {c.label for c in found.clips} == set(found.classes)
    counts = Counter(c.split for c in found.clips)
    assert np.allclose([counts[s] / 1800 for s in ("train", "dev", "test")], (0.7, 0.1, 0.2), atol=0.05)
    for clip in found.clips[::300]:
        assert read_frames(found.root / clip.video, clip.start_s, clip.end_s).present.all()
        assert np.abs(read_audio(found.root / clip.audio, clip.start_s, clip.end_s)).max() > 0.01
