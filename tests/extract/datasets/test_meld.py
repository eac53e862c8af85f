"""MELD: a table as a spreadsheet writes it, joined with files by dialogue and utterance, capped by its times."""

import csv
import io

import numpy as np
import pytest

from bmla.extract.datasets.table import find
from bmla.extract.media import read_audio, read_frames
from bmla.store.clips import ClipTable
from bmla.store.errors import UsageError

meld = find("meld").adapter()

HEAD = [
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode",
    "StartTime", "EndTime",
]  # fmt: skip
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


def row(dialogue, utterance, emotion="joy", text="Hi", start="00:16:16,059", end="00:16:21,731", speaker="Ann"):
    return ["1", text, speaker, emotion, "x", dialogue, utterance, "8", "21", start, end]


def table(*rows, head=HEAD):
    held = io.StringIO()
    csv.writer(held).writerows([head, *rows])
    return held.getvalue()


def plant(put, top="MELD.Raw/", media="half.mp4", **splits):
    """splits: the rows of each; every row gets its file."""
    for split, rows in splits.items():
        put(f"{top}{split}_sent_emo.csv", table(*rows).encode())
        for r in rows:
            put(f"{top}{FOLDERS[split]}/dia{r[5]}_utt{r[6]}.mp4", media)


def test_rows_join_their_files_by_split_dialogue_and_utterance(put, tmp_path):
    said = 'Oh, \u201creally\u201d? It\u2019s "him",\nyes'
    plant(put, train=[row(10, 0), row(2, 0, "anger", said, speaker="Bob"), row(2, 1)], dev=[row(2, 0, "Fear")],
          test=[row(2, 0, "sadness")])  # fmt: skip
    found = meld(tmp_path)
    assert [(c.id, c.label) for c in found.clips] == [
        ("train/dia2_utt0", "anger"), ("train/dia2_utt1", "joy"), ("train/dia10_utt0", "joy"),
        ("dev/dia2_utt0", "fear"), ("test/dia2_utt0", "sadness"),
    ]  # fmt: skip
    assert found.classes == ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
    clip = found.clips[0]
    assert (clip.text, clip.speaker, clip.group, clip.split) == (said, "Bob", "train/dia2", "train")
    assert clip.video == clip.audio == "train_splits/dia2_utt0.mp4"
    assert found.dropped == found.incomplete == ()
    assert any("the largest face is taken" in note for note in found.notes)
    frames = read_frames(found.root / clip.video, clip.start_s, clip.end_s)
    assert len(frames.images) == 13
    assert (np.diff(frames.images.mean((1, 2, 3))) > 1).all()
    ClipTable.from_clips(found.clips)


@pytest.mark.parametrize(
    ("start", "end", "end_s", "noted"),
    [
        ("00:16:16,059", "00:16:16,859", 0.8, False),
        ("0:16:16,059", "0:16:16,859", 0.8, False),  # hours of one digit
        ("0:59:59,900", "1:00:00,5", 0.6, False),
        ("00:16:16,059", "00:16:21,731", 1.16, False),  # the file ends first
        ("00:16:16,859", "00:16:16,059", 1.16, True),
        ("00:16:16,859", "", 1.16, True),
    ],
)
def test_a_clip_ends_after_its_stated_length_at_the_latest(put, tmp_path, start, end, end_s, noted):
    plant(put, media="lrw.mp4", train=[row(0, 0, start=start, end=end)])
    found = meld(tmp_path)
    assert found.clips[0].end_s == pytest.approx(end_s, abs=1e-6)
    assert any("1 rows state no length, such as train/dia0_utt0" in note for note in found.notes) == noted
    sound = read_audio(found.root / found.clips[0].audio, *found.clips[0].sound_cut)
    assert len(sound) == round(end_s * 16_000)
    assert meld(tmp_path, cap="false").clips[0].end_s == pytest.approx(1.16)


def test_each_broken_item_has_its_reason(put, tmp_path):
    rows = [row(125, 3), row(0, 0), row(0, 1), row(0, 2), row(0, 3), row(0, 4)]
    plant(put, train=rows, dev=[row(110, 7), row(110, 8)])
    bad = [row("../../x", 1), row(0, "1.0"), row(0, 5, "bored"), row(0, 0, "anger")]
    put("MELD.Raw/train_sent_emo.csv", table(*rows, *bad).encode())
    put("MELD.Raw/train_splits/dia125_utt3.mp4", b"no video, only words " * 100)
    put("MELD.Raw/train_splits/dia0_utt1.mp4", "stub")
    put("MELD.Raw/train_splits/dia0_utt2.mp4", b"")
    put("MELD.Raw/train_splits/dia0_utt3.mp4", "silent.mp4")
    (tmp_path / "MELD.Raw/train_splits/dia0_utt4.mp4").unlink()
    (tmp_path / "MELD.Raw/dev_splits_complete/dia110_utt7.mp4").unlink()
    for extra in ("dia9_utt9.mp4", "final_videos_dia0_utt0.mp4"):
        put(f"MELD.Raw/train_splits/{extra}", "half.mp4")
    put("MELD.Raw/train_splits/._dia0_utt0.mp4", b"litter")
    found = meld(tmp_path)
    reasons = {d.item: d.reason for d in found.dropped}
    corrupt = reasons.pop("train/dia125_utt3")
    assert corrupt.startswith("dia125_utt3.mp4: no media can be read")
    assert corrupt.endswith("(known to be corrupt)")
    assert reasons == {
        "train/dia0_utt1": "a git-lfs stub, not the file itself; fetch it with: git lfs pull",
        "train/dia0_utt2": "empty file",
        "train/dia0_utt4": "no video file",
        "dev/dia110_utt7": "no video file (known to be missing)",
        "train_splits/dia9_utt9.mp4": "no row in train_sent_emo.csv: no label",
        "train_splits/final_videos_dia0_utt0.mp4": "no row in train_sent_emo.csv: no label",
        "train_sent_emo.csv line 8": "Dialogue_ID and Utterance_ID are ../../x and 1: no numbers",
        "train_sent_emo.csv line 9": "Dialogue_ID and Utterance_ID are 0 and 1.0: no numbers",
        "train_sent_emo.csv line 10": "unknown emotion 'bored'",
        "train_sent_emo.csv line 11": "train/dia0_utt0 stands in the table already",
    }
    assert [c.id for c in found.clips] == ["train/dia0_utt0", "train/dia0_utt3", "dev/dia110_utt8"]
    assert found.clips[0].label == "joy"
    assert [(i.clip, i.reason) for i in found.incomplete] == [("train/dia0_utt3", "no audio stream in its file")]
    assert "no test_sent_emo.csv: no clip in the test split" in found.notes


def test_a_table_saved_by_a_spreadsheet_keeps_its_quotes(put, tmp_path):
    plant(put, train=[row(0, 0)])
    put("MELD.Raw/train_sent_emo.csv", table(row(0, 0, text="It\u2019s")).encode("cp1252"))
    assert meld(tmp_path).clips[0].text == "It\u2019s"
    put("MELD.Raw/train_sent_emo.csv", b"\xef\xbb\xbf" + table(row(0, 0, text="It\u2019s")).encode())
    assert meld(tmp_path).clips[0].text == "It\u2019s"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(head=HEAD[1:4]).encode(), "lacks the columns Dialogue_ID, Utterance_ID, StartTime, EndTime"),
        (b"", "train_sent_emo.csv: empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "train_sent_emo.csv: a git-lfs stub"),
    ],
)
def test_a_table_that_is_none_is_a_usage_error(put, tmp_path, content, message):
    put("train_sent_emo.csv", content)
    with pytest.raises(UsageError, match=f"meld: .*{message}"):
        meld(tmp_path)


@pytest.mark.parametrize(
    ("csvs", "videos"),
    [("", ""), ("MELD.Raw/", "MELD.Raw/"), ("a/train/", "a/train/"), ("a/", "a/train_splits/"), ("a/", "a/train/")],
)
def test_as_unpacked_in_any_way(put, tmp_path, csvs, videos):
    put(f"{csvs}train_sent_emo.csv", table(row(0, 0)).encode())
    put(f"{videos}train_splits/dia0_utt0.mp4", "half.mp4")
    assert [c.id for c in meld(tmp_path).clips] == ["train/dia0_utt0"]


def test_extraction_from_a_root_above(put, tmp_path, extracted):
    plant(put, train=[row(0, 0), row(0, 1)], test=[row(0, 0)])
    store = extracted("meld", tmp_path, tmp_path / "s.zarr", "--option", "cap=false")
    assert [f for e in store.entries("audio.logspec") for f in e.failures] == []
    assert store.clips.counts("split") == {"test": 1, "train": 2}
