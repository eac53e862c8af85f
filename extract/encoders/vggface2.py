"""VGGFace2 embeddings: (T, H, W, 3) frames with face boxes in, (T, 512) float16 out.

*Source:* section 4.1.2 of the BalanceMLA paper: RetinaFace crops of 128 x 128, encoded by "a VGG network" into 1024
dimensions, elsewhere "a pre-trained VGGFace2 network". No such network is published with its weights; ours is the
InceptionResnetV1 that facenet-pytorch publishes, trained on VGGFace2: 512 dimensions, unit length. It wants
160 x 160 pixels scaled by (x - 127.5) / 128, so that the size of the crop and of the network's input are two parameters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models.inception_resnet_v1 import BasicConv2d
from torch import nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...store.errors import BmlaError, UnknownName, UsageError
from ..faces.crops import FaceCrop, face_crop
from ..weights import FACENET_FILES, find_facenet, first_line, sha256_of
from .base import FRAME_RATE_HZ, Features, Sight, frames_of
from .device import full_precision, pick_device
from .finite import place_of, to_float16

EMBEDDING = 512
BATCH_FACES = 64
HEAD = "logits."  # the published files also hold the classifier that the network was trained with

RANDOM_MODEL = "random:vggface2"
RANDOM_SEED = 0


@dataclass(frozen=True)
class VggFace2Options:
    """Sizes in pixels.

    Attributes:
        crop_px: side of the face crop, 128 in the paper.
        input_px: side of what the network is given; it was trained with 160.
    """

    crop_px: int = 128
    input_px: int = 160

    def __post_init__(self) -> None:
        if self.crop_px < 1 or self.input_px < 80:  # the network's strides leave nothing of less
            raise UsageError(
                f"face.vggface2: crop {self.crop_px} px, input {self.input_px} px; expected at least 1 and 80"
            )


@dataclass(frozen=True)
class FaceNetwork:
    """A loaded network and where it came from (as in the stream specification)."""

    model: nn.Module
    weights: dict[str, Any]


class VggFace2Encoder:
    """See the module.

    Args:
        network: see `load_face_network`.
        device: such as "cpu" or "cuda:0".
    """

    takes = "sight"
    dtype = "float16"
    feature_shape: tuple[int, ...] = (EMBEDDING,)
    rate_hz = float(FRAME_RATE_HZ)
    frame_law = f"T = max(1, round({FRAME_RATE_HZ} x seconds))"

    def __init__(self, network: FaceNetwork, options: VggFace2Options = VggFace2Options(), device: str = "cpu"):
        self.network = network
        self.options = options
        self.crop = FaceCrop(size_px=options.crop_px)
        self.device = pick_device(device)
        model = fold_batch_norm(network.model.eval()).to(self.device)
        self.model = model.to(memory_format=torch.channels_last)  # a quarter less time on a CPU

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s)

    def describe(self) -> dict[str, Any]:
        return {
            "weights": self.network.weights,
            "parameters": {
                "input_px": self.options.input_px,
                "resize": "bilinear, antialiased",
                "scale": "(x - 127.5) / 128",
            },
            "crop": self.crop.describe(),
            "versions": {name: metadata.version(name) for name in ("facenet-pytorch", "torch")},
        }

    def encode(self, clips: Sequence[Sight]) -> list[Features]:
        """Faces of all clips share batches: in eval mode no face sees another."""
        if not clips:
            return []
        crops = np.concatenate([face_crop(clip.frames, clip.boxes, self.crop) for clip in clips])
        embedded = np.concatenate(list(self._embed(crops)))
        ends = np.cumsum([len(clip.frames) for clip in clips])
        return [
            Features(to_float16(values, place_of(i, len(clips))), clip.valid.copy())
            for i, (values, clip) in enumerate(zip(np.split(embedded, ends[:-1]), clips, strict=True))
        ]

    @torch.inference_mode()
    def _embed(self, crops: np.ndarray) -> Iterator[np.ndarray]:
        """(B, S, S, 3) uint8 -> (b, 512) float32, a batch at a time."""
        for i in range(0, len(crops), BATCH_FACES):
            faces = network_input(crops[i : i + BATCH_FACES], self.options.input_px)
            faces = faces.to(device=self.device, memory_format=torch.channels_last)
            with full_precision():
                embedded = self.model((faces.float() - 127.5) / 128)
            yield embedded.cpu().numpy()


def network_input(crops: np.ndarray, size_px: int) -> torch.Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, size, size) uint8, resized as facenet-pytorch does it: in whole grey levels.

    On uint8 torch's antialiased bilinear equals Pillow's, bit for bit where it enlarges.
    """
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()
    if images.shape[-1] == size_px:
        return images
    return interpolate(images, (size_px, size_px), mode="bilinear", antialias=True)


def load_face_network(model: str | None, folders: Sequence[Path]) -> FaceNetwork:
    """Loads a network from this machine alone.

    Args:
        model: "vggface2" (also None), "casia-webface", a file in the same format, or "random:vggface2".
        folders: where weights are looked for.

    Raises:
        WeightsNotFound: naming the file, its source, the folders and the command that gets it.
        UnknownName: for another model.
        BmlaError: for a file that can't be read or does not hold this network.
    """
    name = model or "vggface2"
    if name == RANDOM_MODEL:
        return random_face_network()
    if name in FACENET_FILES:
        file = find_facenet(name, folders)
    elif Path(name).is_file():
        file = Path(name)
    else:
        raise UnknownName("face network", name, [*FACENET_FILES, RANDOM_MODEL, "or a weight file"])
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        network = InceptionResnetV1(pretrained=None, classify=False)
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError) as error:
        raise BmlaError(f"{file}: can't be loaded as InceptionResnetV1 ({first_line(error)})") from error
    strange = [key for key in unexpected if not key.startswith(HEAD)]
    if missing or strange:
        first = f"lacks {missing[0]}" if missing else f"has {strange[0]}"
        raise BmlaError(
            f"{file}: is no InceptionResnetV1: {len(missing)} weights missing, {len(strange)} unknown; for one, it {first}"
        )
    return FaceNetwork(network, {"source": file.name, "sha256": sha256_of(file)})


def random_face_network() -> FaceNetwork:
    """Seeded random weights: for trials of the machinery, never a stand-in for trained ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        network = InceptionResnetV1(pretrained=None, classify=False)
    return FaceNetwork(network, {"source": RANDOM_MODEL, "random_seed": RANDOM_SEED})


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Folds every BatchNorm after a convolution into it: the same numbers to rounding, 111 layers fewer."""
    for block in network.modules():
        if isinstance(block, BasicConv2d):
            block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
    return network
