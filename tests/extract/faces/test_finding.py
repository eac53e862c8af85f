"""Face policies as values: what goes together, which frames are looked at, and what is recorded."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from bmla.extract.faces.finding import PICTURE, FaceFinding, wanted_frames
from bmla.extract.faces.policy import FACE_CROP, MOUTH_CROP
from bmla.store.errors import UsageError

LRW_MOUTH = (79, 115, 175, 211)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "guess"}, 'face policy "guess" is not one of detect, fixed, given'),
        ({"every": 0}, "every 0, expected a whole number of at least 1"),
        ({"every": 2.0}, r"every 2\.0, expected a whole number"),
        ({"every": True}, "every True, expected a whole number"),
        ({"policy": "fixed", "mouth_box": PICTURE, "every": 2}, '"fixed": every 2 is for the policy "detect" alone'),
        ({"mouth_box": LRW_MOUTH}, '"detect": mouth_box is for the policy "fixed" alone'),
        ({"mouth_box": PICTURE}, '"detect": mouth_box is for the policy "fixed" alone'),
        ({"policy": "given", "given": Path("x"), "face_box": LRW_MOUTH}, '"given": face_box is for'),
        ({"policy": "fixed"}, "expected face_box, mouth_box or both"),
        ({"policy": "given"}, "expected both or neither"),
        ({"given": Path("x")}, "expected both or neither"),
        ({"policy": "fixed", "face_box": PICTURE}, r"face_box 'picture': expected four whole numbers.*y1$"),
        ({"policy": "fixed", "mouth_box": "mouth"}, """mouth_box 'mouth': expected four whole.* or "picture"$"""),
        ({"policy": "fixed", "mouth_box": (1, 2, 3)}, "expected four whole numbers"),
        ({"policy": "fixed", "mouth_box": (1, 2, 3.0, 4)}, "expected four whole numbers"),
        ({"policy": "fixed", "mouth_box": (5, 2, 5, 4)}, "expected 0 <= x0 < x1 and 0 <= y0 < y1"),
        ({"policy": "fixed", "face_box": (-1, 2, 5, 4)}, r"face_box \(-1, 2, 5, 4\): expected 0 <= x0"),
    ],
)
def test_what_does_not_go_together_is_named(options, message):
    with pytest.raises(UsageError, match=message):
        FaceFinding(**options)


@pytest.mark.parametrize(
    ("frames", "every", "expected"),
    [(5, 1, [0, 1, 2, 3, 4]), (7, 3, [0, 3, 6]), (8, 3, [0, 3, 6, 7]), (2, 5, [0, 1]), (1, 4, [0]), (0, 2, [])],
)
def test_every_kth_and_the_last_frame_are_looked_at(frames, every, expected):
    assert wanted_frames(frames, FaceFinding(every=every)) == expected


def test_no_frame_is_looked_at_without_a_detector(tmp_path):
    for finding in (FaceFinding("fixed", mouth_box=PICTURE), FaceFinding("given", given=tmp_path)):
        assert wanted_frames(9, finding) == []
        assert not finding.detects


def test_default_adds_nothing_to_a_specification():
    assert FaceFinding().describe() == {}


def test_specification_names_policy_and_boxes():
    assert FaceFinding(every=3).describe() == {"policy": "detect", "every": 3, "between": "box interpolated"}
    rule = {"mouth_crop": "square of the box's longer side, level, not smoothed"}
    assert FaceFinding("fixed", mouth_box=LRW_MOUTH).describe() == {
        "policy": "fixed",
        "mouth_box": [79, 115, 175, 211],
        **rule,
    }
    assert FaceFinding("fixed", face_box=(1, 2, 3, 4), mouth_box=PICTURE).describe() == {
        "policy": "fixed",
        "face_box": [1, 2, 3, 4],
        "mouth_box": "picture",
        **rule,
    }


def test_given_files_are_described_by_their_content_alone(tmp_path):
    for where in ("one", "two"):
        (tmp_path / where / "b").mkdir(parents=True)
        (tmp_path / where / "b" / "x.npy").write_bytes(b"12")
        (tmp_path / where / "a.npz").write_bytes(b"3")
    (tmp_path / "two" / "notes.txt").write_bytes(b"read by nobody")
    lines = f"{hashlib.sha256(b'3').hexdigest()}  a.npz\n{hashlib.sha256(b'12').hexdigest()}  b/x.npy\n"
    expected = {"policy": "given", "sha256": hashlib.sha256(lines.encode()).hexdigest(), "files": 2}
    assert all(FaceFinding("given", given=tmp_path / w).describe() == expected for w in ("one", "two"))
    table = tmp_path / "boxes.csv"
    table.write_bytes(b"clip")
    assert FaceFinding("given", given=table).describe() == {
        "policy": "given",
        "sha256": hashlib.sha256(b"clip").hexdigest(),
        "files": 1,
    }


def test_given_files_that_are_not_there_are_reported(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        FaceFinding("given", given=tmp_path / "gone").describe()
    with pytest.raises(UsageError, match=r"no given faces: expected <clip id>\.npy or \.npz"):
        FaceFinding("given", given=tmp_path).describe()


def test_streams_that_need_more_than_a_mouth_are_refused_beforehand():
    mouth_alone = FaceFinding("fixed", mouth_box=PICTURE)
    mouth_alone.check_serves(MOUTH_CROP, "mouth.roi")
    for crop in (FACE_CROP, None):
        with pytest.raises(UsageError, match=r"face\.x: needs the face, and a fixed mouth_box is all"):
            mouth_alone.check_serves(crop, "face.x")
        FaceFinding().check_serves(crop, "face.x")
        FaceFinding("fixed", face_box=(0, 0, 9, 9), mouth_box=PICTURE).check_serves(crop, "face.x")


def test_policies_and_detections_load_no_network():
    code = "import sys, bmla.extract.faces.finding; assert not {'numpy', 'torch', 'cv2'} & {*sys.modules}"
    look = "import sys, bmla.extract.faces.sight; assert 'torch' not in sys.modules"
    for line in (code, look):
        subprocess.run([sys.executable, "-c", line], check=True)
