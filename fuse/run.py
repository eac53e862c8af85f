"""A finished run on disk: everything that is needed to read its results, to use the model again, and to say where both came from.

    <run>/config.json          settings, features (digests), classes, versions, command, and what the run started from
    <run>/metrics.jsonl        one line an epoch: losses, dev accuracy of every head, alpha, gradient norms
    <run>/model.safetensors    weights of the best epoch, statistics of the features included
    <run>/test.json            scores on dev and test
    <run>/predictions.parquet  one row a test clip: id, group, label, log-probabilities of every head, alpha
    <run>/clips.parquet        one row a clip: id, group, split: which clips it was trained on, chosen by and tested with
    <run>/conditions/<condition>.json, .parquet   the same two of the test clips under noise or without a modality

The folder is written under another name and renamed when it is whole; a condition is there when its .json is, which is written last.
"""

import hashlib
import json
import math
import platform
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..store.errors import BmlaError, StoreError, UsageError
from ..store.sealing import digest_json
from ..store.spec import StreamSpec
from .condition import CLEAN, Condition, parse_condition
from .config import RunConfig
from .data import Features
from .leakage import Leak
from .models.base import FusionModel, Input
from .models.own import Builder, identity
from .models.table import OWN, build, entry, takes
from .predictions import HEADS, Predictions, predict
from .run_clips import write_clips
from .standing import Epoch
from .stream import Stream
from .training import Trained

FORMAT = 1
CONDITIONS = "conditions"
LARGEST_LENGTH = 1 << 20  # of a feature, as in a stream specification
LARGEST_CLASSES = 1 << 20


class RunDamaged(BmlaError):
    """A run folder does not hold what it should."""


@dataclass(frozen=True)
class Run:
    """One finished run. Made by `load_run` and `save_run`.

    Attributes:
        path: its folder.
        document: config.json.
        config: the settings.
        history: one entry an epoch.
        scores: test.json: "best" (the chosen epoch), "dev" and "test".
        builder: makes the model, where it is the user's own; None: not known, and `model` refuses.
    """

    path: Path
    document: dict[str, Any]
    config: RunConfig
    history: list[Epoch]
    scores: dict[str, Any]
    builder: Builder | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.document["classes"])

    @property
    def branches(self) -> dict[str, str]:
        """The names of the runs that it started from, by modality; they are kept in the same folder."""
        return dict(self.document.get("branches", {}))

    def branch_history(self, modality: str) -> list[Epoch]:
        """One entry an epoch of the run that a branch started from."""
        return load_run(self.path.parent / self.branches[modality]).history

    @property
    def streams(self) -> dict[str, str]:
        """The names of the streams that it was trained on, by modality."""
        return {modality: stream["name"] for modality, stream in self.document["features"]["streams"].items()}

    def seconds(self, modality: str) -> tuple[float, float] | None:
        """The shortest and the longest clip that it was trained or tested on; None where the run does not say."""
        span = self.document["features"]["streams"][modality].get("seconds")
        if isinstance(span, list) and len(span) == 2 and all(type(s) in (int, float) for s in span):
            return span[0], span[1]
        return None

    def specification(self, modality: str) -> StreamSpec | None:
        """What made the features of a modality; None where the run does not say.

        Raises:
            RunDamaged: it is not the one that the digest stands for.
        """
        stream = self.document["features"]["streams"][modality]
        if stream.get("specification") is None:
            return None
        try:
            spec = StreamSpec.from_dict(stream["specification"])
        except (StoreError, UsageError, AttributeError, TypeError) as error:
            raise RunDamaged(f"{self.path}/config.json: the {modality} stream: {first_line(error)}") from error
        if (spec.digest(), spec.name) != (stream["digest"], stream["name"]):
            raise RunDamaged(
                f"{self.path}/config.json: the {modality} stream's specification is not that of its digest"
            )
        return spec

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """What its features knew of its dev and test clips."""
        return tuple(Leak(**leak) for leak in self.document["features"].get("leaks", ()))

    @cached_property
    def predictions(self) -> Predictions:
        """Of the test clips."""
        return read_predictions(self.path / "predictions.parquet")

    @property
    def conditions(self) -> tuple[str, ...]:
        """What it was tested under: "clean", and what else there is, sorted."""
        return (str(CLEAN), *sorted(path.stem for path in (self.path / CONDITIONS).glob("*.json")))

    def scores_under(self, condition: str) -> dict[str, Any]:
        """Of the test clips under a condition. To a run that it does not concern, it is clean.

        Raises:
            UsageError: the run was not tested under it.
        """
        name = self.own_name(condition)
        scores: dict[str, Any] = self.scores["test"] if name == str(CLEAN) else self.condition_document(name)["test"]
        return scores

    def predictions_under(self, condition: str) -> Predictions:
        """As `scores_under`."""
        name = self.own_name(condition)
        if name == str(CLEAN):
            return self.predictions
        self.condition_document(name)
        return read_predictions(self.path / CONDITIONS / f"{name}.parquet")

    def own_name(self, condition: str) -> str:
        """What a condition is to this run."""
        return str(parse_condition(condition).seen_by(self.streams))

    def condition_document(self, name: str) -> dict[str, Any]:
        path = self.path / CONDITIONS / f"{name}.json"
        if not path.is_file():
            raise UsageError(f"{self.name}: not tested under {name}; tested under: {', '.join(self.conditions)}")
        document: dict[str, Any] = read_json(path)
        return document

    def was_tested(self, condition: Condition, digests: Mapping[str, str]) -> bool:
        """Whether it was tested under a condition (that concerns it) with noise variants of these digests."""
        if condition == CLEAN:
            return True
        path = self.path / CONDITIONS / f"{condition}.json"
        return path.is_file() and read_json(path).get("variants") == {v: digests[v] for v in condition.variants}

    def add_condition(
        self, condition: Condition, digests: Mapping[str, str], scores: Mapping[str, Any], predictions: Predictions
    ) -> None:
        """Keeps how the run did under a condition, instead of what was kept of it before.

        Raises:
            StoreError: it can't be written.
        """
        folder = self.path / CONDITIONS
        document = {"variants": {v: digests[v] for v in condition.variants}, "test": dict(scores)}
        try:
            folder.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as beside:
                write_predictions(Path(beside) / "parquet", predictions)
                write_json(Path(beside) / "json", document)
                for kind in ("parquet", "json"):
                    (Path(beside) / kind).replace(folder / f"{condition}.{kind}")
        except OSError as error:
            raise StoreError(f"{folder}: cannot write here: {error.strerror or error}") from error

    def weights_digest(self) -> str:
        """SHA-256 of the file with the weights. Raises RunDamaged where there is none."""
        try:
            with (self.path / "model.safetensors").open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RunDamaged(f"{self.path}/model.safetensors: can't be read: {error.strerror or error}") from error

    def digest(self) -> str:
        """SHA-256 that stands for the trained model: its settings, features, classes and weights. Raises RunDamaged."""
        features = self.document["features"]
        parts = [features["digest"], features["streams"], list(self.classes), self.weights_digest()]
        return digest_json([FORMAT, self.config.changes(), *parts])

    def model(self, device: torch.device | str = "cpu") -> FusionModel:
        """The model with its trained weights, in evaluation mode.

        Warns where it is the user's own and its source is not what it was.

        Raises:
            RunDamaged: the weights do not fit.
            UsageError: it is the user's own, and the run was loaded without its class.
        """
        model = build(self.config, self.inputs, len(self.classes), self.builder)
        if (
            self.builder is not None
            and (now := identity(self.builder, self.inputs, len(self.classes))) != self.config.own
        ):
            warnings.warn(f"{self.name}: trained with {self.config.own}; what was given is {now}", stacklevel=2)
        try:
            model.load_state_dict(load_file(self.path / "model.safetensors"))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise RunDamaged(f"{self.path}/model.safetensors: can't be used: {first_line(error)}") from error
        return model.to(device).eval()

    @property
    def inputs(self) -> dict[str, Input]:
        """What a step of each stream is that the model takes."""
        streams = self.document["features"]["streams"]
        return {m: input_of(streams[m]) for m in takes(self.config.model)}

    def predict(self, features: Features, split: str = "test", device: torch.device | str = "cpu") -> Predictions:
        """The model's answers about the clips of a split that have one of its modalities.

        Args:
            device: where the features are.

        Raises:
            UsageError: these are not the features or the classes that the run was trained on.
        """
        modalities = takes(self.config.model)
        for modality in modalities:
            trained, given = self.document["features"]["streams"][modality], features.stream(modality)
            if (given.digest, given.input) != (trained["digest"], input_of(trained)):
                raise UsageError(
                    f"{self.name}: these are not the {modality} features that it was trained on: got {given.name} "
                    f"{given.digest[:12]}, expected {trained['name']} {trained['digest'][:12]}"
                )
        if features.classes != self.classes:
            raise UsageError(
                f"{self.name}: it was trained on {len(self.classes)} other classes: {shorten(self.classes)}"
            )
        return predict(self.model(device), features, features.clips(split, modalities), modalities)


def run_name(config: RunConfig, features: Features) -> str:
    """A folder's name: readable first, then a digest of the settings and of the features.

    Settings at their defaults are left out of it, so that one that is added later does not make old runs strangers.
    """
    parts = [config.model.replace(":", "-")]
    parts += ["without-" + "-".join(config.removed)] if config.removed else []
    parts += [config.balance] if config.balance != "none" else []
    parts += [config.ratio.replace(":", "-")] if len(takes(config.model)) == 2 or config.ratio != "1:1" else []
    parts += [f"fold{config.fold}"] if config.folds else []
    parts += ["with-" + "-".join(config.task_names[1:])] if config.tasks else []
    used = [features.digest, *(features.variant_digests[name] for name in (*config.augment, *config.gate_augment))]
    identity = json.dumps([FORMAT, config.changes(), used], sort_keys=True)
    return "_".join([*parts, f"seed{config.seed}", hashlib.sha256(identity.encode()).hexdigest()[:10]])


def save_run(
    out: Path,
    config: RunConfig,
    features: Features,
    trained: Trained,
    scores: Mapping[str, Any],
    predictions: Predictions,
    provenance: Mapping[str, Any],
) -> Run:
    """Writes a run folder under `out` and returns the run.

    Args:
        provenance: more keys for config.json (command, store, seconds, branches).

    Raises:
        StoreError: it can't be written.
    """
    streams = {m: features.stream(m) for m in takes(config.model)}
    document = {
        "format": FORMAT,
        "config": config.to_dict(),
        "features": {
            "dataset": features.dataset,
            "task": features.task,
            "digest": features.digest,
            "streams": {m: described(features, s) for m, s in streams.items()},
            "notes": list(features.notes),
            "leaks": [asdict(leak) for leak in features.leaks(takes(config.model))],
        },
        "classes": list(features.classes),
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("bmla", "numpy", "scikit-learn", "torch")},
        },
        **provenance,
    }
    target = out / run_name(config, features)
    try:
        out.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=out))
        try:
            beside.chmod(0o755)
            write_json(beside / "config.json", document)
            write_json(beside / "test.json", scores)
            lines = "".join(json.dumps(epoch, allow_nan=False) + "\n" for epoch in trained.history)
            (beside / "metrics.jsonl").write_text(lines, "utf-8")
            weights = {name: value.detach().cpu().contiguous() for name, value in trained.model.state_dict().items()}
            save_file(weights, beside / "model.safetensors")
            write_predictions(beside / "predictions.parquet", predictions)
            write_clips(beside, features, config.model)
            if not target.exists():  # another process may have finished the same run meanwhile
                beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{out}: cannot write a run here: {error.strerror or error}") from error
    return load_run(target)


def described(features: Features, stream: Stream) -> dict[str, Any]:
    """A stream for config.json: what a step is, how long clips are, and all that made the numbers, where a store says so."""
    lengths = stream.lengths[torch.from_numpy(stream.present)]
    seconds = [round(float(n) / stream.rate_hz, 3) for n in (lengths.min(), lengths.max())] if len(lengths) else []
    known = features.specifications.get(stream.name)
    return {
        "name": stream.name,
        **stream.input._asdict(),
        "digest": stream.digest,
        "seconds": seconds,
        **({"specification": known} if known is not None else {}),
    }


def load_run(path: str | Path, model: Builder | None = None) -> Run:
    """Opens a finished run.

    Args:
        model: the class or function that makes the model, for a run of a model of the user's own; without it, everything can be
            read but the model can't be used.

    Raises:
        UsageError: there is none at this path, or a class was given for a model of the table.
        RunDamaged: a file of it is missing or can't be believed.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise UsageError(f"{path}: no run here: expected a folder that `bmla fuse` wrote")
    document, scores = read_json(path / "config.json"), read_json(path / "test.json")
    try:
        if document["format"] != FORMAT:
            raise RunDamaged(f"{path}: a run of format {document['format']!r}; this bmla reads format {FORMAT}")
        config = RunConfig.from_dict(document["config"])
        classes, streams = document["classes"], document["features"]["streams"]
        fits = all(
            type(streams[m]["length"]) is int
            and 0 < streams[m]["length"] <= LARGEST_LENGTH
            and type(streams[m]["rate_hz"]) in (int, float)
            and 0 < streams[m]["rate_hz"] <= 1e5
            and all(type(n) is int and n > 0 for n in input_of(streams[m]).layout)
            and math.prod(input_of(streams[m]).layout) == streams[m]["length"]
            and input_of(streams[m]).kind in entry(config.model).kinds
            for m in takes(config.model)
        )
        if not fits or not 2 <= len(classes) <= LARGEST_CLASSES or not all(isinstance(c, str) for c in classes):
            raise RunDamaged(f"{path}/config.json: the features or classes in it can't be")
        for leak in document["features"].get("leaks", ()):
            Leak(**leak)
        history = [json.loads(line) for line in (path / "metrics.jsonl").read_text("utf-8").splitlines()]
        if not isinstance(scores["test"]["accuracy"], float) or not isinstance(scores["best"]["dev_accuracy"], float):
            raise RunDamaged(f"{path}/test.json: no accuracy in it")
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise RunDamaged(
            f"{path}: damaged, remove it to train again: {type(error).__name__} {first_line(error)}"
        ) from error
    if model is not None and not config.model.startswith(OWN):
        raise UsageError(f"{path}: {config.model} is a model of the table: no class is needed")
    return Run(path, document, config, history, scores, model)


def input_of(stream: Mapping[str, Any]) -> Input:
    """What config.json says one step of a stream is."""
    return Input(
        stream["length"], stream["rate_hz"], tuple(stream.get("shape", ())), stream.get("pixels", False) is True
    )


def write_predictions(path: Path, predictions: Predictions) -> None:
    columns: dict[str, Any] = {
        "id": pa.array(predictions.ids.tolist(), pa.string()),
        "group": pa.array(predictions.groups.tolist(), pa.string()),
        "label": pa.array(predictions.labels, pa.int64()),
        "audio_present": pa.array(predictions.audio_present),
        "visual_present": pa.array(predictions.visual_present),
    }
    for head in HEADS:
        if (values := getattr(predictions, head)) is not None:
            flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
            columns[head] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_predictions(path: Path) -> Predictions:
    """Raises RunDamaged."""
    try:
        table = pq.read_table(path, memory_map=False).combine_chunks()
        heads = {head: np.stack(table[head].to_numpy()) for head in HEADS if head in table.column_names}
        return Predictions(
            ids=table["id"].to_numpy(),
            groups=table["group"].to_numpy(),
            labels=table["label"].to_numpy(),
            result=heads["result"],
            audio=heads.get("audio"),
            visual=heads.get("visual"),
            alpha=heads.get("alpha"),
            audio_present=table["audio_present"].to_numpy(),
            visual_present=table["visual_present"].to_numpy(),
        )
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise RunDamaged(f"{path}: can't be read: {first_line(error)}") from error


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Raises RunDamaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunDamaged(f"{path}: can't be read: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The beginning of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shorten(names: tuple[str, ...], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
