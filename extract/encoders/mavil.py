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

import numpy as np
import torch
from torch.nn.functional import interpolate

from ..upstreams.loading import Loaded
from ..upstreams.mavil import MavilConfig, pool
from .base import FRAME_RATE_HZ, Crops, Pictures, Sight, Sound
from .finite import check_sound
from .parameters import SpeechOptions
from .spectra import FRAME, kaldi_log_mel
from .whole_clip import Whole, WholeClipEncoder, WholeClipInput

PICTURES_HZ = 2
CLIP_S = 10.0
BATCH_CLIPS = 16
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SOUND = "Kaldi's log filterbank, (x - mean) / (2 deviations) of the clip"
PICTURES = "8 at 2 Hz, 224 x 224 bilinear, ImageNet's mean and deviation"


@dataclass(frozen=True)
class MavilInput(WholeClipInput):
    """A clip's spectrum (columns, bands), its few pictures, or both."""

    config: MavilConfig

    def shown(self, clip: Sight | Pictures) -> Crops:
        frames = shown_frames(len(clip.frames), self.config.frames)
        return Crops(clip.frames[frames], clip.valid[frames])

    def heard(self, clip: Sound, frames: int) -> np.ndarray:
        check_sound(clip.samples, FRAME)
        found = kaldi_log_mel(clip.samples - clip.samples.mean(dtype=np.float64), self.config.bands)[
            : self.config.columns
        ]
        filled = np.zeros((self.config.columns, self.config.bands))
        filled[: len(found)] = found
        return ((filled - filled.mean()) / (2 * filled.std(ddof=1))).astype(np.float32)


class MavilEncoder(WholeClipEncoder):
    """See the module and `whole_clip.WholeClipEncoder`."""

    def __init__(self, loaded: Loaded, takes: str, options: SpeechOptions, device: str = "cpu", compiled: bool = False):
        config: MavilConfig = loaded.model.config
        self.joint, self.side = "+" in takes, config.side
        whole = Whole(
            last=config.layers_av if self.joint else config.layers,
            width=config.width * (2 if self.joint else 1),
            steps=1,
            spans_s=CLIP_S,
            batch=BATCH_CLIPS,
            ways=("audio", "video", "both"),
            parameters={"pooling": "mean over patches" + (", sound and sight side by side" if self.joint else "")},
            sound=SOUND,
            pictures=PICTURES,
            libraries=("torch",),
        )
        super().__init__(loaded, takes, options, MavilInput(config), whole, device, compiled)

    def _hidden(self, sounds: Sequence[np.ndarray] | None, pictures: Sequence[np.ndarray] | None) -> list[torch.Tensor]:
        heard = seen = None
        last = None if self.joint else self.layers[-1]
        if sounds is not None:
            heard = self.call.audio(torch.from_numpy(np.stack(sounds))[:, None].to(self.device), last)
        if pictures is not None:
            seen = self.call.video(torch.stack([self._pictures(images) for images in pictures]), last)
        if heard and seen:
            hidden = self.call.both(heard[-1], seen[-1])
        else:
            hidden = [pool(state) for state in seen or heard or ()]
        return [state[:, None] for state in hidden]

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
