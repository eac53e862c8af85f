"""The loaded models of one extraction: the encoders, the detector and the landmark model, and their provenance.

Built from a plain `ToolConfig`, so that every worker process builds the same.
"""

from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..store.errors import UsageError
from ..store.spec import StreamSpec
from .encoders import table
from .encoders.base import Encoder
from .faces.detector import FaceDetector
from .faces.landmarks import Landmarks68
from .faces.sight import describe_sight

MEDIA_LIBRARIES = {
    "sound": ("av", "soxr", "numpy"),
    "sight": ("av", "opencv-python-headless", "dlib-bin", "torch", "numpy"),
}


@dataclass(frozen=True)
class ToolConfig:
    """What shapes the features, as plain values.

    Attributes:
        streams: which streams to make.
        device: "cpu" or "cuda:0".
        weights: folders in which weights are looked for.
        models: another model for a stream, by Hugging Face id, folder or variant; {"audio.hubert": "microsoft/wavlm-base"}.
        layers: hidden layers for a stream: a number, several as "6,9,12", or "all"; the encoder's default where absent.
        parameters: the encoders' own options, by stream and name; see `encoders.parameters`.
        detector_weights: a RetinaFace checkpoint; None: the embedded one.
    """

    streams: tuple[str, ...]
    device: str = "cpu"
    weights: tuple[Path, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    layers: dict[str, int | str] = field(default_factory=dict)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    detector_weights: Path | None = None


class Tools:
    """Loads each model when it is first needed. Raises WeightsNotFound, UnknownName, UsageError."""

    def __init__(self, config: ToolConfig):
        self.config = config
        made = {name.partition("@")[0] for name in config.streams}
        if unused := sorted(set(config.parameters) - made):
            raise UsageError(f"{unused[0]}: has parameters but is not extracted; streams: {', '.join(config.streams)}")
        self.encoders: dict[str, Encoder] = {
            name: table.build(
                name,
                device=config.device,
                weights=config.weights,
                model=config.models.get(name),
                layer=config.layers.get(name),
                parameters=config.parameters.get(name),
            )
            for name in config.streams
        }

    @cached_property
    def detector(self) -> FaceDetector:
        return FaceDetector(self.config.detector_weights, device=self.config.device)

    @cached_property
    def landmarks(self) -> Landmarks68:
        return Landmarks68()

    def specification(self, stream: str) -> StreamSpec:
        """The stream specification that this set of tools gives."""
        encoder = self.encoders[stream]
        described = encoder.describe()
        sight = encoder.takes == "sight"
        return StreamSpec(
            name=stream,
            modality="visual" if sight else "audio",
            encoder=table.find(stream).encoder,
            dtype=encoder.dtype,
            feature_shape=tuple(encoder.feature_shape),
            rate_hz=encoder.rate_hz,
            frame_law=encoder.frame_law,
            weights=described.get("weights"),
            parameters=described.get("parameters") or {},
            crop=described.get("crop"),
            detector=describe_sight(self.detector, self.landmarks) if sight else None,
            versions={**library_versions(encoder.takes), **(described.get("versions") or {})},
        )


def library_versions(takes: str) -> dict[str, Any]:
    """Versions of bmla and of the libraries between the file and the encoder."""
    return {"bmla": __version__, **{name: metadata.version(name) for name in MEDIA_LIBRARIES[takes]}}
