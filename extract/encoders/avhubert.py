"""AV-HuBERT over sound, over the mouth or over both: (T, D) float16 a layer out, 25 steps a second.

*Source:* Shi et al. 2022 and the public code, https://github.com/facebookresearch/av_hubert: grey mouth crops of 88 x 88 as
(x / 255 - 0.421) / 0.165, stacked filterbanks (see `filterbank`). A stream of sound alone or of sight alone gives the
other half as zeros behind its front end, as that code's `extract_finetune` does. Layers: see `upstreams.avhubert`.

AV-SUPERB (Tseng et al. 2024) takes two: what goes into the encoder, before the positional convolution, and the last layer's
output; it feeds the middle 88 pixels of whatever picture it is given. Here layers are chosen, and the crop is of the mouth.

A stream of both is valid where the picture is. Only clips of equal length share a batch.

Shape legend: B clips, T steps, K layers kept, D width, S side of a crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch

from ...store.reading.device import pick_device
from ..faces.crops import cropped
from ..faces.policy import MouthCrop
from ..upstreams.loading import Loaded
from .base import FRAME_RATE_HZ, Both, Crops, CropsAndSound, Features, Sight, Sound, frames_of, samples_of
from .device import DeviceBatch, called, computing, describe_precision
from .filterbank import FRAME, stacked_filterbank, steps_of_sound
from .finite import check_sound
from .hidden import describe_layers, finish_by_length, kept
from .parameters import AvHubertSightOptions, SpeechOptions
from .pictures import FRAME_LAW

TAKES = ("sound", "sight", "sound+sight")
BATCH_STEPS = 400  # the first convolution over pictures takes half a megabyte a step
MEAN, DEVIATION = 0.421, 0.165
SOUND = "log filterbank 4 x 26 (25 ms, 10 ms), normalised by step"
SIGHT = "grey, (x / 255 - 0.421) / 0.165"


@dataclass(frozen=True)
class AvHubertInput:
    """A clip's filterbanks, its mouth, or both. crop: None for sound alone."""

    takes: str
    crop: MouthCrop | None

    def prepare(self, clip: Sound | Sight | Both) -> np.ndarray | Crops:
        """Raises MediaError for sound shorter than one frame, or with samples that are no numbers."""
        sound = clip.sound if isinstance(clip, Both) else clip
        sight = clip.sight if isinstance(clip, Both) else clip
        if isinstance(sound, Sound):
            check_sound(sound.samples, FRAME)
        if self.crop is None:
            assert isinstance(sound, Sound)
            return stacked_filterbank(sound.samples, steps_of_sound(len(sound.samples)))
        assert isinstance(sight, Sight)
        images, valid = cropped(sight, self.crop), sight.valid.copy()
        if not isinstance(sound, Sound):
            return Crops(images, valid)
        return CropsAndSound(images, valid, stacked_filterbank(sound.samples, len(images)))


class AvHubertEncoder:
    """See the module.

    Args:
        loaded: see `upstreams.loading.open_upstream`.
        takes: one of TAKES.
        options: with a crop where it sees.
        device: such as "cpu" or "cuda:0".
        compiled: see `device.Compiled`.

    Raises:
        UsageError: for a layer that the model has not.
    """

    dtype = "float16"
    waits = None  # a batch of clips is gathered by length in `finish`
    rate_hz = float(FRAME_RATE_HZ)

    def __init__(
        self,
        loaded: Loaded,
        takes: str,
        options: SpeechOptions | AvHubertSightOptions,
        device: str = "cpu",
        compiled: bool = False,
    ):
        self.takes, self.loaded, self.options = takes, loaded, options
        config: Any = loaded.model.config
        self.last: int = config.layers
        self.layers = options.layers(self.last)
        self.frame_law = FRAME_LAW if "sight" in takes else "T = max(1, round(n / 640)) for n samples at 16 kHz"
        self.feature_shape: tuple[int, ...] = (*((len(self.layers),) if options.several else ()), config.width)
        if isinstance(options, AvHubertSightOptions):
            self.crop = options.crop()
        self.preparer = AvHubertInput(takes, getattr(self, "crop", None))
        self.device = pick_device(device)
        self.batch = DeviceBatch(BATCH_STEPS)
        self.call = called(loaded.model.to(self.device), compiled)

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s) if "sight" in self.takes else steps_of_sound(samples_of(duration_s))

    def describe(self) -> dict[str, Any]:
        hears, sees = "sound" in self.takes, "sight" in self.takes
        return {
            "weights": self.loaded.weights,
            "parameters": {
                "modality": "audio-visual" if hears and sees else "audio" if hears else "visual",
                **describe_layers(self.options, self.layers, self.last),
                **({"sound": SOUND} if hears else {}),
                **({"pictures": SIGHT} if sees else {}),
                **({} if hears and sees else {"other_modality": "zeros behind its front end"}),
                **describe_precision(self.options.precision),
            },
            **({"crop": self.crop.describe()} if sees else {}),
            "versions": {name: metadata.version(name) for name in ("torch", "torchvision")},
        }

    def finish(self, prepared: Sequence[Any]) -> list[Features]:
        """Raises MediaError for a clip whose features are not finite in float16."""
        lengths = [len(p.images if isinstance(p, Crops) else p) for p in prepared]
        valid = [p.valid if isinstance(p, Crops) else None for p in prepared]
        return finish_by_length(prepared, lengths, valid, self._forward, self.batch, self.options.precision)

    def _forward(self, clips: Sequence[Any], precision: str) -> np.ndarray:
        """B clips of equal length -> (B, T, D) or, of several layers, (B, T, K, D); float32."""
        audio = self._tensor([c.sound if isinstance(c, CropsAndSound) else c for c in clips], "sound")
        video = self._tensor([c.images if isinstance(c, Crops) else c for c in clips], "sight")
        if video is not None:
            video = (video.float() / 255 - MEAN) / DEVIATION
        with computing(precision, self.device):
            return kept(self.call(audio, video, self.layers[-1]), self.layers, self.options.several)

    def _tensor(self, parts: list[np.ndarray], of: str) -> torch.Tensor | None:
        return torch.from_numpy(np.stack(parts)).to(self.device) if of in self.takes else None
