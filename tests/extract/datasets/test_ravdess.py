"""RAVDESS: everything stands in the file's name; modality 01 alone, by channel, split by actor."""

import numpy as np
import pytest

from bmla.extract.datasets.table import find
from bmla.extract.media import read_audio, read_frames
from bmla.store.clips import ClipTable

ravdess = find("ravdess").adapter()


def plant(put, *names, top="RAVDESS/"):
    for name in names:
        put(f"{top}Actor_{name[-2:]}/{name}.mp4", "half.mp4")


def test_the_name_is_the_label(put, tmp_path):
    emotions = [f"01-01-{e:02}-01-02-01-01" for e in range(1, 9)]
    plant(put, *emotions)
    found = ravdess(tmp_path)
    assert found.classes == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    assert [(c.id, c.label) for c in found.clips] == list(zip(emotions, found.classes, strict=True))
    clip = found.clips[5]
    assert (clip.speaker, clip.text) == ("01", "dogs are sitting by the door")
    assert clip.video == clip.audio == "Actor_01/01-01-06-01-02-01-01.mp4"
    assert (clip.start_s, clip.end_s) == (0, pytest.approx(0.52))
    frames = read_frames(found.root / clip.video, clip.start_s, clip.end_s)
    assert frames.present.all()
    assert (np.diff(frames.images.mean((1, 2, 3))) > 1).all()
    assert len(read_audio(found.root / clip.audio, *clip.sound_cut)) == 8320
    ClipTable.from_clips(found.clips)


@pytest.mark.parametrize(
    ("channel", "ids", "classes"),
    [
        ("speech", ["01-01-01-01-01-01-02"], 8),
        ("song", ["01-02-06-01-01-01-02"], 6),
        ("both", ["01-01-01-01-01-01-02", "01-02-06-01-01-01-02"], 8),
    ],
)
def test_speech_song_or_both(put, tmp_path, channel, ids, classes):
    plant(put, "01-01-01-01-01-01-02", "01-02-06-01-01-01-02", "01-02-07-01-01-01-02")
    found = ravdess(tmp_path, channel=channel)
    assert [c.id for c in found.clips] == ids
    assert len(found.classes) == classes
    assert len(found.clips) + len(found.dropped) == 3
    if channel != "speech":
        assert found.dropped[-1].reason == "there is no song with this emotion"


def test_each_item_that_is_left_out_has_its_reason(put, tmp_path):
    good = "01-01-05-02-01-02-07"
    plant(put, good, "02-01-05-02-01-02-07", "01-01-09-01-01-01-07", "01-01-05-01-01-01-25")
    plant(put, good, top="RAVDESS/Video_Speech_Actor_07/")
    put("RAVDESS/Actor_07/01-01-02-01-01-01-07.mp4", "stub")
    put("RAVDESS/Actor_07/01-01-03-01-01-01-07.mp4", b"")
    put("RAVDESS/Actor_07/01-01-04-01-01-01-07.mp4", b"no video, only words " * 100)
    put("RAVDESS/Actor_07/01-01-06-01-01-01-07.mp4", "silent.mp4")
    for litter in ("._01-01-05-02-01-02-07.mp4", ".DS_Store", "notes.txt"):
        put(f"RAVDESS/Actor_07/{litter}", b"x")
    put("RAVDESS/__MACOSX/Actor_07/01-01-05-02-01-02-07.mp4", b"x")
    found = ravdess(tmp_path)
    reasons = {d.item: d.reason for d in found.dropped}
    assert reasons.pop("Actor_07/01-01-04-01-01-01-07.mp4").startswith("01-01-04-01-01-01-07.mp4: no media can be read")
    named = "is not named like 01-01-06-01-02-01-01.mp4"
    assert reasons == {
        "Actor_07/02-01-05-02-01-02-07.mp4": "modality 02: the picture alone, of a recording of modality 01",
        "Actor_07/01-01-09-01-01-01-07.mp4": named,
        "Actor_25/01-01-05-01-01-01-25.mp4": named,
        "Video_Speech_Actor_07/Actor_07/01-01-05-02-01-02-07.mp4": f"the same recording as Actor_07/{good}.mp4",
        "Actor_07/01-01-02-01-01-01-07.mp4": "a git-lfs stub, not the file itself; fetch it with: git lfs pull",
        "Actor_07/01-01-03-01-01-01-07.mp4": "empty file",
    }
    assert [c.id for c in found.clips] == [good, "01-01-06-01-01-01-07"]
    assert found.clips[1].audio is None
    assert [(i.clip, i.reason) for i in found.incomplete] == [("01-01-06-01-01-01-07", "no audio stream in it")]


def test_splits_hold_whole_actors_of_both_sexes(put, tmp_path):
    plant(put, *[f"01-01-0{e}-01-01-01-{actor:02}" for actor in range(1, 25) for e in (1, 2)])
    found = ravdess(tmp_path)
    actors = {s: {int(c.speaker) for c in found.clips if c.split == s} for s in ("train", "dev", "test")}
    assert {s: len(a) for s, a in actors.items()} == {"train": 18, "dev": 2, "test": 4}
    assert all(sum(a % 2 for a in group) == len(group) / 2 for group in actors.values())
    assert [c.split for c in ravdess(tmp_path, seed=5).clips] != [c.split for c in found.clips]


@pytest.mark.parametrize("top", ["", "RAVDESS/RAVDESS/", "Video_Speech_Actor_03/", "x/Video_Song_Actor_03/"])
def test_as_unpacked_in_any_way_and_extracted(put, tmp_path, top, extracted):
    plant(put, "01-01-01-01-01-01-03", top=top)
    assert len(ravdess(tmp_path).clips) == 1
    if top == "":
        store = extracted("ravdess", tmp_path, tmp_path / "s.zarr", "--option", "channel=both")
        assert [f for e in store.entries("audio.logspec") for f in e.failures] == []
