"""What one extraction works with: the kit of the stages that need no network, the loaded networks, and their provenance.

Built from a plain `ToolConfig`, so that every process builds the same. The kit is light and can be sent to processes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..store.clips import Clip, ClipTable
from ..store.errors import MediaError, UsageError
from ..store.spec import StreamSpec
from . import noise
from .encoders import table
from .encoders.base import Encoder, Preparer, Sight, inputs_of
from .faces.detections import Faces
from .faces.detector import FaceDetector
from .faces.device_landmarks import DeviceLandmarks
from .faces.finding import FaceFinding
from .faces.given import GivenFaces, open_given
from .faces.landmarks import Landmarks68
from .faces.sight import describe_sight, look
from .media import read_audio

MEDIA_LIBRARIES = {
    "sound": ("av", "soxr", "numpy"),
    "sight": ("av", "opencv-python-headless", "dlib-bin", "torch", "numpy"),
    "pictures": ("av", "numpy"),
}


@dataclass(frozen=True)
class ToolConfig:
    """What shapes the features, as plain values.

    Attributes:
        streams: which streams to make; a name may end with a noise variant, such as "audio.hubert@white=10".
        device: "cpu" or "cuda:0".
        weights: folders in which weights are looked for.
        models: another model for a stream, by Hugging Face id, folder or variant; {"audio.hubert": "microsoft/wavlm-base"}.
        layers: hidden layers for a stream: a number, several as "6,9,12", or "all"; the encoder's default where absent.
        parameters: the encoders' own options, by stream and name; see `encoders.parameters`.
        finding: where the face of each clip comes from.
        detector_weights: a RetinaFace checkpoint; None: the embedded one.
        noise_seed: of all noise variants.
        noise_file: the recording that the noise `file=` adds.
        compiled: networks go through torch.compile: the same numbers to rounding, for long runs on a GPU.
        voices: the clips whose sound the noise `babble=` is made of, and the folder that their sources are relative to.
    """

    streams: tuple[str, ...]
    device: str = "cpu"
    weights: tuple[Path, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    layers: dict[str, int | str] = field(default_factory=dict)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    finding: FaceFinding = field(default_factory=FaceFinding)
    detector_weights: Path | None = None
    noise_seed: int = 0
    noise_file: Path | None = None
    compiled: bool = False
    voices: tuple[ClipTable, Path] | None = None

    @property
    def babbles(self) -> bool:
        """Some stream's noise is made of other clips' voices."""
        return any("babble=" in name.partition("@")[2] for name in self.streams)


class Kit:
    """What clips are decoded and prepared with.

    Attributes:
        takes: per stream what its encoder takes: see `encoders.base.Encoder`.
        preparers: per stream its encoder's first step.
        variants: the noise of the streams that have one.
    """

    def __init__(
        self,
        config: ToolConfig,
        takes: dict[str, str],
        preparers: dict[str, Preparer],
        variants: dict[str, noise.Variant],
    ):
        self.config, self.finding = config, config.finding
        self.takes, self.preparers, self.variants = takes, preparers, variants

    def wanted(self, streams: Iterable[str]) -> set[str]:
        """All that has to be made of a clip for these streams: of "sound", "sight" and "pictures"."""
        return {part for name in streams for part in inputs_of(self.takes[name])}

    def __getstate__(self) -> dict[str, Any]:
        """Without what each process opens for itself."""
        return {name: vars(self)[name] for name in ("config", "finding", "takes", "preparers", "variants")}

    @cached_property
    def landmarks(self) -> Landmarks68 | None:
        return Landmarks68() if self.finding.places_face else None

    @cached_property
    def given(self) -> GivenFaces | None:
        """Raises UsageError where the files of given faces can't be read."""
        return open_given(self.finding.given) if self.finding.given else None

    @cached_property
    def noise_context(self) -> noise.Context:
        """What noise is made of: remembers what it has looked up."""
        config = self.config
        if config.voices is None:
            return noise.Context(config.noise_seed, config.noise_file)
        clips, root = config.voices

        def voice(row: int) -> np.ndarray:
            clip = clips[row]
            if clip.audio is None:
                raise MediaError(f"clip {clip.id} has no sound")
            return read_audio(root / clip.audio, *clip.sound_cut)

        return noise.Context(config.noise_seed, config.noise_file, clips, voice)

    def look(self, clip: Clip, frames: np.ndarray, faces: Sequence[Faces]) -> Sight:
        """The clip's frames with the track of its face. Raises NoFace, MediaError."""
        return look(frames, faces, self.landmarks, self.finding, clip.id, self.given)


class Tools:
    """The networks, with the kit. Streams that differ in their noise alone share one encoder.

    Raises:
        WeightsNotFound, UnknownName, UsageError.
    """

    def __init__(self, config: ToolConfig):
        self.config = config
        parsed = {name: noise.parse(name) for name in config.streams}
        bases = {base for base, _ in parsed.values()}
        for what, given in (("parameters", config.parameters), ("a model", config.models), ("layers", config.layers)):
            if unused := sorted(set(given) - bases):
                made = ", ".join(config.streams)
                raise UsageError(f"{unused[0]}: has {what} but is not extracted; streams: {made}")
        built = {
            base: table.build(
                base,
                device=config.device,
                weights=config.weights,
                model=config.models.get(base),
                layer=config.layers.get(base),
                parameters=config.parameters.get(base),
                compiled=config.compiled,
            )
            for base in sorted(bases)
        }
        self.encoders: dict[str, Encoder] = {name: built[base] for name, (base, _) in parsed.items()}
        variants = {name: variant for name, (_, variant) in parsed.items() if variant}
        self.kit = Kit(
            config,
            {name: takes_with(encoder.takes, variants.get(name)) for name, encoder in self.encoders.items()},
            {name: encoder.preparer for name, encoder in self.encoders.items()},
            variants,
        )
        if config.finding.given:
            self.kit.given  # noqa: B018 - a table that is none is found here, not clip by clip
        for name, encoder in self.encoders.items():
            if "sight" in self.kit.wanted([name]):  # noise is laid around the face
                crop = None if name in self.kit.variants else getattr(encoder, "crop", None)
                config.finding.check_serves(crop, name)

    @cached_property
    def detector(self) -> FaceDetector:
        return FaceDetector(self.config.detector_weights, device=self.config.device)

    @cached_property
    def measuring_detector(self) -> FaceDetector:
        """The same; on a GPU it also measures landmarks there: face by face on CPUs they take most of the time of an extraction."""
        place, known = self.detector.device, self.kit.landmarks
        if place.type == "cuda" and known:
            self.detector.landmarks = DeviceLandmarks(known.file, place)
        return self.detector

    def specification(self, stream: str) -> StreamSpec:
        """The stream specification that this set of tools gives. Raises UsageError where a noise lacks what it needs."""
        encoder, variant = self.encoders[stream], self.kit.variants.get(stream)
        described, entry = encoder.describe(), table.find(stream.partition("@")[0])
        return StreamSpec(
            name=stream,
            modality=entry.modality,
            encoder=entry.encoder,
            dtype=encoder.dtype,
            feature_shape=tuple(encoder.feature_shape),
            rate_hz=encoder.rate_hz,
            frame_law=encoder.frame_law,
            weights=described.get("weights"),
            parameters=described.get("parameters") or {},
            crop=described.get("crop"),
            detector=self.described_finding if "sight" in self.kit.wanted([stream]) else None,
            noise=variant.describe(self.kit.noise_context) if variant else None,
            versions={**library_versions(self.kit.wanted([stream])), **(described.get("versions") or {})},
        )

    @cached_property
    def described_finding(self) -> dict[str, Any]:
        """How faces are found, for the stream specification."""
        finding = self.config.finding
        return describe_sight(self.detector if finding.detects else None, self.kit.landmarks, finding)


def takes_with(takes: str, variant: noise.Variant | None) -> str:
    """What an encoder takes of clips with this noise: noise of pictures is laid around the face, which has to be found."""
    return takes.replace("pictures", "sight") if variant and "visual" in variant.modalities else takes


def library_versions(wanted: set[str]) -> dict[str, Any]:
    """Versions of bmla and of the libraries between the file and the encoder."""
    names = dict.fromkeys(name for part in sorted(wanted, reverse=True) for name in MEDIA_LIBRARIES[part])
    return {"bmla": __version__, **{name: metadata.version(name) for name in names}}
