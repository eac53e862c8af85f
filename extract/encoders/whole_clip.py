"""What encoders share that see a clip as a whole: as many steps out, however long it is.

AVBERT looks at ten views of it, MAViL at its first ten seconds. Either is given sound, whole pictures or both.

Shape legend: B clips, T steps, K layers kept, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch

from ...store.reading.device import pick_device
from ..upstreams.loading import Loaded
from .base import SAMPLE_RATE_HZ, Both, Crops, CropsAndSound, Features, Pictures, Sight, Sound, frames_of
from .device import DeviceBatch, called, computing, describe_precision
from .hidden import describe_layers, finish_by_length, kept
from .parameters import SpeechOptions


class WholeClipInput(ABC):
    """The first step: a clip's sound, its pictures, or both."""

    def prepare(self, clip: Sound | Sight | Pictures | Both) -> np.ndarray | Crops:
        """Raises MediaError for a clip without sound enough, or with samples that are no numbers."""
        if isinstance(clip, Sound):
            return self.heard(clip, frames_of(len(clip.samples) / SAMPLE_RATE_HZ))
        sight = clip.sight if isinstance(clip, Both) else clip
        shown = self.shown(sight)
        if not isinstance(clip, Both):
            return shown
        return CropsAndSound(shown.images, shown.valid, self.heard(clip.sound, len(sight.frames)))

    @abstractmethod
    def heard(self, clip: Sound, frames: int) -> np.ndarray:
        """float32 of a clip with so many pictures."""

    @abstractmethod
    def shown(self, clip: Sight | Pictures) -> Crops:
        """The pictures that the model looks at, uint8."""


@dataclass(frozen=True)
class Whole:
    """What is particular to a model and to what it takes.

    Attributes:
        last: the number of its last layer.
        width: D.
        steps: T of every clip.
        spans_s: how long the clips are that it was trained on.
        batch: clips that go through at once.
        ways: the model's methods that are called: see `device.called`.
        parameters, sound, pictures: for the stream specification.
        libraries: that shape the numbers.
    """

    last: int
    width: int
    steps: int
    spans_s: float
    batch: int
    ways: tuple[str, ...]
    parameters: dict[str, Any]
    sound: str
    pictures: str
    libraries: tuple[str, ...]


class WholeClipEncoder(ABC):
    """The second step, and all that is said of both. `_hidden` is the model's own.

    Args:
        loaded: see `upstreams.loading.open_upstream`.
        takes: "sound", "pictures" or "sound+pictures".
        device: such as "cpu" or "cuda:0".
        compiled: see `device.Compiled`.

    Raises:
        UsageError: for a layer that the model has not.
    """

    dtype = "float16"
    waits = None  # clips are all of one length here

    def __init__(
        self,
        loaded: Loaded,
        takes: str,
        options: SpeechOptions,
        preparer: WholeClipInput,
        whole: Whole,
        device: str = "cpu",
        compiled: bool = False,
    ):
        self.loaded, self.takes, self.options, self.preparer, self.whole = loaded, takes, options, preparer, whole
        self.hears, self.sees = "sound" in takes, "pictures" in takes
        self.layers = options.layers(whole.last)
        self.feature_shape: tuple[int, ...] = (*((len(self.layers),) if options.several else ()), whole.width)
        self.rate_hz = whole.steps / whole.spans_s
        self.frame_law = f"T = {whole.steps}, whatever the clip's length"
        self.device = pick_device(device)
        self.batch = DeviceBatch(whole.batch)
        self.call = called(loaded.model.to(self.device), compiled, *whole.ways)

    def steps(self, duration_s: float) -> int:
        return self.whole.steps

    def describe(self) -> dict[str, Any]:
        whole = self.whole
        return {
            "weights": self.loaded.weights,
            "parameters": {
                "modality": "audio-visual" if self.hears and self.sees else "audio" if self.hears else "visual",
                **describe_layers(self.options, self.layers, whole.last),
                **whole.parameters,
                **({"sound": whole.sound} if self.hears else {}),
                **({"pictures": whole.pictures} if self.sees else {}),
                **describe_precision(self.options.precision),
            },
            "versions": {name: metadata.version(name) for name in whole.libraries},
        }

    def finish(self, prepared: Sequence[Any]) -> list[Features]:
        """Every step is valid. Raises MediaError for features that are not finite in float16."""
        alike, valid = [1] * len(prepared), [None] * len(prepared)
        return finish_by_length(prepared, alike, valid, self._forward, self.batch, self.options.precision)

    def _forward(self, clips: Sequence[Any], precision: str) -> np.ndarray:
        """B clips -> (B, T, D) or, of several layers, (B, T, K, D); float32."""
        sounds = [clip.sound if isinstance(clip, CropsAndSound) else clip for clip in clips] if self.hears else None
        pictures = [clip.images for clip in clips] if self.sees else None
        with computing(precision, self.device):
            return kept(self._hidden(sounds, pictures), self.layers, self.options.several)

    @abstractmethod
    def _hidden(self, sounds: Sequence[np.ndarray] | None, pictures: Sequence[np.ndarray] | None) -> list[torch.Tensor]:
        """What was prepared of B clips -> hidden states (B, T, D)."""
