"""Given faces: read by clip id, checked before they are believed, nothing outside of their folder."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmla.extract.faces.given import open_given
from bmla.store.errors import MediaError, UsageError

BOXES = np.array([[1, 2, 30, 40], [2, 3, 31, 41], [3, 4, 32, 42]], np.float64)
POINTS = np.arange(3 * 68 * 2, dtype=np.float32).reshape(3, 68, 2)
HEAD = "clip,frame,x0,y0,x1,y1\n"


def test_array_files_hold_boxes_or_landmarks_or_both(tmp_path):
    (tmp_path / "word").mkdir()
    np.save(tmp_path / "word" / "one.npy", BOXES)
    np.save(tmp_path / "two.npy", POINTS)
    np.savez(tmp_path / "three.npz", boxes=BOXES, landmarks=POINTS, other=np.arange(3))
    given = open_given(tmp_path)
    one, two, three = (given.of(name, 3) for name in ("word/one", "two", "three"))
    assert one.boxes.tolist() == BOXES.tolist()
    assert (one.boxes.dtype, one.landmarks, two.boxes) == (np.float32, None, None)
    assert np.array_equal(two.landmarks, POINTS)
    assert np.array_equal(three.boxes, BOXES)
    assert np.array_equal(three.landmarks, POINTS)


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("a.npy", BOXES[:2], r'clip "a": given face: boxes are float64 of shape \(2, 4\), expected numbers \(3, 4\)'),
        ("a.npy", BOXES[:, :3], r"shape \(3, 3\), expected \(3, 4\) or \(3, 68, 2\)"),
        ("a.npy", BOXES.astype(bool), "boxes are bool"),
        ("a.npy", np.where(BOXES == 30, np.inf, BOXES), "infinite numbers"),
        ("a.npy", np.where(BOXES == 30, 1e39, BOXES), "infinite numbers"),
        ("a.npy", np.where(BOXES == 31, 2, BOXES), "the box 2 3 2 41 has no area"),
        ("a.npz", {"faces": BOXES}, 'arrays faces, expected "boxes" or "landmarks"'),
        ("a.npz", {"boxes": BOXES, "landmarks": POINTS[:, :5]}, r"landmarks are float32 of shape \(3, 5, 2\)"),
    ],
)
def test_arrays_of_another_shape_or_kind_are_refused(tmp_path, name, arrays, message):
    if isinstance(arrays, dict):
        np.savez(tmp_path / name, **arrays)
    else:
        np.save(tmp_path / name, arrays)
    with pytest.raises(MediaError, match=message):
        open_given(tmp_path).of("a", 3)


def test_pickles_and_torn_files_are_refused_without_saying_where_they_lie(tmp_path):
    np.save(tmp_path / "pickle.npy", np.array([{}], object))
    np.save(tmp_path / "torn.npy", BOXES)
    whole = (tmp_path / "torn.npy").read_bytes()
    (tmp_path / "torn.npy").write_bytes(whole[:-8])
    np.savez(tmp_path / "zip.npz", boxes=BOXES)
    (tmp_path / "zip.npz").write_bytes((tmp_path / "zip.npz").read_bytes()[:200])
    for name, message in (("pickle", "Python objects"), ("torn", "no whole"), ("zip", "no whole")):
        with pytest.raises(MediaError, match=message) as caught:
            open_given(tmp_path).of(name, 3)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("clip_id", ["../out", "/etc/out", "link", "in/../../out", "", "a\0b", "a\\b"])
def test_no_id_leads_out_of_the_folder(tmp_path, clip_id):
    folder = tmp_path / "given"
    (folder / "in").mkdir(parents=True)
    np.save(tmp_path / "out.npy", BOXES)
    (folder / "link.npy").symlink_to(tmp_path / "out.npy")
    with pytest.raises(MediaError, match=r"leads out of the folder|no file's name"):
        open_given(folder).of(clip_id, 3)


def test_missing_clip_is_reported(tmp_path):
    with pytest.raises(MediaError, match=r'clip "a": given face: neither a\.npy nor a\.npz'):
        open_given(tmp_path).of("a", 3)


def table(path, rows):
    """Rows of clip, frame, x0, y0, x1, y1, as a .csv or .parquet file."""
    if path.suffix == ".csv":
        path.write_text(HEAD + "".join(",".join("" if v is None else str(v) for v in row) + "\n" for row in rows))
    else:
        names = HEAD.strip().split(",")
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_of_a_table_in_any_order(tmp_path, suffix):
    rows = [("b", 2, 5, 6, 7, 8), ("007", 1, 1, 2, 3, 4.5), ("b", 0, 9, 9, 10, 10), ("b", 1, None, 1, 2, 3)]
    given = open_given(table(tmp_path / f"boxes{suffix}", rows))
    nan = np.nan
    np.testing.assert_array_equal(given.of("007", 2).boxes, [[nan] * 4, [1, 2, 3, 4.5]])
    np.testing.assert_array_equal(given.of("b", 4).boxes, [[9, 9, 10, 10], [nan, 1, 2, 3], [5, 6, 7, 8], [nan] * 4])
    assert given.of("b", 4).landmarks is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 3, 1, 2, 3, 4)], 'clip "a": given face: a row for frame 3, expected 0 to 2'),
        ([("a", -1, 1, 2, 3, 4)], "a row for frame -1, expected 0 to 2"),
        ([("a", 1, 1, 2, 3, 4), ("a", 1, 1, 2, 3, 4)], "two rows for frame 1"),
        ([("a", 1, 4, 2, 3, 4)], "the box 4 2 3 4 has no area"),
        ([("b", 1, 1, 2, 3, 4)], "has no row of this clip"),
    ],
)
def test_bad_rows_fail_their_clip_alone(tmp_path, rows, message):
    given = open_given(table(tmp_path / "boxes.csv", [*rows, ("good", 0, 1, 2, 3, 4)]))
    with pytest.raises(MediaError, match=message):
        given.of("a", 3)
    assert given.of("good", 1).boxes.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "clip,frame,x0\n", "expected the columns clip, frame, x0, y0, x1, y1"),
        ("x.csv", HEAD + "a,one,1,2,3,4\n", "given boxes"),
        ("x.csv", HEAD + "a,,1,2,3,4\nb,1,1,2,3,4\n", "a row without clip or frame"),
        ("x.parquet", "PAR1", "cannot be read"),
        ("x.txt", "", "expected a folder, a .csv or a .parquet file"),
        ("", "", "expected a folder"),
    ],
)
def test_file_that_is_no_table_is_refused(tmp_path, name, text, message):
    path = tmp_path / (name or "gone")
    if name:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        open_given(path)


def test_parquet_without_a_column_names_it(tmp_path):
    pq.write_table(pa.table({"clip": ["a"], "frame": [0], "x0": [1], "y0": [1], "x1": [2]}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="without the columns y1"):
        open_given(tmp_path / "x.parquet")
