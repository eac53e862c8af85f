"""The table of encoders: stream name -> what makes it. Importing it loads no model library."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...store.errors import UnknownName, UsageError
from .options import options_from

if TYPE_CHECKING:
    from .base import Encoder

EMBEDDED_DEFAULT = ("audio.logspec", "mouth.roi", "mouth.dct", "face.dlib")  # need nothing but the installed packages


@dataclass(frozen=True)
class Request:
    """What a builder is given: see `build`."""

    stream: str
    device: str
    weights: Sequence[Path]
    model: str | None
    layer: int | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One stream's encoder.

    Attributes:
        encoder: its name, as in the stream specification.
        modality: "audio" or "visual".
        takes: "sound" or "sight".
        description: one line, with the source.
        needs_weights: has to be given weights that no package carries.
        builder: loads it; heavy imports happen inside.
        models: what `model` may say; empty: there is nothing to choose.
        has_layers: whether `layer` may be given.
    """

    encoder: str
    modality: str
    takes: str
    description: str
    needs_weights: bool
    builder: "Callable[[Request], Encoder]"
    models: str = ""
    has_layers: bool = False


def find(stream: str) -> Entry:
    """Raises UnknownName, listing the streams that there are."""
    if stream not in TABLE:
        raise UnknownName("encoder", stream, list(TABLE))
    return TABLE[stream]


def build(
    stream: str,
    *,
    device: str = "cpu",
    weights: Sequence[Path] = (),
    model: str | None = None,
    layer: int | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> "Encoder":
    """Loads the encoder of a stream.

    Args:
        device: such as "cpu" or "cuda:0"; encoders without a network run on the CPU whatever it says.
        weights: folders in which weights are looked for.
        model: another model than the default; see `Entry.models`.
        layer: which hidden layer; None: the encoder's default.
        parameters: the encoder's own options by name.

    Raises:
        UnknownName: for a stream that is not in the table.
        UsageError: for a model, layer or parameter that the encoder does not have.
        WeightsNotFound: naming the file, its source and how to get it.
    """
    entry = find(stream)
    if model is not None and not entry.models:
        raise UsageError(f'{stream}: there is no model to choose, got "{model}"')
    if layer is not None and not entry.has_layers:
        raise UsageError(f"{stream}: there is no layer to choose, got {layer}")
    return entry.builder(Request(stream, device, tuple(weights), model, layer, parameters or {}))


def _logspec(request: Request) -> "Encoder":
    from .logspec import LogspecEncoder, LogspecOptions

    return LogspecEncoder(options_from(LogspecOptions, request.parameters, request.stream))


def _hubert(request: Request) -> "Encoder":
    from .hubert import HubertEncoder, HubertOptions, load_speech_model

    options = options_from(HubertOptions, {"layer": request.layer, **request.parameters}, request.stream)
    return HubertEncoder(load_speech_model(request.model, request.weights), options, request.device)


def _vggface2(request: Request) -> "Encoder":
    from .vggface2 import VggFace2Encoder, VggFace2Options, load_face_network

    options = options_from(VggFace2Options, request.parameters, request.stream)
    return VggFace2Encoder(load_face_network(request.model, request.weights), options, request.device)


def _mouth_roi(request: Request) -> "Encoder":
    from .mouth import MouthRoiEncoder, MouthRoiOptions

    return MouthRoiEncoder(options_from(MouthRoiOptions, request.parameters, request.stream))


def _mouth_dct(request: Request) -> "Encoder":
    from .mouth import MouthDctEncoder, MouthDctOptions

    return MouthDctEncoder(options_from(MouthDctOptions, request.parameters, request.stream))


def _dlib_face(request: Request) -> "Encoder":
    from .dlib_face import DlibFaceEncoder, DlibFaceOptions

    return DlibFaceEncoder(options_from(DlibFaceOptions, request.parameters, request.stream))


TABLE: dict[str, Entry] = {
    "audio.logspec": Entry(
        encoder="logspec",
        modality="audio",
        takes="sound",
        description="log-mel spectrogram with first and second derivatives (the paper, section 4.1.2)",
        needs_weights=False,
        builder=_logspec,
    ),
    "audio.hubert": Entry(
        encoder="hubert",
        modality="audio",
        takes="sound",
        description="hidden states of HuBERT (Hsu et al. 2021), wav2vec 2.0, WavLM or data2vec-audio, by transformers",
        needs_weights=True,
        builder=_hubert,
        models='a Hugging Face id (default facebook/hubert-base-ls960), a folder, or "random:hubert-base"',
        has_layers=True,
    ),
    "face.vggface2": Entry(
        encoder="vggface2",
        modality="visual",
        takes="sight",
        description="face embedding of InceptionResnetV1 trained on VGGFace2 (Cao et al. 2018), by facenet-pytorch",
        needs_weights=True,
        builder=_vggface2,
        models='vggface2 (default), casia-webface, a weight file, or "random:vggface2"',
    ),
    "mouth.roi": Entry(
        encoder="mouth-roi",
        modality="visual",
        takes="sight",
        description="grey mouth crops of 80 x 80 pixels by Dlib's landmarks (the paper, section 4.1.2)",
        needs_weights=False,
        builder=_mouth_roi,
    ),
    "mouth.dct": Entry(
        encoder="mouth-dct",
        modality="visual",
        takes="sight",
        description="64 low DCT coefficients of the mouth crop and their derivatives (Potamianos et al. 2003)",
        needs_weights=False,
        builder=_mouth_dct,
    ),
    "face.dlib": Entry(
        encoder="dlib-face",
        modality="visual",
        takes="sight",
        description="Dlib's face descriptor of every fifth frame (King 2017); its weights come with a package",
        needs_weights=False,
        builder=_dlib_face,
    ),
}
