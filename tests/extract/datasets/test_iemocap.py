"""IEMOCAP: turns out of evaluations, the speaker's own half of the picture, and sound from the turn's own file."""

import numpy as np
import pytest

from bmla.extract.datasets.iemocap import WITHOUT_VIDEO
from bmla.extract.datasets.table import find
from bmla.extract.media import read_audio, read_frames
from bmla.store.clips import ClipTable

iemocap = find("iemocap").adapter()

TOP = "IEMOCAP_full_release"
RATE_HZ = 16_000


def line(turn, emotion, start_s=0.4, end_s=0.8):
    return f"[{start_s:.4f} - {end_s:.4f}]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]"


def evaluation(*lines):
    """A file as distributed: a head, and under each summary the raters' own lines."""
    raters = "C-E2:\tNeutral;\t()\nC-F1:\tHappiness;\t(caf\xe9)\nA-E3:\tval 3; act 2; dom  2;\t()\n"
    body = "\n\n".join(f"{text}\n{raters}" for text in lines)
    return f"% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n{body}".encode("latin-1")


def plant(put, wav, dialogs, top=TOP, nest=""):
    """dialogs: name -> lines. Each turn's wav holds its own constant level, 0.4 s of it."""
    for dialog, lines in dialogs.items():
        session = f"{top}/Session{dialog[4]}{nest.format(dialog[4])}"
        put(f"{session}/dialog/EmoEvaluation/{dialog}.txt", evaluation(*lines))
        put(f"{session}/dialog/avi/DivX/{dialog}.avi", "halves.avi")
        for k, text in enumerate(lines):
            if "\t" in text:
                put(f"{session}/sentences/wav/{dialog}/{text.split(chr(9))[1]}.wav", wav(tone(k)))


def tone(k):
    """0.4 s that begin with 50 ms of silence: to see where the cut begins."""
    t = np.arange(round(0.4 * RATE_HZ)) / RATE_HZ
    return np.where(t < 0.05, 0, 0.5 * np.sin(2 * np.pi * (300 + 50 * k) * t))


def both(session, wearer):
    dialog = f"Ses0{session}{wearer}_impro01"
    return dialog, [line(f"{dialog}_F000", "hap"), line(f"{dialog}_M000", "neu", 0.9, 1.3)]


@pytest.mark.parametrize("wearer", ["F", "M"])
def test_the_marker_wearer_is_on_the_left_and_the_speaker_is_who_speaks(put, wav, tmp_path, halves, wearer):
    plant(put, wav, dict([both(1, wearer)]))
    female, male = iemocap(tmp_path).clips
    assert (female.id, female.speaker, male.speaker) == (f"Ses01{wearer}_impro01_F000", "Ses01F", "Ses01M")
    assert female.group == male.group == f"Ses01{wearer}_impro01"
    left, right = halves
    for clip, speaks, first in ((female, "F", 10), (male, "M", 22)):
        frames = read_frames(tmp_path / TOP / clip.video, clip.start_s, clip.end_s, crop=clip.crop)
        assert frames.images.shape == (10, 48, 40, 3)
        expected = (left if speaks == wearer else right) + first
        assert frames.images[0].mean() == pytest.approx(expected, abs=3)
        assert frames.images[:, :, 4:-4].std((1, 2, 3)).max() < 3  # nothing of the other half


def test_the_sound_is_the_turns_own_file_from_its_start(put, wav, tmp_path):
    plant(put, wav, dict([both(1, "F")]))
    for clip in iemocap(tmp_path).clips:
        assert clip.audio == f"Session1/sentences/wav/Ses01F_impro01/{clip.id}.wav"
        sound = read_audio(tmp_path / TOP / clip.audio, *clip.sound_cut)
        assert len(sound) == 6400
        assert np.flatnonzero(np.abs(sound) > 0.05)[0] / RATE_HZ == pytest.approx(0.05, abs=2e-3)


def test_summary_lines_alone_count_and_each_fault_has_its_reason(put, wav, tmp_path):
    dialog = "Ses03F_impro06"
    lines = [
        line(f"{dialog}_M001", "exc", 0.8, 1.2),
        line(f"{dialog}_F000", "ang"),
        line(f"{dialog}_FXX1", "sad"),
        line(f"{dialog}_M002", "xxx"),
        line(f"{dialog}_M003", "neu", 0.8, 0.8),
        line("Ses03F_impro07_M004", "neu"),
        f"[0.4 - 0.5]\t{dialog}_M005",
        line(f"{dialog}_F000", "neu"),
        line("../../Ses03F_impro06_M006", "neu").replace("..", "__"),
        line("../x_M006", "neu").replace("Ses", "").replace("x_", "/x_"),
    ]
    plant(put, wav, {dialog: lines[:4]})
    lines[1] += "\tand what a hand has added"
    put(f"{TOP}/Session3/dialog/EmoEvaluation/{dialog}.txt", evaluation(*lines))
    put(
        f"{TOP}/Session3/dialog/EmoEvaluation/Self-evaluation/{dialog}_f.txt", evaluation(line(f"{dialog}_F009", "ang"))
    )
    put(f"{TOP}/Session3/dialog/EmoEvaluation/._{dialog}.txt", b"litter")
    put(f"{TOP}/Session3/dialog/EmoEvaluation/Ses03F_impro08.txt", "stub")
    text = f"{dialog}_F000 [000.4000-000.8000]: Well, caf\xe9.\n{dialog}_M001 [000.8000-001.2000]: No.\n"
    put(f"{TOP}/Session3/dialog/transcriptions/{dialog}.txt", text.encode("latin-1"))
    found = iemocap(tmp_path)
    assert [(c.id[15:], c.label, c.text) for c in found.clips] == [
        ("F000", "ang", "Well, caf\xe9."), ("FXX1", "sad", None), ("M001", "hap", "No."),
    ]  # fmt: skip
    reasons = [(d.item.removeprefix(dialog), d.reason) for d in found.dropped]
    assert ("_M002", "xxx is none of the 4 classes") in reasons
    assert ("_M003", "ends at 0.8000 s, not after its start at 0.8000 s") in reasons
    assert ("_F000", "stands more than once in its evaluation") in reasons
    assert ("Ses03F_impro08.txt", "a git-lfs stub, not the file itself; fetch it with: git lfs pull") in reasons
    assert sum("Ses03F_impro07_M004 belongs to another dialog" in reason for _, reason in reasons) == 1
    assert sum("is no summary of a turn" in reason for _, reason in reasons) == 3
    assert len(reasons) == 8
    assert found.incomplete[0].clip == f"{dialog}_FXX1"


def test_the_eighteen_turns_without_picture_keep_their_sound(put, wav, tmp_path):
    assert len(WITHOUT_VIDEO) == 18
    dialogs = {}
    for turn in sorted(WITHOUT_VIDEO):
        dialogs.setdefault(turn.rsplit("_", 1)[0], []).append(line(turn, "neu"))
    dialogs["Ses01F_impro04"].append(line("Ses01F_impro04_F000", "neu"))
    plant(put, wav, dialogs)
    found = iemocap(tmp_path)
    flagged = {i.clip for i in found.incomplete}
    assert flagged == WITHOUT_VIDEO
    assert [c.id for c in found.clips if c.video] == ["Ses01F_impro04_F000"]
    assert all(c.audio and (c.crop is None) == (c.id in flagged) for c in found.clips)
    assert "18 clips lack picture or sound, such as" in " ".join(found.notes)
    ClipTable.from_clips(found.clips)


def test_missing_and_broken_media_are_told_apart(put, wav, tmp_path):
    dialogs = dict([both(1, "F"), both(2, "F"), both(3, "F"), both(4, "F")])
    plant(put, wav, dialogs)
    base = tmp_path / TOP
    (base / "Session1/dialog/avi/DivX/Ses01F_impro01.avi").unlink()
    (base / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav").unlink()
    put(f"{TOP}/Session2/dialog/avi/DivX/Ses02F_impro01.avi", "stub")
    put(f"{TOP}/Session3/sentences/wav/Ses03F_impro01/Ses03F_impro01_M000.wav", "stub")
    put(f"{TOP}/Session4/dialog/avi/DivX/Ses04F_impro01.avi", wav([0.1] * 1000))
    found = iemocap(tmp_path)
    assert [d.item for d in found.dropped] == ["Ses01F_impro01_F000"]
    assert "cannot be read" in found.dropped[0].reason
    assert "no sound: Ses01F_impro01_F000.wav: missing" in found.dropped[0].reason
    reasons = {i.clip: i.reason for i in found.incomplete}
    assert "no picture: Ses02F_impro01.avi: a git-lfs stub" in reasons["Ses02F_impro01_F000"]
    assert "no video stream" in reasons["Ses04F_impro01_M000"]
    # Ses03F_impro01_F000 is whole; M000's wav is a stub
    assert reasons["Ses03F_impro01_M000"].startswith("no sound: Ses03F_impro01_M000.wav: a git-lfs stub")
    assert len(reasons) == 1 + 2 + 1 + 2
    by_id = {c.id: c for c in found.clips}
    assert by_id["Ses03F_impro01_M000"].audio is None
    assert by_id["Ses03F_impro01_M000"].audio_offset_s is None


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (4, {"ang": 1, "hap": 2, "neu": 1, "sad": 1}),
        (6, {"ang": 1, "exc": 1, "fru": 1, "hap": 1, "neu": 1, "sad": 1}),
        (9, dict.fromkeys(("ang", "dis", "exc", "fea", "fru", "hap", "neu", "sad", "sur"), 1)),
    ],
)
def test_four_six_or_nine_classes(put, wav, tmp_path, classes, expected):
    labels = ("ang", "dis", "exc", "fea", "fru", "hap", "neu", "oth", "sad", "sur", "xxx")
    plant(put, wav, {"Ses01F_impro01": [line(f"Ses01F_impro01_F{k:03}", label) for k, label in enumerate(labels)]})
    found = iemocap(tmp_path, classes=str(classes))
    assert found.classes == tuple(expected)
    assert {c: sum(clip.label == c for clip in found.clips) for c in found.classes} == expected
    assert len(found.clips) + len(found.dropped) == len(labels)
    assert found.options["classes"] == classes


@pytest.mark.parametrize(("test", "dev"), [(1, 2), (3, 4), (5, 1)])
def test_one_session_is_left_out_and_no_speaker_is_in_two_splits(put, wav, tmp_path, test, dev):
    plant(put, wav, dict([both(s, "F") for s in range(1, 6)] + [both(s, "M") for s in range(1, 6)]))
    found = iemocap(tmp_path, test_session=test)
    sessions = {split: {int(c.id[4]) for c in found.clips if c.split == split} for split in ("train", "dev", "test")}
    assert sessions == {"test": {test}, "dev": {dev}, "train": {1, 2, 3, 4, 5} - {test, dev}}
    assert len({(c.speaker, c.split) for c in found.clips}) == len({c.speaker for c in found.clips}) == 10


def test_the_papers_split_is_random_by_turn_and_warns(put, wav, tmp_path):
    dialogs = {f"Ses0{s}F_impro01": [line(f"Ses0{s}F_impro01_F{k:03}", "neu") for k in range(11)] for s in (1, 2, 3)}
    plant(put, wav, dialogs)
    found = iemocap(tmp_path, split="paper", seed=1)
    counts = [sum(c.split == s for c in found.clips) for s in ("train", "dev", "test")]
    assert counts == [int(0.7 * 33), int(0.1 * 33), 33 - int(0.7 * 33) - int(0.1 * 33)]
    assert [int(0.7 * 5531), int(0.1 * 5531)] == [3871, 553]  # the numbers of the paper
    assert any("WARNING: every speaker and dialog is in train and in test" in note for note in found.notes)
    assert len({c.group for c in found.clips}) == 33
    again, other = iemocap(tmp_path, split="paper", seed=1), iemocap(tmp_path, split="paper", seed=2)
    assert found.clips == again.clips
    assert [c.split for c in found.clips] != [c.split for c in other.clips]


@pytest.mark.parametrize(("top", "nest"), [(TOP, ""), (f"{TOP}/{TOP}", ""), (TOP, "/Session{0}")])
def test_parents_and_doubled_folders(put, wav, tmp_path, top, nest):
    plant(put, wav, dict([both(1, "F"), both(5, "M")]), top=top, nest=nest)
    found = iemocap(tmp_path)
    assert len(found.clips) == 4
    assert found.incomplete == ()
    assert "sessions not found: 2, 3, 4" in found.notes
    assert "no clip in the train split" in found.notes  # 5 is test, 1 is dev


def test_extraction_takes_the_sound_of_every_turn(put, wav, tmp_path, extracted):
    plant(put, wav, dict([both(1, "F"), both(2, "M")]))
    store = extracted("iemocap", tmp_path, tmp_path / "s.zarr", "--option", "split=paper", "--option", "seed=3")
    assert [f for e in store.entries("audio.logspec") for f in e.failures] == []
    assert len(store.clips) == 4
