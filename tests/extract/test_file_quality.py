"""By how much a file's sound is longer than its picture, in files made for it; and in the ledger."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bmla.extract import quality
from bmla.extract.extraction import extract
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.quality import quality_of_files
from bmla.extract.tools import ToolConfig
from bmla.store import open_store
from bmla.store.clips import Clip
from bmla.store.quality import gathered

NAME = "audio_minus_video_s"
RATE_HZ = 16_000
CODECS = {".mp4": ("mpeg4", "aac"), ".avi": ("mpeg4", "pcm_s16le"), ".wav": (None, "pcm_s16le")}


def put(path: Path, frames: int, sound_s: float) -> Path:
    """A file of some grey pictures at 25 a second and so much noise; 0: without it."""
    kinds = dict(zip(("video", "audio"), CODECS[path.suffix], strict=True))
    with av.open(str(path), "w") as out:
        video = out.add_stream(kinds["video"], rate=25) if frames else None
        audio = out.add_stream(kinds["audio"], rate=RATE_HZ, layout="mono") if sound_s else None
        if video:
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            for k in range(frames):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * k % 255, np.uint8), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(video.encode(frame))
            out.mux(video.encode())
        if audio:
            noise = np.random.default_rng(0).integers(-9000, 9000, round(sound_s * RATE_HZ)).astype(np.int16)
            fifo = av.AudioFifo()
            whole = av.AudioFrame.from_ndarray(noise[None], format="s16", layout="mono")
            whole.sample_rate, whole.pts, whole.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
            fifo.write(whole)
            resampler = av.AudioResampler(format=audio.codec_context.format.name, layout="mono", rate=RATE_HZ)
            for part in fifo.read_many(1024, partial=True):
                for fitting in resampler.resample(part):
                    out.mux(audio.encode(fitting))
            out.mux(audio.encode())
    return path


def clip_of(video: str | None, audio: str | None, end_s: float = 0.4, **changes) -> Clip:
    return Clip("a", changes.pop("start_s", 0.0), end_s, video=video, audio=audio, **changes)


@pytest.mark.parametrize(("sound_s", "tolerance_s"), [(0.6, 0.07), (1.0, 0.07), (1.5, 0.07)])
@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_one_file_whose_sound_is_shorter_or_longer(tmp_path, name, sound_s, tolerance_s):
    put(tmp_path / name, 25, sound_s)
    found = quality_of_files(clip_of(name, name), tmp_path)
    assert found[NAME] == pytest.approx(sound_s - 1.0, abs=tolerance_s)  # AAC comes in whole frames of 64 ms
    assert quality_of_files(clip_of(name, name, start_s=0.2), tmp_path) == found  # a fact of the file, not of the cut


def test_two_files_that_begin_together_and_two_that_do_not(tmp_path):
    put(tmp_path / "a.avi", 25, 0)
    put(tmp_path / "a.wav", 0, 0.75)
    assert quality_of_files(clip_of("a.avi", "a.wav"), tmp_path) == {NAME: pytest.approx(-0.25, abs=1e-6)}
    assert quality_of_files(clip_of("a.avi", "a.wav", start_s=0.1, audio_offset_s=0.1), tmp_path) == {}


def test_what_is_not_known_is_left_out(tmp_path, monkeypatch):
    put(tmp_path / "a.avi", 10, 0)
    put(tmp_path / "b.avi", 10, 0.4)
    (tmp_path / "c.mp4").write_bytes(b"nothing")
    (tmp_path / "pictures").mkdir()
    for video, audio in (("a.avi", "a.avi"), ("a.avi", None), (None, "b.avi"), ("c.mp4", "c.mp4"), ("d.avi", "d.avi")):
        assert quality_of_files(clip_of(video, audio), tmp_path) == {}
    assert quality_of_files(clip_of("pictures", "b.avi", fps=25), tmp_path) == {}
    monkeypatch.setattr(quality, "MOST_BYTES", 1000)
    assert quality_of_files(clip_of("b.avi", "b.avi"), tmp_path) == {}


def test_a_file_that_has_changed_is_looked_at_again(tmp_path):
    clip = clip_of("a.avi", "a.avi")
    put(tmp_path / "a.avi", 25, 1.0)
    first = quality_of_files(clip, tmp_path)[NAME]
    put(tmp_path / "a.avi", 25, 2.0)
    assert quality_of_files(clip, tmp_path)[NAME] - first == pytest.approx(1.0, abs=0.07)


def test_the_ledger_holds_it_whichever_stream_is_made(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for name, sound_s in (("same", 1.0), ("longer", 1.5), ("mute", 0.0)):
        put(root / f"{name}.avi", 25, sound_s)
    table = "".join(
        f"{n},{n}.avi,{n}.avi,a,{split}\n" for n, split in (("same", "train"), ("longer", "dev"), ("mute", "test"))
    )
    (root / "clips.csv").write_text("id,video,audio,label,split\n" + table)
    config = ExtractConfig("manifest", root / "clips.csv", tmp_path / "s.zarr", ToolConfig(("audio.logspec",)))
    extract(make_plan(config), lambda *a: None, lambda n: None)
    store = open_store(config.store)
    columns = gathered(((e.start, e.quality) for e in store.entries("audio.logspec")), len(store.clips))
    found = dict(zip(store.clips.column("id"), columns[NAME], strict=True))
    assert found["same"] == pytest.approx(0, abs=0.05)
    assert found["longer"] == pytest.approx(0.5, abs=0.05)
    assert np.isnan(found["mute"])
