"""MAViL over sound, over whole pictures or over both: one step of (768,) or, of both, (1536,) float16 a layer out.

*Source:* Huang et al. 2023, with the inputs and the pooling of AV-SUPERB (Tseng et al. 2024; upstream_models/mavil/expert.py of
https://github.com/roger-tseng/av-superb): 10.24 s of Kaldi's filterbanks, less of them filled with zeros, normalised by
their own mean and twice their deviation; eight pictures at two a second from the clip's start, repeated where it is over,
at 224 x 224 (bilinear, without antialiasing, as torchvision did on tensors then). What a clip has beyond that is not seen.

The step is the whole clip: it is valid, and rate_hz is that of a clip of 10 s.

Shape legend: K layers kept, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from ..upstreams.loading import Loaded
from ..upstreams.mavil import MavilConfig, pool
from .base import FRAME_RATE_HZ, Both, Crops, CropsAndSound, Features, Pictures, Sight, Sound
from .device import DeviceBatch, computing, describe_precision, pick_device
from .finite import check_sound
from .hidden import describe_layers, finish_by_length, kept
from .parameters import SpeechOptions
from .spectra import FRAME, kaldi_log_mel

PICTURES_HZ = 2
CLIP_S = 10.0
BATCH_CLIPS = 16
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SOUND = "Kaldi's log filterbank, (x - mean) / (2 deviations) of the clip"
PICTURES = "8 at 2 Hz, 224 x 224 bilinear, ImageNet's mean and deviation"


@dataclass(frozen=True)
class MavilInput:
    """A clip's spectrum (columns, bands), its few pictures, or both."""

    config: MavilConfig

    def prepare(self, clip: Sound | Sight | Pictures | Both) -> np.ndarray | Crops:
        """Raises MediaError for sound shorter than one frame, or with samples that are no numbers."""
        if isinstance(clip, Sound):
            return self.spectrum(clip)
        sight = clip.sight if isinstance(clip, Both) else clip
        shown = shown_frames(len(sight.frames), self.config.frames)
        images, valid = sight.frames[shown], sight.valid[shown]
        return (
            CropsAndSound(images, valid, self.spectrum(clip.sound)) if isinstance(clip, Both) else Crops(images, valid)
        )

    def spectrum(self, clip: Sound) -> np.ndarray:
        check_sound(clip.samples, FRAME)
        found = kaldi_log_mel(clip.samples - clip.samples.mean(dtype=np.float64), self.config.bands)[
            : self.config.columns
        ]
        filled = np.zeros((self.config.columns, self.config.bands))
        filled[: len(found)] = found
        return ((filled - filled.mean()) / (2 * filled.std(ddof=1))).astype(np.float32)


class MavilEncoder:
    """See the module.

    Args:
        loaded: see `upstreams.loading.open_upstream`.
        takes: "sound", "pictures" or "sound+pictures".
        device: such as "cpu" or "cuda:0".

    Raises:
        UsageError: for a layer that the model has not.
    """

    dtype = "float16"
    waits = None  # a batch of clips is gathered by length in `finish`
    rate_hz = 1 / CLIP_S
    frame_law = "T = 1, whatever the clip's length"

    def __init__(self, loaded: Loaded, takes: str, options: SpeechOptions, device: str = "cpu"):
        self.takes, self.loaded, self.options = takes, loaded, options
        config: Any = loaded.model.config
        self.joint = "+" in takes
        self.last: int = config.layers_av if self.joint else config.layers
        self.layers = options.layers(self.last)
        width = config.width * (2 if self.joint else 1)
        self.feature_shape: tuple[int, ...] = (*((len(self.layers),) if options.several else ()), width)
        self.side: int = config.side
        self.preparer = MavilInput(config)
        self.device = pick_device(device)
        self.batch = DeviceBatch(BATCH_CLIPS)
        self.model: Any = loaded.model.to(self.device)

    def steps(self, duration_s: float) -> int:
        return 1

    def describe(self) -> dict[str, Any]:
        hears, sees = "sound" in self.takes, "pictures" in self.takes
        return {
            "weights": self.loaded.weights,
            "parameters": {
                "modality": "audio-visual" if self.joint else "audio" if hears else "visual",
                **describe_layers(self.options, self.layers, self.last),
                "pooling": "mean over patches" + (", sound and sight side by side" if self.joint else ""),
                **({"sound": SOUND} if hears else {}),
                **({"pictures": PICTURES} if sees else {}),
                **describe_precision(self.options.precision),
            },
            "versions": {name: metadata.version(name) for name in ("torch",)},
        }

    def finish(self, prepared: Sequence[Any]) -> list[Features]:
        """Clips share batches: all are of one size. Raises MediaError for features that are not finite in float16."""
        alike = [1] * len(prepared)
        return finish_by_length(
            prepared, alike, [None] * len(prepared), self._forward, self.batch, self.options.precision
        )

    def _forward(self, clips: Sequence[Any], precision: str) -> np.ndarray:
        """B clips -> (B, 1, D) or (B, 1, K, D); float32."""
        last = None if self.joint else self.layers[-1]
        with computing(precision, self.device):
            heard = seen = None
            if "sound" in self.takes:
                spectra = np.stack([clip.sound if isinstance(clip, CropsAndSound) else clip for clip in clips])
                heard = self.model.audio(torch.from_numpy(spectra)[:, None].to(self.device), last)
            if "pictures" in self.takes:
                seen = self.model.video(torch.stack([self._pictures(clip.images) for clip in clips]), last)
            if heard and seen:
                hidden = self.model.both(heard[-1], seen[-1])
            else:
                hidden = [pool(state) for state in seen or heard or ()]
            return kept([state[:, None] for state in hidden], self.layers, self.options.several)

    def _pictures(self, images: np.ndarray) -> torch.Tensor:
        """(F, H, W, 3) uint8 -> (3, F, S, S)."""
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float() / 255
        x = interpolate(x, (self.side, self.side), mode="bilinear", align_corners=False)
        mean, deviation = (torch.tensor(values, device=self.device)[:, None, None] for values in (MEAN, DEVIATION))
        return ((x - mean) / deviation).transpose(0, 1)


def shown_frames(count: int, wanted: int) -> np.ndarray:
    """Which of a clip's frames, 25 a second, are shown: two a second, from the first again where they are over."""
    step = FRAME_RATE_HZ / PICTURES_HZ
    found = np.floor(np.arange(max(1, int(count / step))) * step).astype(int)
    return np.resize(found, wanted)
