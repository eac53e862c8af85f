"""Your own table or folders: what is accepted, and that everything wrong names its row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmla.extract.datasets.table import find
from bmla.extract.media import read_audio, read_frames
from bmla.store.clips import ClipTable
from bmla.store.errors import UsageError

manifest = find("manifest").adapter()


def table(put, *lines, name="clips.csv"):
    return put(name, "\n".join(lines).encode())


def test_a_row_is_a_clip(put, tmp_path):
    put("media/a.mp4", "lrw.mp4")
    put("media/b.avi", "half.avi")
    path = table(
        put,
        "\ufeffid,video,audio,label,split,speaker,start,end,crop_x,crop_y,crop_w,crop_h,text,fps",
        'two,media/a.mp4,,yes,val,ann,0.2,0.8,8,4,20,30,"well, yes",',
        "",
        "one,media/b.avi,media/a.mp4,no,TRAIN,bob,0,0.4,,,,,,",
    )
    found = manifest(path)
    assert [c.id for c in found.clips] == ["one", "two"]
    one, two = found.clips
    assert (two.start_s, two.end_s, two.label, two.split, two.speaker, two.text) == (
        0.2,
        0.8,
        "yes",
        "dev",
        "ann",
        "well, yes",
    )
    assert (two.crop_x, two.crop_y, two.crop_w, two.crop_h) == (8, 4, 20, 30)
    assert two.video == two.audio == two.group == "media/a.mp4"
    assert (one.video, one.audio, one.split) == ("media/b.avi", "media/a.mp4", "train")
    assert found.classes == ("no", "yes")
    assert found.root == tmp_path
    assert read_frames(found.root / two.video, 0.2, 0.8, crop=(8, 4, 20, 30)).images.shape == (15, 30, 20, 3)
    assert read_audio(found.root / one.audio, 0, 0.4).shape == (6400,)
    ClipTable.from_clips(found.clips)


def test_parquet_gives_the_same_clips_as_csv(put):
    put("a.mp4", "lrw.mp4")
    csv = table(
        put, "id,video,label,start,end,crop_x,crop_y,crop_w,crop_h", "x,a.mp4,3,0,1,,,,", "y,a.mp4,4,0.5,1,1,2,8,8"
    )
    columns = {
        "id": ["x", "y"], "video": ["a.mp4"] * 2, "label": [3, 4], "start": [0.0, 0.5], "end": [1.0, 1.0],
        "crop_x": [np.nan, 1.0], "crop_y": [None, 2.0], "crop_w": [None, 8.0], "crop_h": [None, 8.0],
    }  # fmt: skip
    pq.write_table(pa.table(columns), csv.with_suffix(".parquet"))
    assert manifest(csv).clips == manifest(csv.with_suffix(".parquet")).clips


def test_a_missing_start_or_end_is_the_whole_file(put):
    put("a.mp4", "half.mp4")
    put("s.mp4", "silent.mp4")
    found = manifest(table(put, "id,video,start", "a,a.mp4,", "b,a.mp4,0.2", "c,s.mp4,"))
    a, b, c = found.clips
    assert (a.start_s, a.end_s) == (0, pytest.approx(0.52))
    assert (b.start_s, b.end_s) == (0.2, pytest.approx(0.52))
    assert (c.audio, c.video) == (None, "s.mp4")
    assert a.audio == "a.mp4"


def test_media_that_cannot_be_probed_are_dropped_with_their_reason(put):
    put("a.mp4", "half.mp4")
    put("b.mp4", b"no video, only words " * 100)
    found = manifest(table(put, "id,video", "a,a.mp4", "b,b.mp4"))
    assert [c.id for c in found.clips] == ["a"]
    assert found.dropped[0].item == "b"
    assert found.dropped[0].reason.startswith("b.mp4: no media can be read")


BAD_ROWS = {
    "x,a.mp4,0,1,,,,,": r'clips\.csv line 3 \(id "x"\): the id stands already in clips\.csv line 2',
    ",a.mp4,0,1,,,,,": r"clips\.csv line 3: no id",
    "y,,0,1,,,,,": "neither video nor audio",
    "y,b.mp4,0,1,,,,,": r'clips\.csv line 3 \(id "y"\): video b\.mp4 does not exist',
    "y,stub.mp4,0,1,,,,,": r"video stub\.mp4: a git-lfs stub",
    "y,a.mp4,1,1,,,,,": r'line 3 \(id "y"\): the cut 1\.0 to 1\.0 s: expected 0 <= start < end',
    "y,a.mp4,-1,1,,,,,": r"the cut -1\.0 to 1\.0 s",
    "y,a.mp4,soon,1,,,,,": 'start is "soon", expected a number',
    "y,a.mp4,0,nan,,,,,": 'end is "nan", expected a number',
    "y,../a.mp4,0,1,,,,,": r"\.\./a\.mp4 lies outside the manifest's folder",
    "y,sub/../../a.mp4,0,1,,,,,": "lies outside the manifest's folder",
    "y,/etc/hostname,0,1,,,,,": "/etc/hostname lies outside the manifest's folder",
    "y,sub,0,1,,,,,": "video is a folder of images, which needs its frame rate",
    "y,a.mp4,0,1,3,,,,": "a crop needs all of crop_x, crop_y, crop_w, crop_h",
    "y,a.mp4,0,1,3,3,0,5,": r"the crop \[3, 3, 0, 5\] is empty or starts outside",
    "y,a.mp4,0,1,3.5,3,9,5,": "not in whole pixels",
    "y,a.mp4,0,1,,,,,night": 'unknown split "night"; expected train, dev or test',
    "y,a.mp4,0,1": r"clips\.csv line 3: not as many fields as the header has \(9\)",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_row_that_breaks_a_rule_is_a_usage_error_that_names_it(put, tmp_path, row):

    put("a.mp4", "half.mp4")
    put("stub.mp4", "stub")
    put("sub/1.png", b"x")
    path = table(put, "id,video,start,end,crop_x,crop_y,crop_w,crop_h,split", "x,a.mp4,0,0.4,,,,,", row)
    with pytest.raises(UsageError, match=BAD_ROWS[row]):
        manifest(path)


def test_a_table_that_is_none_says_what_it_has(put):
    with pytest.raises(UsageError, match=r"clips\.csv has the columns name, file; required are id, and video or audio"):
        manifest(table(put, "name,file", "a,b"))
    with pytest.raises(UsageError, match=r"clips\.csv has no row"):
        manifest(table(put, "id,video"))
    with pytest.raises(UsageError, match="is no CSV table in UTF-8"):
        manifest(put("clips.csv", b"id,video\n\xff\xfe,a\n"))
    with pytest.raises(UsageError, match=r"clips\.parquet is no Parquet table"):
        manifest(put("clips.parquet", b"id,video\n"))
    with pytest.raises(UsageError, match=r"clips\.json is no table; expected a \.csv or \.parquet file"):
        manifest(put("clips.json", b"{}"))


def test_an_absolute_path_inside_the_folder_becomes_relative(put, tmp_path):
    path = put("deep/a.mp4", "half.mp4")
    assert manifest(table(put, "id,video,end", f"a,{path},0.4")).clips[0].video == "deep/a.mp4"


def test_a_folder_of_images_is_a_video(put, tmp_path, media):
    import av

    (tmp_path / "lips").mkdir()
    for n in (1, 2, 3):
        with av.open(str(tmp_path / "lips" / f"{n}.png"), "w", format="image2", options={"update": "1"}) as out:
            stream = out.add_stream("png", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
    clip = manifest(table(put, "id,video,fps,end", "a,lips,25,")).clips[0]
    assert (clip.video, clip.audio, clip.fps, clip.end_s) == ("lips", None, 25.0, 0.12)


def test_without_splits_clips_split_by_speaker_or_recording(put):
    put("a.mp4", "half.mp4")
    for n in range(30):
        put(f"m{n}.mp4", "half.mp4")
    rows = [f"{n}{part},m{n}.mp4,{part / 10},0.4" for n in range(30) for part in (0, 1)]
    found = manifest(table(put, "id,video,start,end", *rows))
    by_file = {}
    for clip in found.clips:
        by_file.setdefault(clip.video, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in by_file.values())
    assert {s for splits in by_file.values() for s in splits} == {"train", "dev", "test"}
    assert "no splits given: split by the hash of the recording (seed 0)" in found.notes[0]
    rows = [f"{n},m{n}.mp4,s{n % 3},0.4" for n in range(30)]
    found = manifest(table(put, "id,video,speaker,end", *rows), seed=3)
    assert len({(c.speaker, c.split) for c in found.clips}) == 3
    assert "hash of the speaker (seed 3)" in found.notes[0]


def test_a_speaker_or_recording_in_two_splits_is_noted_and_groups_stay_apart(put):
    put("a.mp4", "half.mp4")
    put("b.mp4", "half.mp4")
    found = manifest(
        table(
            put,
            "id,video,speaker,split,end,hat",
            "1,a.mp4,ann,train,0.2,x",
            "2,a.mp4,ann,test,0.4,x",
            "3,b.mp4,bob,test,0.4,x",
            "4,b.mp4,bob,,0.4,x",
        )
    )
    assert '1 speakers are in more than one split, such as "ann": test clips may be easier for it' in found.notes
    assert any("1 recordings are in more than one split" in note for note in found.notes)
    assert "1 clips name no split: they are in none" in found.notes
    assert "columns not used: hat" in found.notes
    assert [c.group for c in found.clips] == ["a.mp4 (train)", "a.mp4 (test)", "b.mp4", "b.mp4"]


@pytest.mark.parametrize("top", ["", "set/"])
def test_folders_of_splits_and_labels(put, tmp_path, top):
    for place in ("train/happy/a.mp4", "train/sad/b.mp4", "val/happy/a.mp4", "test/sad/c.MP4"):
        put(f"{top}{place}", "half.mp4")
    put(f"{top}train/happy/notes.txt", b"x")
    put(f"{top}train/happy/._a.mp4", b"x")
    put(f"{top}train/sad/broken.mp4", b"x")
    put(f"{top}drafts/happy/a.mp4", "half.mp4")
    found = manifest(tmp_path)
    assert [(c.id, c.label, c.split) for c in found.clips] == [
        ("test/sad/c.MP4", "sad", "test"),
        ("train/happy/a.mp4", "happy", "train"),
        ("train/sad/b.mp4", "sad", "train"),
        ("val/happy/a.mp4", "happy", "dev"),
    ]
    assert found.clips[0].end_s == pytest.approx(0.52)
    assert [d.item for d in found.dropped] == ["drafts", "train/happy/notes.txt", "train/sad/broken.mp4"]
    assert found.classes == ("happy", "sad")


def test_folders_of_labels_split_by_the_files_name(put, tmp_path):
    for label in ("happy", "sad"):
        for n in range(12):
            put(f"{label}/take{n}.mp4", "half.mp4")
    found = manifest(tmp_path)
    assert len(found.clips) == 24
    assert len({(c.group, c.split) for c in found.clips}) == 12  # one name, one split
    assert len({c.split for c in found.clips}) > 1
    assert "split by the hash of the file's name (seed 0)" in found.notes[0]
