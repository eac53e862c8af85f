"""Lengths by the header equal lengths by decoding; what cannot be read says so."""

import pytest

from bmla.extract.datasets.lengths import ends_of_many, ends_s, longest_cut_s
from bmla.extract.media import probe, read_audio, read_frames
from bmla.store.errors import MediaError


@pytest.mark.parametrize("kind", ["lrw.mp4", "half.mp4", "silent.mp4", "half.avi", "half.flv", "grid.mpg"])
def test_the_end_is_where_reading_the_file_through_finds_it(put, kind):
    path = put(kind, kind)
    ends, found = ends_s(path), probe(path)
    assert ends.get("video") == pytest.approx(found.video_s, abs=0.001)
    assert ends.get("audio") == (None if found.audio_s is None else pytest.approx(found.audio_s, abs=0.03))
    assert longest_cut_s(ends.get("video"), ends.get("audio")) == pytest.approx(found.duration_s, abs=0.001)
    end_s = longest_cut_s(ends.get("video"), ends.get("audio"))
    assert read_frames(path, 0, end_s).present[1:].all()  # MP3 in FLV begins a little before the picture


def test_the_header_of_an_mp4_is_enough(put, media, monkeypatch):
    path = put("a.mp4", "lrw.mp4")
    monkeypatch.setattr("bmla.extract.container.MediaFile._packets", lambda *a: pytest.fail("packets were read"))
    assert ends_s(path)["video"] == pytest.approx(1.16)


def test_a_wav_is_as_long_as_its_samples(put, wav):
    path = put("a.wav", wav([0.1] * 4000))
    assert ends_s(path) == {"audio": 0.25}
    assert read_audio(path, 0, 0.25).shape == (4000,)


def test_many_files_keep_their_order_and_their_errors(put, wav):
    paths = [
        put("a.wav", wav([0.1] * 1600)),
        put("b.mp4", b"words" * 100),
        put("c.mp4", "stub"),
        put("d.mp4", "half.mp4"),
    ]
    a, b, c, d = ends_of_many(paths)
    assert a == {"audio": 0.1}
    assert isinstance(b, MediaError)
    assert "b.mp4: no media can be read" in str(b)
    assert "c.mp4: a git-lfs stub" in str(c)
    assert d["video"] == pytest.approx(0.52)


def test_a_file_without_a_sample_holds_nothing(put, wav):
    with pytest.raises(MediaError, match=r"a\.wav"):
        ends_s(put("a.wav", wav([])))


@pytest.mark.parametrize(
    ("picture_s", "sound_s", "cut_s"),
    [(2.0, 2.05, 2.0), (2.0, 1.95, 2.0), (2.0, 1.5, 1.5), (None, 1.5, 1.5), (2.0, None, 2.0)],
)
def test_a_cut_ends_with_the_picture_unless_the_sound_ends_much_earlier(picture_s, sound_s, cut_s):
    assert longest_cut_s(picture_s, sound_s) == cut_s
