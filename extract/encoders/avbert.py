"""AVBERT over ten views of sound, of whole pictures or of both: (T, 768) float16 a layer out, T the same for every clip.

*Source:* Lee et al. 2021, with the inputs of AV-SUPERB (Tseng et al. 2024; upstream_models/avbert/expert.py of
https://github.com/roger-tseng/av-superb): ten views of 2.13 s spread evenly over the clip, and three square cuts of the
picture. Of sound: a summary and ten views (11 steps); of pictures: the same, and of each the three cuts (33); of both:
sight's and sound's steps (66, the cuts next to each other, as that code does it by default). A view that is longer than
the clip repeats its last frame, and of its sound there is less, stretched. The protocol counts frames at the
video's own rate; ours is 25 a second. Sound goes from 16 to 44.1 kHz by soxr, where that code uses torchaudio.

Steps are views, not moments: every step is valid, and rate_hz is that of the clips of 10 s that the model was trained on.

Shape legend: V views, F frames of a view, S side, K layers kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import soxr
import torch
from torch.nn.functional import interpolate

from ..upstreams.avbert import AUDIO, VISUAL, AvBertConfig
from ..upstreams.loading import Loaded
from .base import FRAME_RATE_HZ, SAMPLE_RATE_HZ, Crops, Pictures, Sight, Sound
from .device import DeviceBatch, in_batches
from .finite import check_sound
from .parameters import SpeechOptions
from .spectra import stretched_log_mel
from .whole_clip import Whole, WholeClipEncoder, WholeClipInput

SOUND_HZ = 44_100
LEAST_SAMPLES = 16_385  # shorter sound is filled with zeros, before it is resampled
EVERY, AT_HZ = 2, 30  # a view's frames: every second one of 30 a second
CUTS = 3
CLIP_S = 10.0
BATCH_VIEWS = 10
MEAN, DEVIATION = 0.45, 0.225
SOUND = "44.1 kHz by soxr, log(1e-6 + mel), stretched to the view"
PICTURES = "short side by nearest pixel, three square cuts, (x / 255 - 0.45) / 0.225"


@dataclass(frozen=True)
class AvBertInput(WholeClipInput):
    """A clip's spectra (V, 1, M, C), its pictures brought to size, or both."""

    config: AvBertConfig

    def shown(self, clip: Sight | Pictures) -> Crops:
        return Crops(self.sized(clip), clip.valid)

    def sized(self, clip: Sight | Pictures) -> np.ndarray:
        """(T, H, W, 3) uint8 whose shorter side is S."""
        height, width = clip.frames.shape[1:3]
        side = self.config.side
        if min(height, width) == side:
            return clip.frames
        size = (floor(height / width * side), side) if width < height else (side, floor(width / height * side))
        pictures = torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2)
        return interpolate(pictures, size, mode="nearest").permute(0, 2, 3, 1).contiguous().numpy()

    def heard(self, clip: Sound, frames: int) -> np.ndarray:
        """(V, 1, M, C) float32 of a clip with so many pictures."""
        check_sound(clip.samples, 1)
        config = self.config
        filled = np.pad(clip.samples, (0, max(0, LEAST_SAMPLES - len(clip.samples))))
        sound = soxr.resample(filled, SAMPLE_RATE_HZ, SOUND_HZ, quality="HQ")
        length = int(SOUND_HZ * config.frames * EVERY / AT_HZ)
        rest, spare = max(len(sound) - length, 0), slack(frames, config)
        starts = [int(rest * (s / spare)) if spare else 0 for s in view_starts(frames, config)]
        views = [stretched_log_mel(sound[s : s + length], SOUND_HZ, config.bands, config.columns) for s in starts]
        return np.stack(views)[:, None]


class AvBertEncoder(WholeClipEncoder):
    """See the module and `whole_clip.WholeClipEncoder`. One clip after the other: its views fill a batch."""

    def __init__(self, loaded: Loaded, takes: str, options: SpeechOptions, device: str = "cpu", compiled: bool = False):
        self.config: AvBertConfig = loaded.model.config
        of_one = self.config.views + 1
        view_s = round(self.config.frames * EVERY / AT_HZ, 3)
        whole = Whole(
            last=self.config.layers,
            width=self.config.width,
            steps={"sound": of_one, "pictures": CUTS * of_one}.get(takes, 2 * CUTS * of_one),
            spans_s=CLIP_S,
            batch=1,
            ways=("heard", "seen", "single", "multi"),
            parameters={"views": f"a summary and {self.config.views} of {view_s} s, evenly over the clip"},
            sound=SOUND,
            pictures=PICTURES,
            libraries=("torch", "soxr"),
        )
        super().__init__(loaded, takes, options, AvBertInput(self.config), whole, device, compiled)
        self.views = DeviceBatch(BATCH_VIEWS)

    def _hidden(self, sounds: Sequence[np.ndarray] | None, pictures: Sequence[np.ndarray] | None) -> list[torch.Tensor]:
        heard = seen = None
        if sounds is not None:
            spectra = torch.from_numpy(sounds[0]).to(self.device)
            heard = self.call.single(self.call.heard(spectra)[None], AUDIO)  # (1, 1 + V, D) each
        if pictures is not None:
            seen = self.call.single(self._seen(pictures[0]), VISUAL)  # (CUTS, 1 + V, D) each
        if heard and seen:
            hidden = self.call.multi(seen[-1], heard[-1].expand(CUTS, -1, -1))
        else:
            hidden = seen or heard or []
        return [state.transpose(0, 1).flatten(0, 1)[None] for state in hidden]  # the cuts of a step side by side

    def _seen(self, images: np.ndarray) -> torch.Tensor:
        """(T, H, W, 3) uint8 -> (CUTS, V, D) tokens."""
        pictures = torch.from_numpy(images)
        wanted = [
            (top, left, frames)
            for top, left in cuts(images.shape[1], images.shape[2], self.config.side)
            for frames in self._frames(len(images))
        ]
        tokens = in_batches(lambda part: self._tokens(pictures, part), wanted, self.views)
        return torch.stack(tokens).view(CUTS, self.config.views, -1)

    def _frames(self, count: int) -> Iterator[torch.Tensor]:
        """Which frames each view shows."""
        config = self.config
        for start in view_starts(count, config):
            places = torch.linspace(start, start + span(config) - 1, config.frames)
            yield places.clamp(0, count - 1).long()

    def _tokens(self, pictures: torch.Tensor, wanted: Sequence[tuple[int, int, torch.Tensor]]) -> torch.Tensor:
        side = self.config.side
        views = [pictures[frames, top : top + side, left : left + side] for top, left, frames in wanted]
        x = torch.stack(views).permute(0, 4, 1, 2, 3).to(self.device)  # (N, 3, F, S, S)
        return self.call.seen((x.float() / 255 - MEAN) / DEVIATION)


def span(config: AvBertConfig) -> float:
    """Frames at 25 a second that a view spans."""
    return config.frames * EVERY * FRAME_RATE_HZ / AT_HZ


def slack(frames: int, config: AvBertConfig) -> float:
    """Frames by which a clip is longer than a view."""
    return max(frames - span(config), 0.0)


def view_starts(frames: int, config: AvBertConfig) -> list[float]:
    """Where the views begin, in frames."""
    return [slack(frames, config) * view / (config.views - 1) for view in range(config.views)]


def cuts(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Top and left of three squares along the longer side: at its beginning, in its middle, at its end."""
    top, left = ceil((height - side) / 2), ceil((width - side) / 2)
    if height > width:
        return [(0, left), (top, left), (height - side, left)]
    return [(top, 0), (top, left), (top, width - side)]
