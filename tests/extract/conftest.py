"""A small tree of talking-head clips in LRW's layout: a portrait that drifts, with a tone; and ways to break one of them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

FRAMES, SIZE, RATE_HZ = 29, 256, 16_000
WORDS = ("ABOUT", "PEOPLE")


@pytest.fixture(scope="session")
def portrait():
    """(SIZE + 40, SIZE + 40, 3) uint8: the head of scikit-image's public-domain portrait, with room to move."""
    data = pytest.importorskip(
        "skimage.data", reason="the portrait comes with the extra demo: pip install 'bmla[demo]'"
    )
    return np.ascontiguousarray(data.astronaut()[0 : SIZE + 40, 80 : SIZE + 120])


def write_clip(path: Path, images: np.ndarray, seed: int, sound: bool = True) -> None:
    """An H.264 / AAC file of (T, H, W, 3) images at 25 fps and a little longer noisy tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = images.shape[2], images.shape[1], "yuv420p"
        audio = out.add_stream("aac", rate=RATE_HZ, layout="mono") if sound else None
        for k, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio:
            n = len(images) * RATE_HZ // 25 + 800
            tone = np.sin(np.arange(n) * 2 * np.pi * (200 + 50 * seed) / RATE_HZ)
            noisy = tone + 0.1 * np.random.default_rng(seed).normal(size=n)
            whole = av.AudioFrame.from_ndarray((0.3 * noisy)[None].astype(np.float32), format="fltp", layout="mono")
            whole.sample_rate, whole.pts, whole.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
            fifo = av.AudioFifo()
            fifo.write(whole)
            for part in fifo.read_many(audio.codec_context.frame_size or 1024, partial=True):
                out.mux(audio.encode(part))
            out.mux(audio.encode())


@pytest.fixture(scope="session")
def write():
    """write(path, images, seed, sound=True): see `write_clip`."""
    return write_clip


@pytest.fixture(scope="session")
def make_tree(portrait):
    """make_tree(root, clips a word and split) writes a tree in LRW's layout."""

    def make(root: Path, count: int = 1) -> Path:
        seed = 0
        for word in WORDS:
            for split in ("train", "val", "test"):
                for number in range(1, count + 1):
                    seed += 1
                    moved = [portrait[20 + k % 7 :, 5 * seed % 20 + k % 5 :][:SIZE, :SIZE] for k in range(FRAMES)]
                    path = root / word / split / f"{word}_{number:05d}.mp4"
                    write_clip(path, np.stack(moved), seed)
                    path.with_suffix(".txt").write_text(f"Text:  {word}\nDuration: 0.40 seconds\n")
        return root

    return make


@pytest.fixture(scope="session")
def tree(make_tree, tmp_path_factory):
    """Six clips; not to be changed."""
    return make_tree(tmp_path_factory.mktemp("lrw") / "lipread_mp4")
