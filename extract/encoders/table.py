"""The table of encoders: stream name -> what makes it. Importing it loads no model library."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...store.errors import UnknownName, UsageError
from ..weights import HF_DEFAULTS
from .options import defaults, options_from, value_from
from .parameters import (
    AvHubertSightOptions,
    DlibFaceOptions,
    FaceCropOptions,
    FaceImageOptions,
    FaceNetOptions,
    LogspecOptions,
    MouthDctOptions,
    MouthImageOptions,
    MouthRoiOptions,
    SpeechOptions,
    Vgg16Options,
)

if TYPE_CHECKING:
    from .base import Encoder

EMBEDDED_DEFAULT = ("audio.logspec", "mouth.roi", "mouth.dct", "face.dlib")  # need nothing but the installed packages


@dataclass(frozen=True)
class Request:
    """What a builder is given: see `build`. options: of the class that the entry names."""

    stream: str
    device: str
    weights: Sequence[Path]
    model: str | None
    options: Any
    compiled: bool = False


@dataclass(frozen=True)
class Entry:
    """One stream's encoder.

    Attributes:
        encoder: its name, as in the stream specification.
        modality: "audio", "visual" or "audio-visual".
        takes: as of the encoder: see `base.Encoder`.
        description: one line, with the source.
        needs_weights: has to be given weights that no package carries.
        builder: loads it; heavy imports happen inside.
        options: the dataclass of its parameters.
        models: what `model` may say; empty: there is nothing to choose.
        by_default: made where the user names no streams, if the weights are here.
    """

    encoder: str
    modality: str
    takes: str
    description: str
    needs_weights: bool
    builder: "Callable[[Request], Encoder]"
    options: type
    models: str = ""
    by_default: bool = False


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
    layer: int | str | None = None,
    parameters: Mapping[str, Any] | None = None,
    compiled: bool = False,
) -> "Encoder":
    """Loads the encoder of a stream.

    Args:
        device: such as "cpu" or "cuda:0"; encoders without a network run on the CPU whatever it says.
        weights: folders in which weights are looked for.
        model: another model than the default; see `Entry.models`.
        layer: which hidden layers, the same as the parameter "layer"; None: the encoder's default.
        parameters: the encoder's own options by name.
        compiled: networks go through torch.compile, which pays in long runs on a GPU.

    Raises:
        UnknownName: for a stream that is not in the table.
        UsageError: for a model, layer or parameter that the encoder does not have.
        WeightsNotFound: naming the file, its source and how to get it.
    """
    entry = find(stream)
    if model is not None and not entry.models:
        raise UsageError(f'{stream}: there is no model to choose, got "{model}"')
    chosen = dict(parameters or {})
    if layer is not None:
        if "layer" not in defaults(entry.options):
            raise UsageError(f"{stream}: there is no layer to choose, got {layer}")
        chosen["layer"] = layer
    options: Any = options_from(entry.options, chosen, stream)
    try:
        return entry.builder(Request(stream, device, tuple(weights), model, options, compiled))
    except UnknownName:
        raise
    except UsageError as error:
        raise UsageError(f"{stream}: {error}") from error


def read_parameters(words: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Parameters as typed: {"mouth.roi.crop_px": "96"} -> {"mouth.roi": {"crop_px": 96}}.

    Raises:
        UnknownName: for a stream that is not in the table.
        UsageError: for a word without a stream, a parameter that the stream does not have or a value of another type.
    """
    read: dict[str, dict[str, Any]] = {}
    for word, text in words.items():
        stream, dot, name = word.rpartition(".")
        if not dot:
            raise UsageError(f'parameter "{word}" names no stream: expected such as mouth.roi.crop_px')
        read.setdefault(stream, {})[name] = value_from(find(stream).options, name, text, stream)
    return read


def _logspec(request: Request) -> "Encoder":
    from .logspec import LogspecEncoder

    return LogspecEncoder(request.options, cube=request.stream == "audio.logspec-cube")


def _speech(request: Request) -> "Encoder":
    from .speech import SpeechEncoder, load_speech_model

    speech = load_speech_model(request.model or HF_DEFAULTS[request.stream], request.weights)
    return SpeechEncoder(speech, request.options, request.device, request.compiled)


def _vggface2(request: Request) -> "Encoder":
    from .facenet import FaceNetEncoder, load_face_network

    network = load_face_network(request.model or "vggface2", request.weights)
    return FaceNetEncoder(network, request.options, request.device, request.compiled)


def _casia(request: Request) -> "Encoder":
    from .facenet import FaceNetEncoder, load_face_network

    network = load_face_network(request.model or "casia-webface", request.weights)
    return FaceNetEncoder(network, request.options, request.device, request.compiled)


def _vgg16(request: Request) -> "Encoder":
    from .vgg16 import Vgg16Encoder, load_vgg16

    return Vgg16Encoder(load_vgg16(request.model, request.weights), request.options, request.device, request.compiled)


def _image(request: Request) -> "Encoder":
    from .image import ImageEncoder, load_image_model

    model = request.model or HF_DEFAULTS[request.stream]
    image = load_image_model(model, request.weights, request.options.output)
    return ImageEncoder(image, request.options, request.device, request.compiled)


def _avhubert(request: Request) -> "Encoder":
    from ..upstreams.loading import open_upstream
    from .avhubert import AvHubertEncoder

    loaded = open_upstream(request.model, "avhubert", request.weights, request.device)
    return AvHubertEncoder(loaded, TABLE[request.stream].takes, request.options, request.device, request.compiled)


def _avbert(request: Request) -> "Encoder":
    from ..upstreams.loading import open_upstream
    from .avbert import AvBertEncoder

    loaded = open_upstream(request.model, "avbert", request.weights, request.device)
    return AvBertEncoder(loaded, TABLE[request.stream].takes, request.options, request.device, request.compiled)


def _mavil(request: Request) -> "Encoder":
    from ..upstreams.loading import open_upstream
    from .mavil import MavilEncoder

    loaded = open_upstream(request.model, "mavil", request.weights, request.device)
    return MavilEncoder(loaded, TABLE[request.stream].takes, request.options, request.device, request.compiled)


def _roi(request: Request) -> "Encoder":
    from .roi import RoiEncoder

    return RoiEncoder(request.options)


def _mouth_dct(request: Request) -> "Encoder":
    from .dct import MouthDctEncoder

    return MouthDctEncoder(request.options)


def _dlib_face(request: Request) -> "Encoder":
    from .dlib_face import DlibFaceEncoder

    return DlibFaceEncoder(request.options)


def _speech_entry(encoder: str, description: str, model: str, by_default: bool = False) -> Entry:
    return Entry(
        encoder=encoder,
        modality="audio",
        takes="sound",
        description=description,
        needs_weights=True,
        builder=_speech,
        options=SpeechOptions,
        models=f'a Hugging Face id of any of these families (default {model}), a folder, or "random:{encoder}-tiny"',
        by_default=by_default,
    )


def _sight_entry(
    encoder: str,
    description: str,
    builder: "Callable[[Request], Encoder]",
    options: type,
    models: str = "",
    needs_weights: bool = False,
    by_default: bool = False,
) -> Entry:
    return Entry(encoder, "visual", "sight", description, needs_weights, builder, options, models, by_default)


def _upstream_entry(
    encoder: str, of: str, takes: str, builder: "Callable[[Request], Encoder]", options: type, models: str
) -> Entry:
    """A published model of both modalities, given one of them or both."""
    modality = "audio-visual" if "+" in takes else "audio" if takes == "sound" else "visual"
    return Entry(encoder, modality, takes, f"hidden states of {of}", True, builder, options, models)


AVHUBERT_MODELS = 'avhubert-base (default), avhubert-large, a converted file, or "random:avhubert-tiny"'
AVBERT_MODELS = 'avbert (default), a converted file, or "random:avbert-tiny"'
MAVIL_MODELS = 'mavil (default), a converted file, or "random:mavil-tiny"'

TABLE: dict[str, Entry] = {
    "audio.logspec": Entry(
        encoder="logspec",
        modality="audio",
        takes="sound",
        description="log-mel spectrogram with first and second derivatives, as vectors (the paper, section 4.1.2)",
        needs_weights=False,
        builder=_logspec,
        options=LogspecOptions,
        by_default=True,
    ),
    "audio.logspec-cube": Entry(
        encoder="logspec-cube",
        modality="audio",
        takes="sound",
        description="the same as (3, bands) a step: the paper's three-dimensional cube, for convolutions",
        needs_weights=False,
        builder=_logspec,
        options=LogspecOptions,
    ),
    "audio.hubert": _speech_entry(
        "hubert", "hidden states of HuBERT (Hsu et al. 2021), by transformers", HF_DEFAULTS["audio.hubert"], True
    ),
    "audio.wav2vec2": _speech_entry(
        "wav2vec2",
        "hidden states of wav2vec 2.0 (Baevski et al. 2020), by transformers",
        HF_DEFAULTS["audio.wav2vec2"],
    ),
    "audio.wavlm": _speech_entry(
        "wavlm", "hidden states of WavLM (Chen et al. 2022), by transformers", HF_DEFAULTS["audio.wavlm"]
    ),
    "audio.data2vec": _speech_entry(
        "data2vec",
        "hidden states of data2vec-audio (Baevski et al. 2022), by transformers",
        HF_DEFAULTS["audio.data2vec"],
    ),
    "audio.avhubert": _upstream_entry(
        "avhubert", "AV-HuBERT (Shi et al. 2022) over sound alone", "sound", _avhubert, SpeechOptions, AVHUBERT_MODELS
    ),
    "mouth.avhubert": _upstream_entry(
        "avhubert", "AV-HuBERT over the mouth alone", "sight", _avhubert, AvHubertSightOptions, AVHUBERT_MODELS
    ),
    "av.avhubert": _upstream_entry(
        "avhubert", "AV-HuBERT over both at once", "sound+sight", _avhubert, AvHubertSightOptions, AVHUBERT_MODELS
    ),
    "audio.avbert": _upstream_entry(
        "avbert", "AVBERT (Lee et al. 2021) over ten views of the sound", "sound", _avbert, SpeechOptions, AVBERT_MODELS
    ),
    "video.avbert": _upstream_entry(
        "avbert", "AVBERT over ten views of the whole picture", "pictures", _avbert, SpeechOptions, AVBERT_MODELS
    ),
    "av.avbert": _upstream_entry(
        "avbert", "AVBERT over both at once", "sound+pictures", _avbert, SpeechOptions, AVBERT_MODELS
    ),
    "audio.mavil": _upstream_entry(
        "mavil", "MAViL (Huang et al. 2023) over ten seconds of sound", "sound", _mavil, SpeechOptions, MAVIL_MODELS
    ),
    "video.mavil": _upstream_entry(
        "mavil", "MAViL over four seconds of whole pictures", "pictures", _mavil, SpeechOptions, MAVIL_MODELS
    ),
    "av.mavil": _upstream_entry(
        "mavil", "MAViL over both at once", "sound+pictures", _mavil, SpeechOptions, MAVIL_MODELS
    ),
    "face.vggface2": _sight_entry(
        "vggface2",
        "face embedding of InceptionResnetV1 trained on VGGFace2 (Cao et al. 2018), by facenet-pytorch",
        _vggface2,
        FaceNetOptions,
        'vggface2 (default), casia-webface, a weight file, or "random:vggface2"',
        needs_weights=True,
        by_default=True,
    ),
    "face.casia": _sight_entry(
        "casia",
        "the same network trained on CASIA-WebFace (Yi et al. 2014)",
        _casia,
        FaceNetOptions,
        'casia-webface (default), vggface2, a weight file, or "random:vggface2"',
        needs_weights=True,
    ),
    "face.vgg16": _sight_entry(
        "vgg16",
        "VGG-16 with 1024 outputs (the paper, section 4.1.2), for those who have weights of it",
        _vgg16,
        Vgg16Options,
        'a weight file, or "random:vgg16-small"',
        needs_weights=True,
    ),
    "face.image": _sight_entry(
        "image",
        "any Hugging Face image encoder over the face: DINOv2 (Oquab et al. 2023), ViT, …",
        _image,
        FaceImageOptions,
        f'a Hugging Face id (default {HF_DEFAULTS["face.image"]}), a folder, or "random:dinov2-tiny"',
        needs_weights=True,
    ),
    "mouth.image": _sight_entry(
        "image",
        "any Hugging Face image encoder over the mouth",
        _image,
        MouthImageOptions,
        f'a Hugging Face id (default {HF_DEFAULTS["mouth.image"]}), a folder, or "random:dinov2-tiny"',
        needs_weights=True,
    ),
    "face.roi": _sight_entry(
        "face-roi",
        "face crops of 128 x 128 pixels by RetinaFace (the paper, section 4.1.2)",
        _roi,
        FaceCropOptions,
    ),
    "mouth.roi": _sight_entry(
        "mouth-roi",
        "grey mouth crops of 80 x 80 pixels by Dlib's landmarks (the paper, section 4.1.2)",
        _roi,
        MouthRoiOptions,
        by_default=True,
    ),
    "mouth.dct": _sight_entry(
        "mouth-dct",
        "64 low DCT coefficients of the mouth crop and their derivatives (Potamianos et al. 2003)",
        _mouth_dct,
        MouthDctOptions,
        by_default=True,
    ),
    "face.dlib": _sight_entry(
        "dlib-face",
        "Dlib's face descriptor of every fifth frame (King 2017); its weights come with a package",
        _dlib_face,
        DlibFaceOptions,
        by_default=True,
    ),
}
