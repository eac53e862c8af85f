"""The animated portrait: what Dlib sees of the mouth follows the parameters, and only the mouth's surroundings move."""

import numpy as np
import pytest

from bmla.extract.demo import visemes
from bmla.extract.demo.face import TalkingFace, lips_of
from bmla.extract.demo.scene import CLIP_S, SPEECH_LEVEL, WORD_CENTRE_S, film, record
from bmla.extract.demo.speech import Phone, Speech
from bmla.extract.faces.landmarks import Landmarks68

skimage = pytest.importorskip("skimage", reason="needs the demo extra: pip install 'bmla[demo]'")

CLOSED, OPEN = np.array(visemes.BILABIAL[:6]), np.array(visemes.OPEN[:6])
ROUND, SPREAD = np.array(visemes.CLOSE_BACK[:6]), np.array(visemes.CLOSE_FRONT[:6])


@pytest.fixture(scope="module")
def face() -> TalkingFace:
    from skimage import data

    return TalkingFace(data.astronaut())


@pytest.fixture(scope="module")
def mouth(face):
    """Width of the mouth, heights of the parting and of the lips, and where the chin is, as Dlib measures them."""
    import dlib

    predictor, detector = Landmarks68(), dlib.get_frontal_face_detector()

    def measure(shape):
        picture = face.picture(shape)
        boxes = detector(picture)
        assert len(boxes) == 1
        box = boxes[0]
        points = predictor.predict(picture, np.array([box.left(), box.top(), box.right(), box.bottom()], np.float32))
        return {
            "width": points[54, 0] - points[48, 0],
            "parting": points[66, 1] - points[62, 1],
            "lips": points[57, 1] - points[51, 1],
            "chin": points[8, 1],
        }

    return measure


def test_dlib_sees_the_mouth_open_and_close(mouth):
    closed, wide = mouth(CLOSED), mouth(OPEN)
    assert closed["parting"] < 3
    assert wide["parting"] > closed["parting"] + 8
    assert wide["chin"] > closed["chin"] + 5
    half = mouth((CLOSED + OPEN) / 2)
    assert closed["lips"] < half["lips"] < wide["lips"]


def test_dlib_sees_the_corners_come_together_for_oo(mouth):
    assert mouth(ROUND)["width"] < 0.85 * mouth(SPREAD)["width"]


def test_an_open_mouth_is_dark_inside_and_a_closed_one_is_not(face):
    def darkest(shape):
        return face.picture(shape)[205:240, 180:205].astype(float).mean(-1).min()

    assert darkest(OPEN) < 40
    assert darkest(CLOSED) > 60


def test_lips_never_cross_whatever_the_shape():
    rng = np.random.default_rng(0)
    for shape in rng.uniform(0, 1, (300, 6)):
        lips = lips_of(shape)
        heights = np.stack([lips.outer_upper, lips.inner_upper, lips.inner_lower, lips.outer_lower])[..., 1]
        assert (np.diff(heights, axis=0) >= -1e-9).all()
        for contour in (lips.outer_upper, lips.inner_upper, lips.inner_lower, lips.outer_lower):
            assert np.allclose(contour[[0, -1]], lips.inner_upper[[0, -1]])
            assert (np.diff(contour[:, 0]) > 0).all()


def test_only_the_lower_face_moves(face):
    moved = np.abs(face.picture(OPEN).astype(int) - face.picture(CLOSED)).max(-1) > 0
    rows, columns = np.nonzero(moved)
    assert rows.min() >= 171  # below the nose's tip
    assert rows.max() <= 306
    assert columns.min() >= 111
    assert columns.max() <= 276


def test_a_film_is_one_picture_a_shape_and_depends_on_its_seed_alone(face):
    shapes = np.linspace(CLOSED, OPEN, 5)
    first, again, other = (list(film(face, shapes, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert [p.shape for p in first] == [(256, 256, 3)] * 5
    assert first[0].dtype == np.uint8
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_a_recording_has_its_word_in_the_middle_at_the_stated_distance_to_the_noise():
    rate_hz = 22_050
    word = np.sin(np.arange(rate_hz // 2) * 0.3).astype(np.float32)
    speech = Speech(word, rate_hz, (Phone("a", 0.0, 0.5),))
    babble = np.random.default_rng(0).standard_normal(4 * rate_hz).astype(np.float32)
    silent = Speech(np.zeros_like(word), rate_hz, speech.phones)
    sound, snr_db = record(speech, babble, np.random.default_rng(3))
    noise, _ = record(silent, babble, np.random.default_rng(3))
    clean = (sound - noise).astype(float)
    times_s = np.arange(len(sound)) / rate_hz
    assert len(sound) > CLIP_S * rate_hz
    assert (clean**2 * times_s).sum() / (clean**2).sum() == pytest.approx(WORD_CENTRE_S, abs=2e-3)
    level, noise_level = (
        np.sqrt((clean[np.abs(times_s - WORD_CENTRE_S) < 0.24] ** 2).mean()),
        np.sqrt((noise**2).mean()),
    )
    assert 20 * np.log10(level / noise_level) == pytest.approx(snr_db, abs=0.2)
    assert level <= 1.2 * SPEECH_LEVEL * 1.01
