"""Which face of a clip is followed, and what stands in frames where it was not found."""

import numpy as np
import pytest

from bmla.extract.faces.detector import Faces
from bmla.extract.faces.track import choose_track
from bmla.store.errors import NoFace


def square(x, y, side):
    return [x, y, x + side, y + side]


def frame(*boxes, scores=None, best=0.5):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.array(scores if scores else [0.99] * len(boxes), np.float32)
    return Faces(boxes, scores, np.zeros((len(boxes), 5, 2), np.float32), best)


def test_moving_face_is_followed():
    track = choose_track([frame(square(10 + 4 * t, 20, 50)) for t in range(10)])
    assert track.boxes.tolist() == [square(10 + 4 * t, 20, 50) for t in range(10)]
    assert track.valid.all()
    assert (track.boxes.dtype, track.valid.dtype, track.scores.dtype) == (np.float32, np.bool_, np.float32)


def test_larger_of_two_lasting_faces_is_taken_whatever_their_order():
    small, large = square(0, 0, 40), square(200, 0, 60)
    track = choose_track([frame(small, large) if t % 2 else frame(large, small) for t in range(8)])
    assert (track.boxes == large).all()


def test_lasting_face_wins_over_a_larger_brief_one():
    lasting, brief = square(0, 0, 60), square(200, 0, 120)
    track = choose_track([frame(brief, lasting) if 5 <= t < 8 else frame(lasting) for t in range(20)])
    assert (track.boxes == lasting).all()
    assert track.valid.all()


def test_gap_is_interpolated_and_not_valid():
    frames = [frame(square(10 * t, 0, 100), scores=[0.9 + t / 100]) for t in range(6)]
    frames[2] = frames[3] = frame()
    track = choose_track(frames)
    assert track.valid.tolist() == [True, True, False, False, True, True]
    assert track.boxes[2].tolist() == square(20, 0, 100)
    assert track.boxes[3].tolist() == square(30, 0, 100)
    assert track.scores[[2, 3]].tolist() == [0, 0]
    assert track.scores[4] == pytest.approx(0.94)


def test_ends_take_the_nearest_box():
    box = square(5, 5, 30)
    track = choose_track([frame(), frame(box), frame(), frame()])
    assert (track.boxes == box).all()
    assert track.valid.tolist() == [False, True, False, False]


def test_face_elsewhere_does_not_fill_a_gap():
    here, there = square(0, 0, 50), square(300, 0, 50)
    track = choose_track([frame(here), frame(there), frame(here)])
    assert (track.boxes == here).all()
    assert track.valid.tolist() == [True, False, True]


def test_crossing_candidates_take_the_box_that_overlaps_most():
    a = [frame(square(0, 0, 50), square(40, 0, 52)), frame(square(38, 0, 52), square(4, 0, 50))]
    track = choose_track(a)
    assert track.boxes.tolist() == [square(40, 0, 52), square(38, 0, 52)]


def test_one_face_takes_only_one_box_of_a_frame():
    first, near, off = square(0, 0, 50), square(2, 0, 50), square(15, 0, 50)
    for frames in ([frame(first), frame(near, off)], [frame(first), frame(off, near)]):
        assert choose_track(frames).boxes.tolist() == [first, near]


def test_equal_faces_give_the_first():
    left, right = square(0, 0, 50), square(200, 0, 50)
    assert (choose_track([frame(left, right)] * 3).boxes == left).all()


def test_clip_without_a_face_says_how_close_it_came():
    with pytest.raises(NoFace, match=r"no face in any of 3 frames; the best score was 0\.71"):
        choose_track([frame(best=0.2), frame(best=0.714), frame(best=0.1)])
    with pytest.raises(NoFace, match="no face in any of 0 frames"):
        choose_track([])
