"""A portrait that comes with scikit-image, and real clips where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bmla.extract.faces.detector import FaceDetector
from bmla.extract.faces.landmarks import Landmarks68

SHARED = Path(os.environ.get("BMLA_TEST_DATA") or Path(__file__).parents[3].parent / "shared")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """(512, 512, 3) uint8 RGB: one face (NASA's picture of Eileen Collins, public domain)."""
    data = pytest.importorskip("skimage.data", reason="the portrait comes with scikit-image")
    return data.astronaut()


@pytest.fixture(scope="session")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="session")
def landmarks() -> Landmarks68:
    return Landmarks68()


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    path = SHARED / "weights" / "retinaface" / "mobilenet0.25_Final.pth"
    if not path.is_file():
        pytest.skip(f"no checkpoint {path.name} in the test data")
    return path


@pytest.fixture(scope="session")
def grid() -> list[Path]:
    paths = sorted((SHARED / "data" / "grid").rglob("*.mpg"))
    if not paths:
        pytest.skip("no GRID clips in the test data")
    return paths
