"""InceptionResnetV1 embeddings of faces: (T, H, W, 3) frames with face boxes in, (T, 512) float16 out.

*Source:* section 4.1.2 of the BalanceMLA paper: RetinaFace crops of 128 x 128, encoded by "a VGG network" into 1024
dimensions, elsewhere "a pre-trained VGGFace2 network". No such network is published with its weights; ours is the
InceptionResnetV1 that facenet-pytorch publishes, trained on VGGFace2 (Cao et al. 2018) or on CASIA-WebFace (Yi et al. 2014):
512 dimensions, unit length. It wants 160 x 160 pixels scaled by (x - 127.5) / 128, so that the size of the crop and of the
network's input are two parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

from ...store.errors import BmlaError, UnknownName
from ...store.reading.device import pick_device
from ..weights import FACENET_FILES, find_facenet, first_line, sha256_of
from .base import FRAME_RATE_HZ, Crops, Features, Sight, frames_of
from .device import called, computing, describe_precision, device_batch, order_of
from .parameters import FaceNetOptions
from .pictures import FRAME_LAW, CropsOf, encode_crops, three_channels

EMBEDDING = 512
BATCH_FACES = 64  # on a CPU
HEAD = "logits."  # the published files also hold the classifier that the network was trained with

RANDOM_MODEL = "random:vggface2"
RANDOM_SEED = 0


@dataclass(frozen=True)
class FaceNetwork:
    """A loaded network and where it came from (as in the stream specification)."""

    model: nn.Module
    weights: dict[str, Any]


@dataclass(frozen=True)
class FacesOf(CropsOf):
    """The first step: crops in the size that the network takes. Resizing holds up no device here."""

    input_px: int

    def prepare(self, clip: Sight) -> Crops:
        crops = super().prepare(clip)
        images = resized(three_channels(crops.images), self.input_px)
        return replace(crops, images=images if crops.images.ndim == 4 else np.ascontiguousarray(images[..., 0]))


class FaceNetEncoder:
    """See the module.

    Args:
        network: see `load_face_network`.
        device: such as "cpu" or "cuda:0".
        compiled: see `device.Compiled`.
    """

    takes = "sight"
    waits = None
    dtype = "float16"
    feature_shape: tuple[int, ...] = (EMBEDDING,)
    rate_hz = float(FRAME_RATE_HZ)
    frame_law = FRAME_LAW

    def __init__(self, network: FaceNetwork, options: FaceNetOptions, device: str = "cpu", compiled: bool = False):
        self.network = network
        self.options = options
        self.crop = options.crop()
        self.preparer = FacesOf(self.crop, options.input_px)
        self.device = pick_device(device)
        self.batch = device_batch(self.device, BATCH_FACES)
        self.order = order_of(self.device, options.precision)
        self.model = fold_batch_norm(network.model.eval()).to(self.device).to(memory_format=self.order)
        self.call = called(self.model, compiled)

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s)

    def describe(self) -> dict[str, Any]:
        return {
            "weights": self.network.weights,
            "parameters": {
                "input_px": self.options.input_px,
                "resize": "bilinear, antialiased",
                "scale": "(x - 127.5) / 128",
                **describe_precision(self.options.precision),
            },
            "crop": self.crop.describe(),
            "versions": {name: metadata.version(name) for name in ("facenet-pytorch", "torch")},
        }

    def finish(self, prepared: Sequence[Crops]) -> list[Features]:
        """Faces of all clips share batches: in eval mode no face sees another."""
        return encode_crops(prepared, self._embed, self.batch, self.options.precision, self.device)

    def _embed(self, crops: torch.Tensor, precision: str) -> np.ndarray:
        """(B, S, S, 3) uint8 in the network's size -> (B, 512) float32."""
        faces = crops.permute(0, 3, 1, 2).contiguous(memory_format=self.order)
        with computing(precision, self.device):
            embedded = self.call((faces.float() - 127.5) / 128)
        return embedded.float().cpu().numpy()


def resized(crops: np.ndarray, size_px: int) -> np.ndarray:
    """(B, S, S, 3) uint8 -> (B, size, size, 3) uint8, as facenet-pytorch does it: in whole grey levels.

    On uint8 torch's antialiased bilinear equals Pillow's, bit for bit where it enlarges.
    """
    if crops.shape[1] == size_px:
        return crops
    # Channels last, as they lie: less than half the time, the same bytes.
    images = torch.from_numpy(crops).permute(0, 3, 1, 2)
    enlarged = interpolate(images, (size_px, size_px), mode="bilinear", antialias=True)
    return enlarged.permute(0, 2, 3, 1).contiguous().numpy()


def load_face_network(model: str, folders: Sequence[Path]) -> FaceNetwork:
    """Loads a network from this machine alone.

    Args:
        model: "vggface2", "casia-webface", a file in the same format, or "random:vggface2".
        folders: where weights are looked for.

    Raises:
        WeightsNotFound: naming the file, its source, the folders and the command that gets it.
        UnknownName: for another model.
        BmlaError: for a file that can't be read or does not hold this network.
    """
    if model == RANDOM_MODEL:
        return random_face_network()
    if model in FACENET_FILES:
        file = find_facenet(model, folders)
    elif Path(model).is_file():
        file = Path(model)
    else:
        raise UnknownName("face network", model, [*FACENET_FILES, RANDOM_MODEL, "or a weight file"])
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
