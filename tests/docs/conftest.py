"""A folder like that of someone who follows the documentation: a small LRW tree, clips, a clip.mp4, and what a document takes for given."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from bmla.extract.demo.generate import write_clip
from bmla.store import create_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.place import REMOTE
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec

CLASSES = ("ABOUT", "PEOPLE", "WOMEN")
STREAMS = {  # name: (features of a step, rate in Hz, spread of the noise on it)
    "audio.logspec": (12, 50.0, 1.0),
    "audio.logspec@mask=0.4": (12, 50.0, 2.0),
    "audio.logspec@white=0": (12, 50.0, 3.0),
    "audio.hubert": (16, 50.0, 1.0),
    "mouth.dct": (10, 25.0, 1.5),
    "mouth.dct@blur=4": (10, 25.0, 3.0),
    "face.vggface2": (8, 25.0, 2.0),
}
CLIPS = 60
SECONDS = 0.4
RATE_HZ = 16_000


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/lrw, clips/ and store.zarr; not to be changed."""
    folder = tmp_path_factory.mktemp("sources")
    write_lrw(folder / "data/lrw/lipread_mp4")
    for label, word in (("happy", CLASSES[0]), ("sad", CLASSES[1])):
        (folder / "clips" / label).mkdir(parents=True)
        for number, split in enumerate(("train", "val", "test"), 1):
            source = folder / f"data/lrw/lipread_mp4/{word}/{split}/{word}_00001.mp4"
            shutil.copy(source, folder / f"clips/{label}/{number:04d}.mp4")
    write_store(folder / "store.zarr")
    return folder


@pytest.fixture
def make_world(sources: Path, tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """make_world(names of stores or of an .npz that a document takes for given) -> the folder."""

    def make(given: Sequence[str]) -> Path:
        world = tmp_path / "world"
        for name in ("data", "clips"):
            shutil.copytree(sources / name, world / name)
        shutil.copy(world / "clips/happy/0001.mp4", world / "clip.mp4")
        for name in given:
            if name.endswith(".npz"):
                write_arrays(world / name)
            else:
                shutil.copytree(sources / "store.zarr", world / name)
        return world

    return make


@pytest.fixture
def bucket(s3: str) -> Iterator[None]:
    """The bucket of `s3`, empty again for the next document."""
    yield
    boto3 = pytest.importorskip("boto3")
    boto3.resource("s3", endpoint_url=REMOTE.endpoint).Bucket(s3.removeprefix("s3://")).objects.delete()


def write_lrw(root: Path) -> None:
    """A clip of each word and split in LRW's layout: a portrait that drifts, with a tone."""
    head = np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut()[:296, 80:376])
    for number, (word, split) in enumerate((w, s) for w in CLASSES[:2] for s in ("train", "val", "test")):
        path = root / word / split / f"{word}_00001.mp4"
        path.parent.mkdir(parents=True)
        pictures = (head[k % 7 : k % 7 + 256, number + k % 5 :][:, :256] for k in range(29))
        sound = 0.3 * np.sin(np.arange(int(1.2 * RATE_HZ)) * 2 * np.pi * (200 + 50 * number) / RATE_HZ)
        write_clip(path, pictures, sound.astype(np.float32), RATE_HZ)
        path.with_suffix(".txt").write_text(f"Text:  {word}\nDuration: 0.40 seconds\n")


def write_store(path: Path) -> None:
    """Features of which either modality tells the class, sound better."""
    splits = ("train", "train", "train", "dev", "test")
    labels = [CLASSES[i % len(CLASSES)] for i in range(CLIPS)]
    rows = [
        Clip(f"{splits[i % 5]}/{label}_{i:05d}", 0.0, SECONDS, label=label, split=splits[i % 5], group=f"g{i}")
        for i, label in enumerate(labels)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    store = create_store(
        path, dataset="lrw", task="lip reading", classes=CLASSES, clips=ClipTable.from_clips(rows), shard_size=32
    )
    for name, (length, rate_hz, spread) in STREAMS.items():
        clean = name.partition("@")[0]
        modality = "audio" if name.startswith("audio") else "visual"
        store.add_stream(
            StreamSpec(name, modality, clean.split(".")[1], "float16", (length,), rate_hz, "generated"),
            steps := int(rate_hz * SECONDS),
        )
        rng = np.random.default_rng(len(name))
        means = np.random.default_rng(length).normal(size=(len(CLASSES), length))
        for shard in range(store.shards):
            start, stop = store.extent(shard)
            store.write_shard(
                name,
                shard,
                [
                    ClipFeatures(
                        (means[i % len(CLASSES)] + spread * rng.normal(size=(steps, length))).astype(np.float16),
                        np.ones(steps, bool),
                    )
                    for i in range(start, stop)
                ],
            )


def write_arrays(path: Path) -> None:
    """Features as someone else might have kept them: padded arrays by name."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    arrays = {
        name: (rng.normal(size=(30, steps, 6)) + labels[:, None, None]).astype(np.float32)
        for name, steps in (("audio", 20), ("visual", 10))
    }
    np.savez(
        path,
        **arrays,
        audio_lengths=rng.integers(5, 21, 30),
        visual_lengths=rng.integers(3, 11, 30),
        labels=labels,
        splits=np.array(["train", "train", "train", "valid", "test"])[np.arange(30) // 2 % 5],
        names=np.array([f"clip{i}" for i in range(30)]),
    )
