"""Facts on a clip's face, each against the sum written out."""

import math

import numpy as np
import pytest

from bmla.extract.encoders.base import Sight
from bmla.extract.faces.quality import quality_of_sight
from bmla.store.quality import MEANINGS, check_quality

NAN = math.nan


def sight(boxes, valid, scores, mouths=None):
    T = len(boxes)
    boxes = np.array(boxes, np.float32)
    frames, points = np.zeros((T, 8, 8, 3), np.uint8), np.zeros((T, 68, 2), np.float32)
    return Sight(frames, boxes, points, np.array(valid), np.array(scores, np.float32), mouths)


def test_each_fact_is_the_sum_written_out():
    boxes = [[0, 0, 10, 20], [3, 4, 13, 24], [3, 4, 33, 24], [3, 4, 15, 24]]  # centres 5,10  8,14  18,14  9,14
    facts = quality_of_sight(sight(boxes, [True, True, False, True], [0.9, 1.0, 0.0, 0.95]))
    assert facts == pytest.approx(
        {
            "interpolated_share": 1 / 4,
            "detector_score": (0.9 + 1.0 + 0.95) / 3,
            "face_width_px": 10.0,  # the middle one of 10, 10 and 12
            "track_jump": 10 / 10.0,
        }
    )
    assert set(facts) <= set(MEANINGS)
    check_quality({name: [value] for name, value in facts.items()}, 1)


def test_distance_is_measured_in_both_directions():
    facts = quality_of_sight(sight([[0, 0, 10, 20], [3, 4, 13, 24]], [True, True], [1, 1]))
    assert facts["track_jump"] == pytest.approx(5 / 10)


def test_frames_that_were_not_looked_at_have_no_part_in_the_score():
    facts = quality_of_sight(sight([[0, 0, 10, 20]] * 3, [True] * 3, [0.8, NAN, 1.0]))
    assert facts["detector_score"] == pytest.approx(0.9)
    assert facts["interpolated_share"] == 0


def test_single_frame_does_not_jump():
    assert quality_of_sight(sight([[0, 0, 10, 20]], [True], [1]))["track_jump"] == 0


def test_clip_whose_frames_are_all_missing_still_has_finite_facts():
    facts = quality_of_sight(sight([[0, 0, 10, 20], [0, 0, 14, 20]], [False, False], [0, 0]))
    assert facts == pytest.approx({"interpolated_share": 1.0, "face_width_px": 12.0, "track_jump": 2 / 12})


def test_what_is_not_known_is_left_out():
    mouth_alone = sight([[NAN] * 4] * 2, [True, True], [NAN, NAN], np.ones((2, 4), np.float32))
    assert quality_of_sight(mouth_alone) == {"interpolated_share": 0.0}
    fixed = quality_of_sight(sight([[0, 0, 10, 20]] * 2, [True, True], [NAN, NAN]))
    assert fixed == {"interpolated_share": 0.0, "face_width_px": 10.0, "track_jump": 0.0}
