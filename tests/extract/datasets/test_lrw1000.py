"""LRW-1000: pictures by exact frame numbers, sound with its own origin, labels in the order of trn."""

from decimal import Decimal

import numpy as np
import pytest

from bmla.extract.datasets.table import find
from bmla.extract.media import read_audio, read_frames
from bmla.store.clips import ClipTable

lrw1000 = find("lrw1000").adapter()

TOP = "LRW1000_Public"
RATE_HZ = 16_000


def plant(put, jpg, wav, images="images", top=TOP, frames=range(1, 61)):
    """Folder 3f2ae1 whose picture n is grey 4 n; two words in trn, one each in val and tst, which stop by stop differ in decimals."""
    for n in frames:
        put(f"{top}/{images}/3f2ae1/{n}.jpg", jpg(4 * n))
    for n in range(1, 11):
        put(f"{top}/{images}/77/{n}.jpg", jpg(4 * n))
        put(f"{top}/{images}/88/{n}.jpg", jpg(4 * n))
    put(f"{top}/info/trn_1000.txt", "3f2ae1,美国,mei guo,1.23,1.61\n3f2ae1,中国,zhong guo,1.5,2\n".encode())
    put(f"{top}/info/val_1000.txt", "77,美国,mei guo,0.2,0.4\n".encode())
    put(f"{top}/info/tst_1000.txt", "88,中国,zhong guo,0.00,0.3\n".encode())
    joined = (
        "3f2ae1,w1,美国,mei guo,1.230,1.61",
        "3f2ae1,w2,中国,zhong guo,1.50,2.00",
        "77,w3,美国,mei guo,0.20,0.40",
        "88,w4,中国,zhong guo,0,0.30",
    )
    put(f"{top}/info/all_audio_video.txt", "\n".join(joined).encode())
    for name, length_s in (("w1", 0.38), ("w2", 0.5), ("w3", 0.2), ("w4", 0.3)):
        put(f"{top}/audio/{name}.wav", wav(click(0.2, length_s + 0.4)))


def click(at_s, length_s):
    """Silence with a short burst from `at_s`: the word's first 5 ms."""
    samples = np.zeros(round(length_s * RATE_HZ))
    samples[round(at_s * RATE_HZ) :][:80] = 0.5
    return samples


def test_a_word_is_its_frames_and_its_own_sound_file(put, jpg, wav, tmp_path):
    plant(put, jpg, wav)
    found = lrw1000(tmp_path)
    assert found.dropped == found.incomplete == ()
    assert found.classes == ("mei guo", "zhong guo")
    assert [c.split for c in found.clips] == ["train", "train", "dev", "test"]
    first = found.clips[0]
    assert first.id == "trn/3f2ae1/1.23-1.61-mei_guo"
    assert (first.label, first.text, first.group) == ("mei guo", "美国", "3f2ae1")
    assert (first.video, first.audio, first.fps) == ("images/3f2ae1", "audio/w1.wav", 25.0)
    # int(1.23 * 25) + 1 = 31 up to, not with, int(1.61 * 25) + 1 = 41
    frames = read_frames(found.root / first.video, first.start_s, first.end_s, fps=first.fps)
    assert frames.present.all()
    assert np.round(frames.images.mean((1, 2, 3)) / 4).astype(int).tolist() == list(range(31, 41))
    assert first.word_start_s == pytest.approx(1.23 - 1.20)
    assert first.word_end_s == pytest.approx(0.4)
    ClipTable.from_clips(found.clips)


def test_the_sound_is_cut_where_the_frames_are(put, jpg, wav, tmp_path):
    plant(put, jpg, wav)
    for clip in lrw1000(tmp_path).clips:
        sound = read_audio(tmp_path / TOP / clip.audio, *clip.sound_cut)
        assert len(sound) == round(clip.duration_s * RATE_HZ)
        onset_s = np.flatnonzero(np.abs(sound) > 0.2)[0] / RATE_HZ
        assert onset_s == pytest.approx(clip.word_start_s, abs=1e-3)  # the burst marks the word's start in the file


def test_another_lead_moves_the_sound(put, jpg, wav, tmp_path):
    plant(put, jpg, wav)
    a, b = (lrw1000(tmp_path, audio_lead_s=lead).clips[0] for lead in (0.2, 0.3))
    assert b.sound_cut[0] - a.sound_cut[0] == pytest.approx(0.1)
    assert (a.start_s, a.end_s) == (b.start_s, b.end_s)


def test_frames_are_counted_in_exact_decimals(put, jpg, wav, tmp_path):
    plant(put, jpg, wav)
    put(f"{TOP}/info/trn_1000.txt", "3f2ae1,美国,mei guo,1.16,1.64\n3f2ae1,中国,zhong guo,0.1,0.9\n".encode())
    clip = lrw1000(tmp_path).clips[0]
    assert 1.16 * 25 < 29  # what floats say
    assert (clip.start_s, clip.end_s) == (29 / 25, 41 / 25)


@pytest.mark.parametrize("top", [TOP, f"{TOP}/{TOP}", "a/b"])
def test_parents_nesting_and_the_newer_name_of_the_pictures(put, jpg, wav, tmp_path, top):
    plant(put, jpg, wav, images="lip_images/lip_images", top=top)
    put(f"{top}/lip_images/lip_images/3f2ae1/._31.jpg", b"litter")
    found = lrw1000(tmp_path)
    assert len(found.clips) == 4
    assert found.incomplete == ()
    assert found.clips[0].video == "lip_images/lip_images/3f2ae1"


def test_a_folder_that_begins_late_keeps_the_timeline(put, jpg, wav, tmp_path):
    plant(put, jpg, wav, frames=range(11, 61))
    clip = lrw1000(tmp_path).clips[0]
    frames = read_frames(tmp_path / TOP / clip.video, clip.start_s, clip.end_s, fps=clip.fps)
    assert np.round(frames.images.mean((1, 2, 3)) / 4).astype(int).tolist() == list(range(31, 41))
    sound = read_audio(tmp_path / TOP / clip.audio, *clip.sound_cut)
    assert np.flatnonzero(np.abs(sound) > 0.2)[0] / RATE_HZ == pytest.approx(clip.word_start_s, abs=1e-3)


def test_times_finer_than_the_join_are_rounded_alike_in_both_files(put, jpg, wav, tmp_path):
    assert f"{0.265:.2f}" != f"{Decimal('0.265'):.2f}"  # in floats and in decimals otherwise
    plant(put, jpg, wav)
    put(f"{TOP}/info/val_1000.txt", "77,美国,mei guo,0.2,0.265\n".encode())
    with (tmp_path / TOP / "info/all_audio_video.txt").open("ab") as file:
        file.write("\n77,w3,美国,mei guo,0.20,0.265".encode())
    assert [c.audio for c in lrw1000(tmp_path).clips if c.split == "dev"] == ["audio/w3.wav"]


def test_broken_lines_and_missing_files_are_told_apart(put, jpg, wav, tmp_path):
    plant(put, jpg, wav)
    lines = (
        "3f2ae1,美国,mei guo,1.23,1.61",
        "3f2ae1,美国,mei guo,1.230,1.610",  # 2: a repeated row
        "3f2ae1,美国,mei guo,1.5,1.50",  # 3
        "3f2ae1,美国,mei guo,1.21,1.23",  # 4
        "gone,美国,mei guo,0.1,0.4",  # 5: neither pictures nor sound
        "3f2ae1,美国,mei guo,1.23",  # 6
        "3f2ae1,美国,mei guo,1.23,later",  # 7
        "../../etc,美国,mei guo,1.23,1.61",  # 8
        "3f2ae1,中国,zhong guo,1.5,2",
        "3f2ae1,中国,zhong guo,2.5,2.7",  # sound only: frames 63.. are not there
        "77,中国,zhong guo,0.04,0.2",  # pictures only: no wav
        "88,中国,zhong guo,0.04,0.2",  # pictures only: an empty wav
        "88,中国,zhong guo,0.08,0.2",  # pictures only: not in the join
        "late,中国,zhong guo,0.08,0.2",  # sound only: 3.jpg is missing
    )
    put(f"{TOP}/info/trn_1000.txt", "\r\n".join(lines).encode())
    for n in (1, 2, 4, 5):
        put(f"{TOP}/images/late/{n}.jpg", jpg(9))
    joined = (
        "3f2ae1,w1,美国,mei guo,1.23,1.61",
        "3f2ae1,w1b,美国,mei guo,1.23,1.61",
        "3f2ae1,w2,中国,zhong guo,1.50,2.00",
        "3f2ae1,w2,中国,zhong guo,2.5,2.7",
        "77,none,中国,zhong guo,0.04,0.2",
        "88,empty,中国,zhong guo,0.04,0.2",
        "late,w4,中国,zhong guo,0.08,0.2",
        "77,../../../etc/passwd,美国,mei guo,0.20,0.40",
        "88,w4,中国,zhong guo,0,0.30",
    )
    put(f"{TOP}/info/all_audio_video.txt", "\n".join(joined).encode())
    put(f"{TOP}/audio/empty.wav", b"")
    put(f"{TOP}/info/tst_1000.txt", "88,中国,zhong guo,0.00,0.3\n88,日本,ri ben,0.0,0.3\n".encode())
    found = lrw1000(tmp_path)
    reasons = {d.item: d.reason for d in found.dropped}
    trn = "info/trn_1000.txt line"
    assert reasons[f"{trn} 2"] == "the same word as trn/3f2ae1/1.23-1.61-mei_guo"
    assert reasons[f"{trn} 3"] == "ends at 1.50 s, not after its start at 1.5 s"
    assert reasons[f"{trn} 4"] == "no frame: 1.21 to 1.23 s lies within one frame"
    assert reasons[f"{trn} 5"] == "no picture: its folder is missing or empty; no sound: not in all_audio_video.txt"
    assert reasons[f"{trn} 6"].startswith("is not 5 fields that end in start,end: '3f2ae1")
    assert reasons[f"{trn} 7"].startswith("is not 5 fields that end in start,end")
    assert reasons[f"{trn} 8"].startswith("a name leads out of its folder: '../../etc")
    assert reasons["info/all_audio_video.txt line 2"] == "a second sound file for a word; w1.wav is used"
    assert reasons["info/all_audio_video.txt line 8"].startswith("a name leads out of its folder")
    assert reasons["info/tst_1000.txt line 2"] == "the label 'ri ben' is not in trn_1000.txt"
    assert len(reasons) == 10
    assert {i.clip: i.reason for i in found.incomplete} == {
        "trn/3f2ae1/2.50-2.70-zhong_guo": "no picture: 63.jpg to 67.jpg are missing",
        "trn/77/0.04-0.20-zhong_guo": "no sound: none.wav is missing",
        "trn/88/0.04-0.20-zhong_guo": "no sound: empty.wav: empty file",
        "trn/88/0.08-0.20-zhong_guo": "no sound: not in all_audio_video.txt",
        "trn/late/0.08-0.20-zhong_guo": "no picture: the first, 3.jpg, is missing",
        "val/77/0.20-0.40-mei_guo": "no sound: not in all_audio_video.txt",
    }
    by_id = {c.id: c for c in found.clips}
    assert by_id["trn/late/0.08-0.20-zhong_guo"].video is None
    assert by_id["trn/88/0.04-0.20-zhong_guo"].audio is None
    assert "6 clips lack picture or sound, such as trn/3f2ae1/2.50-2.70-zhong_guo" in found.notes
    assert by_id["trn/77/0.04-0.20-zhong_guo"].group == "77 (train)"  # 77 is in val too
    assert any(note.startswith("2 folders of pictures are in more than one split, such as 77") for note in found.notes)


def test_stubs_in_place_of_pictures_and_label_files(put, jpg, wav, tmp_path):
    plant(put, jpg, wav)
    put(f"{TOP}/images/3f2ae1/31.jpg", "stub")
    put(f"{TOP}/info/val_1000.txt", "stub")
    found = lrw1000(tmp_path)
    assert found.incomplete[0].reason.startswith("no picture: 31.jpg: a git-lfs stub")
    assert found.dropped[0].item == "info/val_1000.txt"
    assert found.dropped[0].reason.startswith("a git-lfs stub")
    assert "no clip in the dev split" in found.notes


def test_extraction_reads_both_from_a_root_above(put, jpg, wav, tmp_path, extracted):
    plant(put, jpg, wav)
    store = extracted("lrw1000", tmp_path, tmp_path / "s.zarr", "--option", "audio_lead_s=0.25")
    assert [f for e in store.entries("audio.logspec") for f in e.failures] == []
    assert store.clips[0].audio_offset_s == pytest.approx(1.23 - 0.25)
