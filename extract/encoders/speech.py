"""Transformers over sound: (n,) samples at 16 kHz in, (T, hidden size) float16 out, 50 steps a second.

*Source:* HuBERT (Hsu et al. 2021), wav2vec 2.0 (Baevski et al. 2020), WavLM (Chen et al. 2022) and data2vec-audio (Baevski et
al. 2022), by transformers: the model's own feature extractor normalises the sound, its convolutions make
T = floor((n - 400) / 320) + 1 steps, and hidden layers are kept. The paper names HuBERT and 768 dimensions, not the layer:
the last one is our default. Several layers are kept as (T, number of layers, hidden size), for a learnt weighting (SUPERB,
Yang et al. 2021).

Layer k is transformers' hidden state k: 0 goes into the first layer, k comes out of the k-th. For the last layer the
model's output is taken, that is, after the closing norm of those models that have one: transformers' own last hidden
state is before or after it, depending on the version.

Only clips of equal length share a batch: where the first convolution is followed by a GroupNorm over time, padding
changes every feature of a clip (transformers #10117).

Shape legend: B clips, n samples, T steps, K layers kept, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import accumulate
from math import prod
from operator import mul
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
)

from ...store.errors import UnknownName, UsageError
from ...store.reading.device import pick_device
from .base import SAMPLE_RATE_HZ, Features, Sound, samples_of
from .device import DeviceBatch, called, computing, describe_precision
from .finite import check_sound
from .hidden import finish_by_length
from .hub import HubModel, load_hub_model
from .parameters import SpeechOptions

MODEL_TYPES = ("hubert", "wav2vec2", "wavlm", "data2vec-audio")
BATCH_S = 60  # sound a forward pass; the first convolution takes about 20 MB a second
TRAINING_ONLY = "masked_spec_embed"  # some checkpoints do without

RANDOM = "random:"
RANDOM_SEED = 0
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embedding_groups": 4,
}
RANDOM_MODELS: dict[str, Any] = {
    "hubert-base": HubertConfig,
    "hubert-tiny": lambda: HubertConfig(**TINY, num_conv_pos_embeddings=16),
    "wav2vec2-tiny": lambda: Wav2Vec2Config(**TINY, num_conv_pos_embeddings=16),
    "wavlm-tiny": lambda: WavLMConfig(**TINY, num_conv_pos_embeddings=16),
    "data2vec-tiny": lambda: Data2VecAudioConfig(**TINY),
}


@dataclass(frozen=True)
class SoundOf:
    """A clip's samples, checked to fill at least one window."""

    window: int

    def prepare(self, clip: Sound) -> np.ndarray:
        """(n,) samples. Raises MediaError for a clip shorter than one window, or with samples that are no numbers."""
        check_sound(clip.samples, self.window)
        return clip.samples


class SpeechEncoder:
    """See the module.

    Args:
        speech: see `load_speech_model`.
        device: such as "cpu" or "cuda:0".
        compiled: see `device.Compiled`.

    Raises:
        UsageError: for a layer that the model has not, or a model that wants another sample rate.
    """

    takes = "sound"
    dtype = "float16"

    def __init__(self, speech: HubModel, options: SpeechOptions, device: str = "cpu", compiled: bool = False):
        config = speech.model.config
        source = speech.weights["source"]
        self.last: int = config.num_hidden_layers
        self.layers = options.layers(self.last)
        self.several, self.precision = options.several, options.precision
        if speech.processor.sampling_rate != SAMPLE_RATE_HZ:
            raise UsageError(f"{source} wants {speech.processor.sampling_rate} Hz, bmla's sound has 16000 Hz")
        if getattr(config, "add_adapter", False):
            raise UsageError(f"{source} pools its output over time (add_adapter), which has another frame law")
        self.speech = speech
        self.device = pick_device(device)
        self.batch = self.waits = DeviceBatch(BATCH_S * SAMPLE_RATE_HZ)  # samples
        self.model = speech.model.eval().to(self.device)
        # Layers after the wanted one cost time only. One is kept: hidden state k is what goes into layer k + 1.
        self.model.encoder.layers = self.model.encoder.layers[: self.layers[-1] + 1]
        self.call = called(self.model, compiled)

        hops = accumulate(config.conv_stride[:-1], mul, initial=1)  # of each convolution's input, in samples
        self.window = 1 + sum((kernel - 1) * hop for kernel, hop in zip(config.conv_kernel, hops, strict=True))
        self.hop = prod(config.conv_stride)
        self.preparer = SoundOf(self.window)
        self.rate_hz = SAMPLE_RATE_HZ / self.hop
        self.frame_law = f"T = floor((n - {self.window}) / {self.hop}) + 1 for n samples at 16 kHz"
        step = (config.hidden_size,)
        self.feature_shape: tuple[int, ...] = (len(self.layers), *step) if self.several else step

    def steps(self, duration_s: float) -> int:
        return max(0, (samples_of(duration_s) - self.window) // self.hop + 1)

    def describe(self) -> dict[str, Any]:
        return {
            "weights": self.speech.weights,
            "parameters": {
                "model_type": self.speech.model.config.model_type,
                "layer": self.layers if self.several else self.layers[0],
                "layers": self.last,
                "normalise": bool(self.speech.processor.do_normalize),
                **describe_precision(self.precision),
            },
            "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        }

    def finish(self, prepared: Sequence[np.ndarray]) -> list[Features]:
        """Raises MediaError for a clip whose features are not finite in float16."""
        lengths = [len(samples) for samples in prepared]
        return finish_by_length(prepared, lengths, [None] * len(prepared), self._forward, self.batch, self.precision)

    def _forward(self, sounds: Sequence[np.ndarray], precision: str) -> np.ndarray:
        """B sounds of n samples -> (B, T, D) or, of several layers, (B, T, K, D); float32."""
        inputs = self.speech.processor(list(sounds), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_values
        before = [k for k in self.layers if k < self.last]
        with computing(precision, self.device):
            output = self.call(inputs.float().to(self.device), output_hidden_states=bool(before))
        kept = [output.hidden_states[k] for k in before] + [output.last_hidden_state] * (self.last in self.layers)
        values = torch.stack(kept, dim=2) if self.several else kept[0]
        return values.float().cpu().numpy()


def load_speech_model(model: str, folders: Sequence[Path]) -> HubModel:
    """Loads a model from this machine alone, in float32.

    Args:
        model: a Hugging Face id, a folder, or a name of `RANDOM_MODELS` behind "random:".
        folders: where weights are looked for.

    Raises:
        WeightsNotFound: naming the files, the places and the command that gets them.
        UsageError: for a model of another family.
        BmlaError: for a weight file that can't be read or does not hold all weights.
    """
    if model.startswith(RANDOM):
        return random_speech_model(model.removeprefix(RANDOM))

    def check(config: Any) -> None:
        if config.model_type not in MODEL_TYPES:
            raise UsageError(f'{model} is of type "{config.model_type}"; known: {", ".join(MODEL_TYPES)}')

    return load_hub_model(model, folders, AutoFeatureExtractor, check, lambda key: key == TRAINING_ONLY)


def random_speech_model(name: str) -> HubModel:
    """Seeded random weights: for trials of the machinery, never a stand-in for trained weights."""
    if name not in RANDOM_MODELS:
        raise UnknownName("random model", RANDOM + name, [RANDOM + known for known in RANDOM_MODELS])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model = AutoModel.from_config(RANDOM_MODELS[name](), dtype=torch.float32)
    weights = {"source": RANDOM + name, "random_seed": RANDOM_SEED}
    return HubModel(model, Wav2Vec2FeatureExtractor(do_normalize=True), weights)
