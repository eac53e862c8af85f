"""Clips for the encoders: seeded sound, and a real face (NASA's portrait that comes with scikit-image) that sways."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bmla.extract.encoders.base import Sight, Sound, frames_of, samples_of

FACE = (175, 76, 265, 166)  # x0 y0 x1 y1 in the portrait
VIEW_PX = 224


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker of an extraction."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def portrait() -> tuple[np.ndarray, np.ndarray]:
    """(512, 512, 3) uint8 RGB and the (68, 2) landmarks that Dlib finds on it."""
    import dlib

    from bmla.extract.weights import DLIB_LANDMARKS, face_recognition_model

    image = pytest.importorskip("skimage.data").astronaut()
    predictor = dlib.shape_predictor(str(face_recognition_model(DLIB_LANDMARKS)))
    found = predictor(image, dlib.rectangle(*FACE))
    return image, np.array([(p.x, p.y) for p in found.parts()], np.float32)


@pytest.fixture(scope="session")
def make_sight(portrait: tuple[np.ndarray, np.ndarray]) -> Callable[[float, int], Sight]:
    """Seconds and a seed to a clip: a window on the portrait that sways in changing light, a frame in five not valid."""
    image, landmarks = portrait

    def make(duration_s: float, seed: int = 0) -> Sight:
        rng = np.random.default_rng(seed)
        steps = frames_of(duration_s)
        phase = 2 * np.pi * (np.arange(steps) / 12 + rng.random())
        left = (110 + 8 * np.sin(phase)).astype(int)
        top = (20 + 5 * np.cos(phase)).astype(int)
        window = np.stack([image[y : y + VIEW_PX, x : x + VIEW_PX] for x, y in zip(left, top, strict=True)])
        light = 0.8 + 0.2 * np.sin(phase[:, None] + np.arange(VIEW_PX) / 30)  # (T, W): shadows that wander
        frames = (window * light[:, None, :, None]).astype(np.uint8)
        moved = np.stack([left, top], axis=1).astype(np.float32)  # (T, 2)
        valid = rng.random(steps) > 0.2
        return Sight(
            frames=frames,
            boxes=np.array(FACE, np.float32) - np.tile(moved, 2),
            landmarks=landmarks - moved[:, None],
            valid=valid,
            scores=valid.astype(np.float32),
        )

    return make


@pytest.fixture(scope="session")
def make_sound() -> Callable[[float, int], Sound]:
    """Seconds and a seed to a clip: noise whose loudness changes with the seed."""

    def make(duration_s: float, seed: int = 0) -> Sound:
        rng = np.random.default_rng(seed)
        loudness = rng.uniform(0.01, 0.3)
        return Sound((loudness * rng.standard_normal(samples_of(duration_s))).astype(np.float32))

    return make
