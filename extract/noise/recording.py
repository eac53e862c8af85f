"""A recording of noise, of which each clip gets a stretch of its own length."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...store.errors import MediaError, NoSound
from .. import media
from ..encoders.base import SAMPLE_RATE_HZ
from ..weights import sha256_of


class Recording:
    """An audio (or video) file. Its content is part of a stream's specification, its name and place are not."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def samples(self) -> int:
        """Its length at 16 kHz. Raises NoSound, MediaError."""
        length_s = media.probe(self.path).audio_s
        if length_s is None:
            raise NoSound(f"noise file {self.path.name}: no audio stream in it")
        return int(length_s * SAMPLE_RATE_HZ)

    def describe(self) -> dict[str, Any]:
        """Raises NoSound, MediaError."""
        return {
            "file_samples": self.samples,
            "file_sha256": sha256_of(self.path),
            "stretch": "from a random sample of the file on, as long as the clip",
        }

    def stretch(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n,) float32 at 16 kHz, from a random place.

        Raises:
            MediaError: the file is shorter than that, cannot be read, or is silent there.
        """
        if n > self.samples:
            has_s, needs_s = self.samples / SAMPLE_RATE_HZ, n / SAMPLE_RATE_HZ
            raise MediaError(
                f"noise file {self.path.name}: {has_s:.2f} s long, the clip needs {needs_s:.2f} s; use a longer recording"
            )
        start_s = int(rng.integers(0, self.samples - n, endpoint=True)) / SAMPLE_RATE_HZ
        noise = media.read_audio(self.path, start_s, start_s + n / SAMPLE_RATE_HZ)
        if not noise.any():
            raise MediaError(f"noise file {self.path.name}: silent for {n / SAMPLE_RATE_HZ:.2f} s from {start_s:.2f} s")
        return noise
