"""HuBERT and its kin: (n,) samples at 16 kHz in, (T, hidden size) float16 out, 50 steps a second.

*Source:* Hsu et al. 2021, by transformers' models HuBERT, wav2vec 2.0, WavLM and data2vec-audio: the model's own feature
extractor normalises the sound, its convolutions make T = floor((n - 400) / 320) + 1 steps, and one hidden layer is
kept. The paper names HuBERT and 768 dimensions, not the layer: the last one is our default.

Layer k is transformers' hidden state k: 0 goes into the first layer, k comes out of the k-th. For the last layer the
model's output is taken, that is, after the closing norm of those models that have one: transformers' own last hidden
state is before or after it, depending on the version.

Only clips of equal length share a batch: where the first convolution is followed by a GroupNorm over time, padding
changes every feature of a clip (transformers #10117).

Shape legend: B clips, n samples, T steps, D hidden size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import accumulate
from math import prod
from operator import mul
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, HubertConfig, Wav2Vec2FeatureExtractor
from transformers.utils import logging

from ...store.errors import BmlaError, UnknownName, UsageError
from ..weights import HUBERT, find_hf_folder, first_line, hf_weight_file, sha256_of
from .base import SAMPLE_RATE_HZ, Features, Sound, samples_of
from .device import full_precision, pick_device
from .finite import check_sound, place_of, to_float16

MODEL_TYPES = ("hubert", "wav2vec2", "wavlm", "data2vec-audio")
BATCH_S = 60.0  # sound a forward pass; the first convolution takes about 20 MB a second
UNUSED_KEYS = {"masked_spec_embed"}  # for training alone; some checkpoints do without

RANDOM = "random:"
RANDOM_SEED = 0
RANDOM_MODELS: dict[str, dict[str, Any]] = {
    "hubert-base": {},
    "hubert-tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    },
}


@dataclass(frozen=True)
class HubertOptions:
    """layer: which hidden state is kept, 0 to the number of layers; None: the last."""

    layer: int | None = None


@dataclass(frozen=True)
class SpeechModel:
    """A loaded model with its feature extractor and where it came from (as in the stream specification)."""

    model: Any
    extractor: Any
    weights: dict[str, Any]


class HubertEncoder:
    """See the module.

    Args:
        speech: see `load_speech_model`.
        device: such as "cpu" or "cuda:0".

    Raises:
        UsageError: for a layer that the model has not, or a model that wants another sample rate.
    """

    takes = "sound"
    dtype = "float16"

    def __init__(self, speech: SpeechModel, options: HubertOptions = HubertOptions(), device: str = "cpu"):
        config = speech.model.config
        source = speech.weights["source"]
        self.layers: int = config.num_hidden_layers
        self.layer = self.layers if options.layer is None else options.layer
        if not 0 <= self.layer <= self.layers:
            raise UsageError(f"audio.hubert: {source} has no layer {self.layer}; expected 0 to {self.layers}")
        if speech.extractor.sampling_rate != SAMPLE_RATE_HZ:
            raise UsageError(
                f"audio.hubert: {source} wants {speech.extractor.sampling_rate} Hz, bmla's sound has 16000 Hz"
            )
        if getattr(config, "add_adapter", False):
            raise UsageError(
                f"audio.hubert: {source} pools its output over time (add_adapter), which has another frame law"
            )
        self.speech = speech
        self.device = pick_device(device)
        self.model = speech.model.eval().to(self.device)
        # Layers after the wanted one cost time only. One is kept: hidden state k is what goes into layer k + 1.
        self.model.encoder.layers = self.model.encoder.layers[: self.layer + 1]

        hops = accumulate(config.conv_stride[:-1], mul, initial=1)  # of each convolution's input, in samples
        self.window = 1 + sum((kernel - 1) * hop for kernel, hop in zip(config.conv_kernel, hops, strict=True))
        self.hop = prod(config.conv_stride)
        self.rate_hz = SAMPLE_RATE_HZ / self.hop
        self.frame_law = f"T = floor((n - {self.window}) / {self.hop}) + 1 for n samples at 16 kHz"
        self.feature_shape: tuple[int, ...] = (config.hidden_size,)

    def steps(self, duration_s: float) -> int:
        return max(0, (samples_of(duration_s) - self.window) // self.hop + 1)

    def describe(self) -> dict[str, Any]:
        return {
            "weights": self.speech.weights,
            "parameters": {
                "model_type": self.speech.model.config.model_type,
                "layer": self.layer,
                "layers": self.layers,
                "normalise": bool(self.speech.extractor.do_normalize),
            },
            "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        }

    def encode(self, clips: Sequence[Sound]) -> list[Features]:
        """Raises MediaError for a clip shorter than one window, or whose features are not finite in float16."""
        by_length: dict[int, list[int]] = {}
        for i, clip in enumerate(clips):
            check_sound(clip.samples, self.window, place_of(i, len(clips)))
            by_length.setdefault(len(clip.samples), []).append(i)
        found: dict[int, Features] = {}
        for length, alike in by_length.items():
            size = max(1, int(BATCH_S * SAMPLE_RATE_HZ) // length)
            for part in (alike[k : k + size] for k in range(0, len(alike), size)):
                hidden = self._forward([clips[i].samples for i in part])
                for i, values in zip(part, hidden, strict=True):
                    found[i] = Features(to_float16(values, place_of(i, len(clips))), np.ones(len(values), bool))
        return [found[i] for i in range(len(clips))]

    @torch.inference_mode()
    def _forward(self, sounds: list[np.ndarray]) -> np.ndarray:
        """B sounds of n samples -> (B, T, D) float32."""
        inputs = self.speech.extractor(sounds, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_values
        last = self.layer == self.layers
        with full_precision():
            output = self.model(inputs.float().to(self.device), output_hidden_states=not last)
        hidden = output.last_hidden_state if last else output.hidden_states[self.layer]
        return hidden.float().cpu().numpy()


def load_speech_model(model: str | None, folders: Sequence[Path]) -> SpeechModel:
    """Loads a model from this machine alone, in float32.

    Args:
        model: a Hugging Face id, a folder, or "random:hubert-tiny" / "random:hubert-base"; None: HuBERT base.
        folders: where weights are looked for.

    Raises:
        WeightsNotFound: naming the files, the places and the command that gets them.
        UsageError: for a model of another family.
        BmlaError: for a weight file that can't be read or does not hold all weights.
    """
    if model is not None and model.startswith(RANDOM):
        return random_speech_model(model.removeprefix(RANDOM))
    name = model or HUBERT
    folder = find_hf_folder(name, folders)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BmlaError(f"{folder}: its json files describe no model ({first_line(error)})") from error
    if config.model_type not in MODEL_TYPES:
        raise UsageError(f'audio.hubert: {name} is of type "{config.model_type}"; known: {", ".join(MODEL_TYPES)}')
    file = hf_weight_file(folder)
    loaded = _load_weights(folder, file, config)
    source = folder.name if Path(name).is_dir() else name
    return SpeechModel(loaded, extractor, {"source": source, "sha256": sha256_of(file)})


def random_speech_model(name: str) -> SpeechModel:
    """A HuBERT with seeded random weights: for trials of the machinery, never a stand-in for trained weights."""
    if name not in RANDOM_MODELS:
        raise UnknownName("random model", RANDOM + name, [RANDOM + known for known in RANDOM_MODELS])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model = AutoModel.from_config(HubertConfig(**RANDOM_MODELS[name]), dtype=torch.float32)
    weights = {"source": RANDOM + name, "random_seed": RANDOM_SEED}
    return SpeechModel(model, Wav2Vec2FeatureExtractor(do_normalize=True), weights)


def _load_weights(folder: Path, file: Path, config: Any) -> Any:
    """The model; a checkpoint that lacks a weight is an error, where transformers would fill in random numbers."""
    try:
        with _quiet():
            model, info = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                use_safetensors=file.suffix == ".safetensors",
                weights_only=True,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        raise BmlaError(f"{file}: can't be loaded as a {config.model_type} model ({first_line(error)})") from error
    if missing := sorted(set(info["missing_keys"]) - UNUSED_KEYS):
        raise BmlaError(f"{file}: lacks {len(missing)} weights of a {config.model_type} model, such as {missing[0]}")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' progress bar and its report of unused heads off the screen."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
