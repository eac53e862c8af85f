"""Generated features of two modalities whose class signal can be turned up and down, as arrays and as a store."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.condition import parse_condition
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.evaluate import Predictions
from bmla.fuse.metrics import scores
from bmla.fuse.models.table import takes
from bmla.fuse.recipes import run_config
from bmla.fuse.run import Run
from bmla.store import create_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.ledger import Failure
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec

CLASSES = ("ABOUT", "AFTER", "AGAIN", "ALWAYS")
LENGTHS = {"audio": 12, "visual": 8}
STEPS = {"audio": (8, 15), "visual": (4, 8)}  # of 50 and 25 a second


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Quickest at these sizes, and the last bit of a sum depends on how many threads share it."""
    torch.set_num_threads(1)


def generate(
    audio: float, visual: float, clips: int = 240, seed: int = 0, classes: int = 4, permuted: bool = False
) -> tuple[np.ndarray, np.ndarray, dict[str, list[Any]]]:
    """Labels, splits (60 / 15 / 25 %) and arrays: noise of size one, plus a pattern of the class of a given size.

    The pattern moves through time, so that a mean over the clip alone does not give it away.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(clips) % classes)
    split = np.array(["train"] * 12 + ["dev"] * 3 + ["test"] * 5)[rng.permutation(clips) % 20]
    arrays: dict[str, list[Any]] = {}
    for modality, amount in (("audio", audio), ("visual", visual)):
        length = LENGTHS[modality]
        pattern = np.random.default_rng(length).normal(size=(classes, 2, length))
        arrays[modality] = []
        for label in labels:
            t = int(rng.integers(*STEPS[modality]))
            halves = (np.arange(t) * 2) // t
            values = amount * pattern[label, halves] + rng.normal(size=(t, length))
            arrays[modality].append(values.astype(np.float32))
    if permuted:
        labels = rng.permutation(labels)
    return labels, split, arrays


@pytest.fixture(scope="session")
def make_features() -> Callable[..., Features]:
    """`generate` as Features; `drop` takes modalities away: {"visual": clip numbers}; `noises` adds variants: {name: amount}."""

    def make(
        audio: float = 1.0,
        visual: float = 1.0,
        drop: dict[str, Any] | None = None,
        noises: dict[str, float] | None = None,
        **options: Any,
    ) -> Features:
        labels, split, arrays = generate(audio, visual, **options)
        variants = {}
        for name, amount in (noises or {}).items():
            rng = np.random.default_rng(len(name))
            clean = arrays[name.partition(".")[0]]
            variants[name] = [a + (amount * rng.normal(size=a.shape)).astype(np.float32) for a in clean]
        for modality, numbers in (drop or {}).items():
            for i in numbers:
                arrays[modality][i] = None
        names = CLASSES if options.get("classes", 4) == 4 else None
        return features_from_arrays(labels, split, classes=names, variants=variants, **arrays)

    return make


@pytest.fixture(scope="session")
def features(make_features: Callable[..., Features]) -> Features:
    """Both modalities with signal."""
    return make_features()


@pytest.fixture(scope="session")
def tiny() -> Callable[..., RunConfig]:
    """A configuration that trains in a fraction of a second."""

    def make(model: str, **wishes: Any) -> RunConfig:
        small = dict(
            layers=1,
            width=16,
            heads=2,
            gru_units=16,
            front_width=2,
            resnet_depth=18,
            epochs=6,
            lr=5e-3,
            finetune_epochs=2,
            finetune_lr=1e-3,
            batch_size=32,
        )
        return run_config(model, **{"audio": "audio.arrays", "visual": "visual.arrays", **small, **wishes})

    return make


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a stream of each modality and one of pictures; clip 0 failed for sound, clip 1 has no valid frame."""
    return write_store(tmp_path_factory.mktemp("stores") / "tiny.zarr", {})


@pytest.fixture(scope="session")
def noisy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with noise variants of both streams, and a speaker for every clip."""
    noises = {"audio.logspec@white=0": 2.0, "audio.logspec@white=10": 0.5, "mouth.dct@blur=4": 2.0}
    return write_store(tmp_path_factory.mktemp("stores") / "noisy.zarr", noises)


def write_store(path: Path, noises: dict[str, float]) -> Path:
    labels, split, arrays = generate(1.0, 1.0, clips=80)
    rows = [
        Clip(
            f"{CLASSES[y]}_{i:05d}",
            0.0,
            1.0,
            label=CLASSES[y],
            split=str(s),
            group=f"g{i // 2}" if s == "train" else None,
            speaker=f"s{i % 7}" if noises else None,
        )
        for i, (y, s) in enumerate(zip(labels, split, strict=True))
    ]
    table = ClipTable.from_clips(rows)
    store = create_store(path, dataset="tiny", task="lip reading", classes=CLASSES, clips=table, shard_size=32)
    pictures = [np.zeros((len(v), 4, 4), np.uint8) for v in arrays["visual"]]
    streams = {
        "audio.logspec": [a.astype(np.float16) for a in arrays["audio"]],
        "mouth.dct": [v.astype(np.float16) for v in arrays["visual"]],
        "mouth.roi": pictures,
    }
    for name, amount in noises.items():
        rng = np.random.default_rng(len(name))
        clean = streams[name.partition("@")[0]]
        streams[name] = [(v + amount * rng.normal(size=v.shape)).astype(np.float16) for v in clean]
    for name, values in streams.items():
        modality = "audio" if name.startswith("audio") else "visual"
        spec = StreamSpec(
            name=name,
            modality=modality,
            encoder=name.split(".")[1],
            dtype=str(values[0].dtype),
            feature_shape=values[0].shape[1:],
            rate_hz=50.0 if modality == "audio" else 25.0,
            frame_law="generated",
        )
        store.add_stream(spec, max(map(len, values)))
        for number in range(store.shards):
            start, stop = store.extent(number)
            store.write_shard(name, number, [stored(name, i, rows[i].id, values[i]) for i in range(start, stop)])
    return path


def stored(stream: str, number: int, clip: str, values: np.ndarray) -> ClipFeatures:
    """A clip's result of an extraction."""
    if stream == "audio.logspec" and number == 0:
        return ClipFeatures(None, None, Failure(clip, step="sound", error="NoSound", message="no sound"))
    valid = np.full(len(values), not (stream == "mouth.dct" and number == 1))
    return ClipFeatures(values, valid)


def made_up_predictions(
    right: Sequence[bool], groups: Sequence[str] | None = None, first: int = 0, hidden: str = ""
) -> Predictions:
    """Of two classes, right about just these clips, whose ids count on from `first`."""
    n = len(right)
    labels = (first + np.arange(n)) % 2
    answers = np.where(right, labels, 1 - labels)
    ids = np.array([f"{first + i:06d}" for i in range(n)])
    return Predictions(
        ids=ids,
        groups=ids if groups is None else np.array(groups, object),
        labels=labels,
        result=np.log(np.eye(2)[answers] * 0.8 + 0.1).astype(np.float32),
        audio=None,
        visual=None,
        alpha=None,
        audio_present=np.full(n, hidden != "audio"),
        visual_present=np.full(n, hidden != "visual"),
    )


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., Run]:
    """A run that was never trained, right about just the clips that are asked for."""

    def make(
        config: RunConfig,
        right: Sequence[bool],
        dev: float = 0.5,
        loss: float = 1.0,
        groups: Sequence[str] | None = None,
        first: int = 0,
        curve: Sequence[float] = (),
        digest: str = "0" * 64,
        under: Mapping[str, Sequence[bool]] | None = None,
    ) -> Run:
        """Args: under: right answers under conditions; see `made_up_predictions` for the others."""
        predictions = made_up_predictions(right, groups, first)
        best = {"dev_accuracy": dev, "dev_loss": loss, "epoch": 3}
        streams = {
            m: {"name": f"{m}.made-up", "digest": m * 8, "length": 4, "rate_hz": 25.0} for m in takes(config.model)
        }
        features = {"dataset": "made up", "task": "lip reading", "streams": streams, "digest": digest, "notes": []}
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        history = [{"dev_accuracy": value} for value in curve]
        tested = {"best": best, "dev": {"clips": 1000}, "test": scores(predictions)}
        run = Run(folder, {"features": features, "classes": ["a", "b"], "versions": {}}, config, history, tested)
        run.__dict__["predictions"] = predictions  # where cached_property keeps it
        for name, answers in (under or {}).items():
            condition = parse_condition(name)
            given = made_up_predictions(answers, groups, first, "".join(condition.hidden))
            run.add_condition(condition, dict.fromkeys(condition.variants, "0"), scores(given), given)
        return run

    return make
