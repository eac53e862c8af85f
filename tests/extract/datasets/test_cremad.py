"""CREMA-D: intended or perceived emotion, picture and sound from two files, split by actor."""

import numpy as np
import pytest

from bmla.extract.datasets.table import find
from bmla.extract.media import read_audio, read_frames
from bmla.store.clips import ClipTable
from bmla.store.errors import UsageError

cremad = find("cremad").adapter()

ANGRY, SILENT = "1001_DFA_ANG_XX", "1076_MTI_SAD_XX"


def plant(put, wav, *names, top="CREMA-D"):
    for name in names:
        put(f"{top}/VideoFlash/{name}.flv", "half.flv")
        put(f"{top}/AudioWAV/{name}.wav", wav(np.full(8320, 0.25)))


def test_a_recording_is_a_clip_of_both_files(put, wav, tmp_path):
    plant(put, wav, ANGRY, "1002_IEO_HAP_HI", "1003_WSI_NEU_X")
    found = cremad(tmp_path)
    assert found.dropped == found.incomplete == ()
    assert found.classes == ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    assert [(c.id, c.label, c.speaker) for c in found.clips] == [
        (ANGRY, "ANG", "1001"), ("1002_IEO_HAP_HI", "HAP", "1002"), ("1003_WSI_NEU_X", "NEU", "1003"),
    ]  # fmt: skip
    clip = found.clips[0]
    assert (clip.video, clip.audio) == (f"VideoFlash/{ANGRY}.flv", f"AudioWAV/{ANGRY}.wav")
    assert clip.end_s == pytest.approx(0.52, abs=0.03)
    frames = read_frames(found.root / clip.video, clip.start_s, clip.end_s)
    assert len(frames.images) == 13
    grey = frames.images.mean((1, 2, 3))
    assert (np.diff(grey[1:]) > 1).all()  # each frame is 3 brighter than the last
    sound = read_audio(found.root / clip.audio, *clip.sound_cut)
    assert sound[100:-400].mean() == pytest.approx(0.25, abs=0.01)  # of the wav, not of the flv
    ClipTable.from_clips(found.clips)


def test_a_clip_ends_with_its_sound_where_that_is_much_shorter(put, wav, tmp_path):
    plant(put, wav, ANGRY)
    put(f"CREMA-D/AudioWAV/{ANGRY}.wav", wav(np.full(3200, 0.1)))
    assert cremad(tmp_path).clips[0].end_s == 0.2


def test_each_broken_item_has_its_reason(put, wav, tmp_path):
    names = [f"10{k:02}_IEO_SAD_LO" for k in range(1, 7)]
    plant(put, wav, *names, SILENT)
    base = tmp_path / "CREMA-D"
    put(f"CREMA-D/VideoFlash/{names[0]}.flv", "stub")
    (base / f"VideoFlash/{names[1]}.flv").unlink()
    put(f"CREMA-D/AudioWAV/{names[2]}.wav", b"")
    put(f"CREMA-D/VideoFlash/{names[3]}.flv", b"no video, only words " * 100)
    put(f"CREMA-D/VideoFlash/{names[4]}.flv", b"")
    (base / f"AudioWAV/{names[4]}.wav").unlink()
    put(f"CREMA-D/VideoFlash/{names[5]}.flv", "silent.mp4")
    for odd in (
        "1001_XYZ_SAD_LO.flv",
        "1092_IEO_SAD_LO.flv",
        "1001_IEO_SAD_LO.txt",
        "._1001_IEO_SAD_LO.flv",
        ".DS_Store",
    ):
        put(f"CREMA-D/VideoFlash/{odd}", b"x")
    found = cremad(tmp_path)
    assert {d.item: d.reason for d in found.dropped} == {
        "VideoFlash/1001_IEO_SAD_LO.txt": "is not named like 1001_DFA_ANG_XX.flv",
        "VideoFlash/1001_XYZ_SAD_LO.flv": "is not named like 1001_DFA_ANG_XX.flv",
        "VideoFlash/1092_IEO_SAD_LO.flv": "is not named like 1001_DFA_ANG_XX.flv",
        names[4]: "no picture: empty file; no sound: missing",
    }
    reasons = {i.clip: i.reason for i in found.incomplete}
    assert reasons.pop(names[3]).startswith(f"no picture: {names[3]}.flv: no media can be read")
    assert reasons == {
        names[0]: "no picture: a git-lfs stub, not the file itself; fetch it with: git lfs pull",
        names[1]: "no picture: missing",
        names[2]: "no sound: empty file",
        SILENT: "no sound: this recording is known to be silent",
    }
    by_id = {c.id: c for c in found.clips}
    assert by_id[SILENT].audio is None
    assert by_id[names[0]].video is None
    assert by_id[names[0]].end_s == pytest.approx(0.52)


def test_without_wavs_the_sound_of_the_videos_is_used(put, tmp_path):
    put(f"VideoFlash/{ANGRY}.flv", "half.flv")
    found = cremad(tmp_path)
    assert found.clips[0].audio == found.clips[0].video
    assert "no AudioWAV/: the sound of the .flv files is used" in found.notes
    assert len(read_audio(tmp_path / found.clips[0].audio, *found.clips[0].sound_cut))


TABLE = """"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"
"1","1001_DFA_ANG_XX","N","80","A","75","A:D","50:60"
"2","1002_IEO_HAP_HI","H","70","H","70","H","70"
"3","1003_IEO_SAD_LO","S","70","Q","70","S","70"
"""


@pytest.mark.parametrize(
    ("label", "expected", "reasons"),
    [
        ("voice", ["NEU", "HAP", "SAD"], []),
        ("face", ["ANG", "HAP"], ["unknown vote 'Q'"]),
        ("both", ["HAP", "SAD"], ["the raters do not agree: A:D"]),
    ],
)
def test_perceived_labels_leave_ties_out(put, wav, tmp_path, label, expected, reasons):
    plant(put, wav, ANGRY, "1002_IEO_HAP_HI", "1003_IEO_SAD_LO", "1004_IEO_SAD_LO")
    with pytest.raises(UsageError, match=r"processedResults/summaryTable.csv: missing; or use label=intended"):
        cremad(tmp_path, label=label)
    put("CREMA-D/processedResults/summaryTable.csv", TABLE.encode())
    found = cremad(tmp_path, label=label)
    assert [c.label for c in found.clips] == expected
    assert [d.reason for d in found.dropped] == [*reasons, "not in processedResults/summaryTable.csv"]
    put("CREMA-D/processedResults/summaryTable.csv", b"File,Vote\n")
    with pytest.raises(UsageError, match=r"no columns FileName and .*Vote: File, Vote"):
        cremad(tmp_path, label=label)


def test_no_actor_is_in_two_splits_whatever_is_there(put, wav, tmp_path):
    names = [f"{actor}_IEO_{label}_LO" for actor in range(1001, 1031) for label in ("SAD", "ANG")]
    for name in names:
        put(f"AudioWAV/{name}.wav", wav(np.full(800, 0.1)))
    whole = {c.id: c.split for c in cremad(tmp_path).clips}
    assert len({(i[:4], split) for i, split in whole.items()}) == 30
    assert set(whole.values()) == {"train", "dev", "test"}
    for name in names[:20]:
        (tmp_path / f"AudioWAV/{name}.wav").unlink()
    assert {c.id: c.split for c in cremad(tmp_path).clips}.items() <= whole.items()
    assert {c.id: c.split for c in cremad(tmp_path, seed=1).clips} != {
        c.id: whole[c.id] for c in cremad(tmp_path).clips
    }


def test_a_doubled_folder_is_seen_through_and_extraction_works(put, wav, tmp_path, extracted):
    put(f"CREMA-D/VideoFlash/VideoFlash/{ANGRY}.flv", "half.flv")
    put(f"CREMA-D/AudioWAV/AudioWAV/{ANGRY}.wav", wav(np.sin(np.arange(8320) / 5) / 2))
    store = extracted("cremad", tmp_path, tmp_path / "s.zarr", "--option", "seed=4")
    assert [f for e in store.entries("audio.logspec") for f in e.failures] == []
    assert store.clips[0].audio == f"AudioWAV/AudioWAV/{ANGRY}.wav"
