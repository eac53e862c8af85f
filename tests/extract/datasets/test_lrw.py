"""LRW's layout: what is a clip, what is left out and why."""

import time

import pytest

from bmla.extract.datasets.table import find
from bmla.extract.media import read_audio, read_frames
from bmla.store.clips import ClipTable
from bmla.store.errors import UsageError

lrw = find("lrw").adapter()

TEXT = b"Disk reference: 6245395697430738233\nChannel: 1\nProgramme start: 0\nClip start: 0.1\nDuration: 0.27 seconds\n"


def plant(put, top="lipread_mp4"):
    """Two words, three splits, numbering that restarts in each."""
    for word in ("ABOUT", "WOMEN"):
        for split, count in (("train", 2), ("val", 1), ("test", 1)):
            for n in range(1, count + 1):
                put(f"{top}/{word}/{split}/{word}_{n:05}.mp4", "lrw.mp4")
                put(f"{top}/{word}/{split}/{word}_{n:05}.txt", TEXT)


def test_a_clip_is_29_frames_with_its_word_in_the_middle(put, tmp_path):
    plant(put)
    found = lrw(tmp_path)
    assert [c.id for c in found.clips] == [
        "train/ABOUT_00001", "train/ABOUT_00002", "train/WOMEN_00001", "train/WOMEN_00002",
        "val/ABOUT_00001", "val/WOMEN_00001", "test/ABOUT_00001", "test/WOMEN_00001",
    ]  # fmt: skip
    assert [c.split for c in found.clips] == ["train"] * 4 + ["dev"] * 2 + ["test"] * 2
    assert found.classes == ("ABOUT", "WOMEN")
    assert found.dropped == ()
    clip = found.clips[4]
    assert (clip.label, clip.start_s, clip.end_s) == ("ABOUT", 0.0, 1.16)
    assert clip.video == clip.audio == "ABOUT/val/ABOUT_00001.mp4"
    assert clip.group == clip.id
    assert clip.speaker is None
    assert clip.word_start_s == pytest.approx(14.5 / 25 - 0.135)
    assert clip.word_end_s == pytest.approx(14.5 / 25 + 0.135)
    assert read_frames(found.root / clip.video, clip.start_s, clip.end_s).images.shape[0] == 29
    assert read_audio(found.root / clip.audio, clip.start_s, clip.end_s).shape == (18_560,)
    assert any("speaker" in note for note in found.notes)
    ClipTable.from_clips(found.clips)


def test_the_list_is_the_same_from_the_folder_its_parent_and_a_doubled_one(put, tmp_path):
    plant(put, "a/lrw_mp4/lrw_mp4")
    tables = [
        ClipTable.from_clips(lrw(root).clips).digest()
        for root in (tmp_path / "a/lrw_mp4/lrw_mp4", tmp_path / "a/lrw_mp4", tmp_path / "a")
    ]
    assert len(set(tables)) == 1


def test_litter_and_derived_files_are_no_clips(put, tmp_path):
    plant(put)
    for name in (
        "__MACOSX/ABOUT/train/ABOUT_00009.mp4",
        "ABOUT/train/._ABOUT_00001.mp4",
        "ABOUT/train/.DS_Store",
        "ABOUT/train/ABOUT_00001_mouth.npz",
    ):
        put(f"lipread_mp4/{name}", b"x")
    found = lrw(tmp_path)
    assert len(found.clips) == 8
    assert found.dropped == ()


def test_each_item_that_is_left_out_is_counted_with_its_reason(put, tmp_path, media):

    plant(put)
    put("lipread_mp4/ABOUT/train/ABOUT_00003.mp4", "stub")
    put("lipread_mp4/ABOUT/train/ABOUT_00004.mp4", b"")
    put("lipread_mp4/ABOUT/train/ABOUT_5.mp4", "lrw.mp4")
    put("lipread_mp4/ABOUT/train/WOMEN_00001.mp4", "lrw.mp4")
    put("lipread_mp4/about/train/about_00001.mp4", "lrw.mp4")
    put("lipread_mp4/ABOUT/extra/ABOUT_00001.mp4", "lrw.mp4")
    reasons = {d.item: d.reason for d in lrw(tmp_path).dropped}
    assert reasons == {
        "about": "the folder's name is no word of 5 to 12 capital letters",
        "ABOUT/train/ABOUT_00003.mp4": "a git-lfs stub, not the file itself; fetch it with: git lfs pull",
        "ABOUT/train/ABOUT_00004.mp4": "empty file",
        "ABOUT/train/ABOUT_5.mp4": "the file's name is not ABOUT_ and five digits",
        "ABOUT/train/WOMEN_00001.mp4": "the file's name is not ABOUT_ and five digits",
        "ABOUT/extra": "neither train, val nor test",
    }


@pytest.mark.parametrize(
    ("text", "length_s"),
    [
        (TEXT, 0.27),
        (TEXT.replace(b"\n", b"\r\n"), 0.27),
        (b"Duration:0.5\n", 0.5),
        (b"Disk reference: 1\nDuration: 3.0 seconds\n", 1.16),
        (b"Disk reference: 1\n", None),
        (b"Duration: unknown\n", None),
        (b"Duration: 0.0 seconds\n", None),
        (None, None),
    ],
)
def test_the_word_boundary_comes_from_the_duration_line_wherever_it_stands(put, tmp_path, text, length_s):
    put("ABOUT/train/ABOUT_00001.mp4", "lrw.mp4")
    if text is not None:
        put("ABOUT/train/ABOUT_00001.txt", text)
    found = lrw(tmp_path)
    clip = found.clips[0]
    if length_s is None:
        assert clip.word_start_s is clip.word_end_s is None
        assert "1 clips without a readable .txt: the word's place in them is unknown" in found.notes
    else:
        assert clip.word_end_s - clip.word_start_s == pytest.approx(length_s)
        assert 0 <= clip.word_start_s < clip.word_end_s <= 1.16


def test_without_word_boundary_no_text_is_read(put, tmp_path):
    plant(put)
    found = lrw(tmp_path, word_boundary="false")
    assert found.options == {"word_boundary": False}
    assert {c.word_start_s for c in found.clips} == {None}
    assert not any(".txt" in note for note in found.notes)


def test_missing_splits_empty_words_and_the_known_twins_are_noted(put, tmp_path):
    for n in (11, 14):
        put(f"WOMEN/test/WOMEN_{n:05}.mp4", "lrw.mp4")
    (tmp_path / "ABOUT" / "test").mkdir(parents=True)
    notes = lrw(tmp_path).notes
    assert "no clip in the train split" in notes
    assert "no clip in the dev split" in notes
    assert "1 words without any clip, such as ABOUT" in notes
    assert any("WOMEN_00011 and test/WOMEN_00014 are the same clip" in note for note in notes)


def test_the_demo_reads_the_same_layout_and_says_that_it_is_generated(put, tmp_path):
    plant(put)
    found = find("demo").adapter()(tmp_path)
    assert found.name == "demo"
    assert len(found.clips) == 8
    assert "GENERATED" in found.notes[0]


def test_listing_takes_well_under_a_millisecond_a_clip(tmp_path, media):
    folder = tmp_path / "ABOUT" / "train"
    folder.mkdir(parents=True)
    for n in range(1500):
        (folder / f"ABOUT_{n:05}.mp4").write_bytes(b"0" * 2000)
        (folder / f"ABOUT_{n:05}.txt").write_bytes(TEXT)
    began = time.perf_counter()
    assert len(lrw(tmp_path).clips) == 1500
    assert (time.perf_counter() - began) / 1500 < 5e-4


def test_a_root_without_words_is_a_usage_error(put, tmp_path):
    put("ABC/train/ABC_00001.mp4", "lrw.mp4")
    with pytest.raises(
        UsageError, match=r"lrw: nothing recognised in .*expected word folders such as ABOUT/.*found ABC/"
    ):
        lrw(tmp_path)
