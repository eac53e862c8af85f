"""VGG-16 over face crops: (T, H, W, 3) frames in, (T, 1024) float16 out.

*Source:* section 4.1.2 of the BalanceMLA paper: faces of 128 x 128 are "encoded via a VGG network, yielding high-level image
representations with a 1024-dimensional feature space". It names neither depth nor head. Our reading: VGG-16
(Simonyan and Zisserman 2015) as torchvision builds it, its last fully connected layer giving 1024 numbers in place of
1000 classes, taken as they come. Nobody publishes such weights: the encoder is for those who have them, as a state dict with
torchvision's keys. The widths of the two layers before the last (4096 in VGG-16) are read from that file.

The crop goes in as it is: torchvision's pooling brings any size to 7 x 7. Pictures are scaled by the mean and standard
deviation of ImageNet, as all of torchvision's VGG networks want it.
"""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models import vgg16

from ...store.errors import BmlaError, UnknownName
from ...store.reading.device import pick_device
from ..weights import find_vgg16, first_line, sha256_of
from .base import FRAME_RATE_HZ, Crops, Features, frames_of
from .device import called, computing, describe_precision, device_batch, order_of
from .facenet import FaceNetwork
from .parameters import Vgg16Options
from .pictures import FRAME_LAW, CropsOf, encode_crops

FEATURES = 1024
POOLED = 512 * 7 * 7  # what the fully connected layers are given
BATCH_FACES = 64  # on a CPU
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in 0 to 1

RANDOM_MODEL = "random:vgg16-small"
RANDOM_SEED = 0
RANDOM_WIDTHS = (64, 64)


class Vgg16Encoder:
    """See the module.

    Args:
        network: see `load_vgg16`.
        device: such as "cpu" or "cuda:0".
        compiled: see `device.Compiled`.
    """

    takes = "sight"
    waits = None
    dtype = "float16"
    feature_shape: tuple[int, ...] = (FEATURES,)
    rate_hz = float(FRAME_RATE_HZ)
    frame_law = FRAME_LAW

    def __init__(self, network: FaceNetwork, options: Vgg16Options, device: str = "cpu", compiled: bool = False):
        self.network = network
        self.options = options
        self.crop = options.crop()
        self.preparer = CropsOf(self.crop)
        self.device = pick_device(device)
        self.batch = device_batch(self.device, BATCH_FACES)
        self.order = order_of(self.device, options.precision)
        self.model = network.model.eval().to(self.device).to(memory_format=self.order)
        self.call = called(self.model, compiled)

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s)

    def describe(self) -> dict[str, Any]:
        return {
            "weights": self.network.weights,
            "parameters": {
                "scale": f"(x / 255 - {list(MEAN)}) / {list(STD)}",
                "widths": [layer.out_features for layer in self.model.modules() if isinstance(layer, nn.Linear)],
                **describe_precision(self.options.precision),
            },
            "crop": self.crop.describe(),
            "versions": {name: metadata.version(name) for name in ("torch", "torchvision")},
        }

    def finish(self, prepared: Sequence[Crops]) -> list[Features]:
        return encode_crops(prepared, self._embed, self.batch, self.options.precision, self.device)

    def _embed(self, crops: torch.Tensor, precision: str) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, 1024) float32."""
        faces = crops.permute(0, 3, 1, 2).contiguous(memory_format=self.order)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (MEAN, STD))
        with computing(precision, self.device):
            values = self.call((faces.float() / 255 - mean) / std)
        return values.float().cpu().numpy()


def load_vgg16(model: str | None, folders: Sequence[Path]) -> FaceNetwork:
    """Loads a network from this machine alone.

    Args:
        model: a weight file; None: the file of `weights.VGG16_FILE` in one of the folders; "random:vgg16-small".
        folders: where weights are looked for.

    Raises:
        WeightsNotFound: naming the file, the folders and the way to get it.
        UnknownName: for another model.
        BmlaError: for a file that can't be read or does not hold this network.
    """
    if model == RANDOM_MODEL:
        return random_vgg16()
    if model is not None and not Path(model).is_file():
        raise UnknownName("VGG-16", model, [RANDOM_MODEL, "or a weight file"])
    file = find_vgg16(folders) if model is None else Path(model)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        state = {key: value.float() for key, value in state.items()}
        network = empty_vgg16((len(state["classifier.0.bias"]), len(state["classifier.3.bias"])))
        network.load_state_dict(state, assign=True)
    except KeyError as error:
        raise BmlaError(f"{file}: is no VGG-16: it lacks {first_line(error)}") from error
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError, EOFError, UnpicklingError) as error:
        words = " ".join(str(error).split())  # torch names a weight that does not fit below its first line
        text = first_line(error) if isinstance(error, UnpicklingError) or not words else words
        raise BmlaError(f"{file}: can't be loaded as VGG-16 with {FEATURES} outputs ({text:.300})") from error
    return FaceNetwork(network, {"source": file.name, "sha256": sha256_of(file)})


def random_vgg16() -> FaceNetwork:
    """Seeded random weights: for trials of the machinery, never a stand-in for trained ones."""
    network = empty_vgg16(RANDOM_WIDTHS).to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, 0, 0.1)  # type: ignore[arg-type]
    return FaceNetwork(network, {"source": RANDOM_MODEL, "random_seed": RANDOM_SEED})


def empty_vgg16(widths: tuple[int, int]) -> nn.Module:
    """torchvision's network with other fully connected layers, without memory for its weights (up to 0.5 GB)."""
    first, second = widths
    with torch.device("meta"):
        network = vgg16(weights=None, init_weights=False, num_classes=FEATURES)
        for place, layer in ((0, nn.Linear(POOLED, first)), (3, nn.Linear(first, second))):
            network.classifier[place] = layer
        network.classifier[6] = nn.Linear(second, FEATURES)
    return network
