"""Any Hugging Face image encoder over face or mouth crops: (T, H, W, 3) frames in, (T, L) float16 out, a vector a frame.

*Source:* transformers' AutoModel and AutoImageProcessor: ViT (Dosovitskiy et al. 2021), DINOv2 (Oquab et al. 2023), DINOv3
(Siméoni et al. 2025), ConvNeXt and their kin. The model's own processor resizes, cuts and normalises; what it does is part
of the stream specification. Not in the paper.

Two outputs: the CLS token of the last hidden state (our default: every ViT-like checkpoint has one, where some carry no
weights of the pooling head), or the model's pooled output, which models without a CLS token have too.
"""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModel, BitImageProcessor, Dinov2Config

from ...store.errors import UnknownName, UsageError
from ...store.reading.device import pick_device
from ..weights import first_line
from .base import FRAME_RATE_HZ, Crops, Features, frames_of
from .device import called, computing, describe_precision, device_batch
from .hub import HubModel, load_hub_model
from .parameters import FaceImageOptions, MouthImageOptions
from .pictures import FRAME_LAW, CropsOf, encode_crops

BATCH_CROPS = 64  # on a CPU
PROCESSING = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)

RANDOM_MODEL = "random:dinov2-tiny"
RANDOM_SEED = 0
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageEncoder:
    """See the module.

    Args:
        image: see `load_image_model`.
        device: such as "cpu" or "cuda:0".
        compiled: see `device.Compiled`.

    Raises:
        UsageError: for a model that gives no such output for a picture alone, or another one each time.
    """

    takes = "sight"
    waits = None
    dtype = "float16"
    rate_hz = float(FRAME_RATE_HZ)
    frame_law = FRAME_LAW

    def __init__(
        self,
        image: HubModel,
        options: FaceImageOptions | MouthImageOptions,
        device: str = "cpu",
        compiled: bool = False,
    ):
        self.image = image
        self.options = options
        self.crop = options.crop()
        self.preparer = CropsOf(self.crop)
        self.device = pick_device(device)
        self.batch = device_batch(self.device, BATCH_CROPS)
        check_usable(image, options.output)
        model = image.model.eval().to(self.device)
        self.model = model.to(memory_format=torch.channels_last)  # for those that convolve
        self.call = self.model
        self.feature_shape: tuple[int, ...] = (self._length(),)
        self.call = called(self.model, compiled)

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s)

    def describe(self) -> dict[str, Any]:
        return {
            "weights": self.image.weights,
            "parameters": {
                "model_type": self.image.model.config.model_type,
                "output": self.options.output,
                "processing": describe_processing(self.image.processor),
                **describe_precision(self.options.precision),
            },
            "crop": self.crop.describe(),
            "versions": {name: metadata.version(name) for name in ("torch", "torchvision", "transformers")},
        }

    def finish(self, prepared: Sequence[Crops]) -> list[Features]:
        on_cpu = torch.device("cpu")  # where the model's own processor takes them
        return encode_crops(prepared, self._embed, self.batch, self.options.precision, on_cpu)

    def _embed(self, crops: torch.Tensor, precision: str) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, L) float32."""
        inputs = self.image.processor(
            list(crops.numpy()), return_tensors="pt", input_data_format="channels_last"
        ).pixel_values
        inputs = inputs.to(device=self.device, memory_format=torch.channels_last)
        with computing(precision, self.device):
            output = self.call(pixel_values=inputs)
        values = output.last_hidden_state[:, 0] if self.options.output == "cls" else output.pooler_output.flatten(1)
        return values.float().cpu().numpy()

    def _length(self) -> int:
        """L, by a look at one blank picture: configs name it differently in every family."""
        side = self.crop.size_px
        source = self.image.weights["source"]
        try:
            return self._embed(torch.zeros((1, side, side, 3), dtype=torch.uint8), "fp32").shape[1]
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise UsageError(f"{source} gives no {self.options.output} output ({first_line(error)})") from error


def check_usable(image: HubModel, output: str) -> None:
    """Raises UsageError where the first token is no CLS token, or the model hides random patches from itself."""
    source, config = image.weights["source"], image.model.config
    if output == "cls" and not any(name.endswith("cls_token") for name, _ in image.model.named_parameters()):
        raise UsageError(f"{source} ({config.model_type}) has no CLS token: use output=pooled")
    if getattr(config, "mask_ratio", 0):
        raise UsageError(f"{source} masks {config.mask_ratio:.0%} of every picture at random (mask_ratio)")


def describe_processing(processor: Any) -> dict[str, Any]:
    """What a processor does to a picture, by the names of its json file."""
    said = processor.to_dict()
    return {key: _plain(said[key]) for key in PROCESSING if said.get(key) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: number for key, number in value.items() if number is not None}
    return list(value) if isinstance(value, tuple) else value


def load_image_model(model: str, folders: Sequence[Path], output: str) -> HubModel:
    """Loads a model from this machine alone, in float32.

    Args:
        model: a Hugging Face id, a folder, or "random:dinov2-tiny".
        folders: where weights are looked for.
        output: "cls" does without the weights of a pooling head.

    Raises:
        WeightsNotFound: naming the files, the places and the command that gets them.
        BmlaError: for a weight file that can't be read or does not hold all weights.
    """
    if model == RANDOM_MODEL:
        return random_image_model()
    if model.startswith("random:"):
        raise UnknownName("random model", model, [RANDOM_MODEL])

    def dispensable(key: str) -> bool:
        return key.endswith("mask_token") or (output == "cls" and key.startswith("pooler."))

    return load_hub_model(model, folders, AutoImageProcessor, lambda config: None, dispensable)


def random_image_model() -> HubModel:
    """Seeded random weights: for trials of the machinery, never a stand-in for trained weights."""
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=56, layerscale_value=0.5
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model = AutoModel.from_config(config, dtype=torch.float32)
    side = {"height": 56, "width": 56}
    processor = BitImageProcessor(
        size={"shortest_edge": 64}, crop_size=side, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )
    return HubModel(model, processor, {"source": RANDOM_MODEL, "random_seed": RANDOM_SEED})
