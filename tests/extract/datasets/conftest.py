"""Tiny real media for the adapters' trees: one file of each kind is encoded, and copied under many names."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

STUB = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 123456\n"


def encode(path: Path, frames: int, video_codec: str, audio_codec: str | None, rate_hz: int = 44_100) -> Path:
    with av.open(str(path), "w") as out:
        video = out.add_stream(video_codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = out.add_stream(audio_codec, rate=rate_hz, layout="mono") if audio_codec else None
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 3 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio:
            sound = np.random.default_rng(0).integers(-3000, 3000, (1, frames * rate_hz // 25), np.int16)
            fifo, resampler = av.AudioFifo(), av.AudioResampler(format=audio.format.name, layout="mono", rate=rate_hz)
            whole = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
            whole.sample_rate, whole.pts, whole.time_base = rate_hz, 0, Fraction(1, rate_hz)
            for part in resampler.resample(whole):
                fifo.write(part)
            for part in fifo.read_many(audio.codec_context.frame_size or 1024, partial=True):
                out.mux(audio.encode(part))
            out.mux(audio.encode())
    return path


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> dict[str, bytes]:
    """File contents by kind: lrw.mp4 (1.16 s), grid.mpg (3 s), half.mp4 (0.5 s), silent.mp4 (0.5 s), half.avi, stub (git-lfs)."""
    folder = tmp_path_factory.mktemp("media")
    kinds = {
        "lrw.mp4": (29, "libx264", "aac"),
        "grid.mpg": (75, "mpeg1video", "mp2"),
        "half.mp4": (13, "mpeg4", "aac"),
        "silent.mp4": (13, "mpeg4", None),
        "half.avi": (13, "mpeg4", "pcm_s16le"),
    }
    return {"stub": STUB, **{name: encode(folder / name, *kind).read_bytes() for name, kind in kinds.items()}}


@pytest.fixture
def put(tmp_path, media):
    """put("a/b.mp4", "lrw.mp4") writes a real file; put("a/b.txt", b"...") these bytes; parents are made. Returns the path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(media[content] if isinstance(content, str) else content)
        return path

    return write
