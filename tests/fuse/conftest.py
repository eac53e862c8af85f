"""Generated features of two modalities whose class signal can be turned up and down, as arrays and as a store."""

import json
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
from bmla.fuse.metrics import scores
from bmla.fuse.models.base import MODALITIES
from bmla.fuse.models.table import takes
from bmla.fuse.predictions import Predictions
from bmla.fuse.recipes import run_config
from bmla.fuse.run import Run, write_json, write_predictions
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


@pytest.fixture(scope="session")
def fabricate() -> Callable[..., Path]:
    """Writes the folder of a run that was never trained, as `save_run` does but for its weights; returns the folder."""

    def write(
        out: Path,
        config: RunConfig,
        classes: Sequence[str] = ("a", "b", "c"),
        clips: int = 60,
        epochs: int = 12,
        conditions: Sequence[str] = (),
        skill: float = 0.8,
        dataset: str = "fabricated",
        branches: Mapping[str, str] | None = None,
    ) -> Path:
        """Args: skill: about the share of right answers; half of it under the conditions; branches: names of runs, by modality."""
        rng = np.random.default_rng([config.seed, len(config.model), *map(int, config.ratio.split(":")), clips])
        two = len(takes(config.model)) == 2
        learnt = skill * (1 - np.exp(-np.arange(1, epochs + 1) / 1.5)) + rng.normal(size=epochs) * 0.002
        history = [
            {
                "phase": "train",
                "epoch": i + 1,
                "dev_accuracy": float(value),
                "dev_loss": float(1 - value),
                **{f"dev_accuracy_{m}": float(value * 0.9) if two else None for m in ("audio", "visual")},
                "rho": float(1.5 + 0.1 * i) if two else None,
                "alpha": 0.6 if two else None,
                **{f"grad_norm_{m}": float(rng.uniform(0.5, 2)) for m in takes(config.model)},
                **{f"scale_{m}": 1.0 if m == "visual" else 0.9 for m in takes(config.model)},
            }
            for i, value in enumerate(learnt)
        ]
        best = max(history, key=lambda epoch: epoch["dev_accuracy"])
        streams = {
            m: {"name": f"{m}.made-up", "digest": m * 8, "length": 4, "rate_hz": 25.0} for m in takes(config.model)
        }
        name = f"{config.model}_{config.balance}_{config.ratio.replace(':', '-')}_seed{config.seed}"
        document = {
            "format": 1,
            "config": config.to_dict(),
            "features": {"dataset": dataset, "task": "lip reading", "digest": "0" * 64, "streams": streams, "notes": []},
            "classes": list(classes),
            "parameters": 12345,
            "versions": {"bmla": "0"},
            "store": "made-up",
            "command": "bmla fuse --store made-up.zarr",
            "seconds": float(rng.uniform(5, 50)),
            "branches": dict(branches or {}),
        }  # fmt: skip

        def answers(share: float, hidden: str = "") -> Predictions:
            labels = np.arange(clips) % len(classes)
            predicted = np.where(rng.random(clips) < share, labels, rng.integers(0, len(classes), clips))
            result = np.log(np.eye(len(classes))[predicted] * 0.9 + 0.1 / len(classes)).astype(np.float32)
            ids = np.array([f"clip{i:05d}" for i in range(clips)])
            alpha = np.full((clips, len(classes)), 0.5, np.float32) + rng.normal(size=len(classes)) * 0.1
            there = {f"{m}_present": np.full(clips, m != hidden and m in takes(config.model)) for m in MODALITIES}
            heads = (
                dict(audio=result, visual=result, alpha=alpha.astype(np.float32))
                if two
                else dict.fromkeys(("audio", "visual", "alpha"))
            )
            return Predictions(ids, ids, labels, result, **heads, **there)

        folder = out / name
        folder.mkdir(parents=True)
        clean = answers(skill)
        tested = {"best": best, "dev": {"clips": 50}, "test": scores(clean)}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in history))
        write_json(folder / "test.json", tested)
        write_predictions(folder / "predictions.parquet", clean)
        run = Run(folder, document, config, history, tested)
        for name in conditions:
            condition = parse_condition(name)
            if len(condition.seen_by(run.streams).hidden) < len(run.streams):
                given = answers(skill / 2, "".join(condition.hidden))
                run.add_condition(condition, dict.fromkeys(condition.variants, "0"), scores(given), given)
        write_json(folder / "config.json", document)
        return folder

    return write
