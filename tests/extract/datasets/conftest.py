"""Tiny real media for the adapters' trees: one file of each kind is encoded, and copied under many names."""

import io
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

STUB = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 123456\n"


LEFT, RIGHT = 60, 200  # grey levels of the halves of halves.avi


def wav_bytes(samples: np.ndarray, rate_hz: int = 16_000) -> bytes:
    """A mono WAV file of samples in [-1, 1]."""
    held = io.BytesIO()
    with wave.open(held, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes((np.asarray(samples) * 32767).round().astype("<i2").tobytes())
    return held.getvalue()


def jpg_bytes(level: int, width: int = 24, height: int = 16) -> bytes:
    """A picture of one grey level."""
    return cv2.imencode(".jpg", np.full((height, width, 3), level, np.uint8))[1].tobytes()


def encode_halves(path: Path, frames: int) -> Path:
    """A silent AVI of 80 x 48: its left half LEFT, its right half RIGHT, both 1 brighter with each frame."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt, video.bit_rate = 80, 48, "yuv420p", 5_000_000
        for k in range(frames):
            image = np.full((48, 80, 3), LEFT + k, np.uint8)
            image[:, 40:] = RIGHT + k
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode())
    return path


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
    """File contents by kind: lrw.mp4 (1.16 s), grid.mpg (3 s), half.mp4 (0.5 s), silent.mp4 (0.5 s), half.avi,
    half.flv, halves.avi (1.6 s, two halves), stub (git-lfs)."""
    folder = tmp_path_factory.mktemp("media")
    kinds = {
        "lrw.mp4": (29, "libx264", "aac"),
        "grid.mpg": (75, "mpeg1video", "mp2"),
        "half.mp4": (13, "mpeg4", "aac"),
        "silent.mp4": (13, "mpeg4", None),
        "half.avi": (13, "mpeg4", "pcm_s16le"),
        "half.flv": (13, "flv1", "libmp3lame"),
    }
    halves = encode_halves(folder / "halves.avi", 40).read_bytes()
    return {
        "stub": STUB,
        "halves.avi": halves,
        **{name: encode(folder / name, *kind).read_bytes() for name, kind in kinds.items()},
    }


@pytest.fixture
def put(tmp_path, media):
    """put("a/b.mp4", "lrw.mp4") writes a real file; put("a/b.txt", b"...") these bytes; parents are made. Returns the path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(media[content] if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture(scope="session")
def wav():
    """wav(samples, rate_hz=16000): see `wav_bytes`."""
    return wav_bytes


@pytest.fixture(scope="session")
def jpg():
    """jpg(level): see `jpg_bytes`."""
    return jpg_bytes


@pytest.fixture(scope="session")
def halves():
    """The grey levels of the halves of halves.avi."""
    return LEFT, RIGHT


@pytest.fixture(scope="session")
def extracted():
    """extracted(dataset, root, store, *words): `bmla extract` of audio.logspec as typed; the opened store."""

    def run(dataset: str, root: Path, store: Path, *words: str):
        from click.testing import CliRunner

        from bmla.cli import main
        from bmla.store import open_store

        line = ["extract", "--dataset", dataset, "--root", root, "--store", store, "--stream", "audio.logspec"]
        result = CliRunner().invoke(
            main, [*map(str, line), "--workers", "1", "--quiet", "--max-failed", "100%", *words]
        )
        assert result.exit_code == 0, result.output
        return open_store(store)

    return run
