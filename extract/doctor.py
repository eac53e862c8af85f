"""What this machine has for extraction and fusion: versions, devices, weights, decoders, disk."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .. import __version__
from . import weights

LIBRARIES = (
    "torch",
    "torchvision",
    "transformers",
    "facenet-pytorch",
    "dlib-bin",
    "opencv-python-headless",
    "av",
    "soxr",
    "zarr",
)
DEMO_LIBRARIES = ("espeakng-loader", "scikit-image")
CODECS = (
    ("h264", "LRW, RAVDESS, MELD"),
    ("aac", "LRW, MELD"),
    ("mpeg1video", "GRID"),
    ("mp2", "GRID"),
    ("mpeg4", "IEMOCAP"),
    ("flv", "CREMA-D"),
    ("pcm_s16le", "wav"),
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. remedy: what to do where it is not ok."""

    group: str
    name: str
    ok: bool
    text: str
    remedy: str = ""


def examine(folders: Sequence[Path]) -> list[Finding]:
    """Looks at everything, changes nothing. folders: where weights are looked for first."""
    return [*versions(), *devices(), *found_weights(folders), *decoders(), *disk()]


def versions() -> Iterator[Finding]:
    yield Finding("versions", "bmla", True, f"{__version__} on Python {platform.python_version()}, {platform.system()}")
    for name in (*LIBRARIES, *DEMO_LIBRARIES):
        try:
            yield Finding("versions", name, True, metadata.version(name))
        except metadata.PackageNotFoundError:
            extra = "pip install 'bmla[demo]'" if name in DEMO_LIBRARIES else f"pip install {name}"
            yield Finding("versions", name, False, "not installed", extra)


def devices() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("devices", "cpu", True, f"{cores} cores, torch uses {torch.get_num_threads()} threads")
    count = torch.cuda.device_count()
    for i in range(count):
        gpu = torch.cuda.get_device_properties(i)
        yield Finding("devices", f"cuda:{i}", True, f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    if not count:
        yield Finding("devices", "gpu", False, "torch finds no CUDA GPU: everything runs on the CPU, more slowly")


def found_weights(folders: Sequence[Path]) -> Iterator[Finding]:
    for item in weights.inventory(folders):
        looked = ", ".join(item.looked_in) or "no folder given to --weights or BMLA_WEIGHTS"
        if item.path:
            yield Finding("weights", item.what, True, str(item.path))
        else:
            yield Finding("weights", item.what, False, f"not found; looked in: {looked}", item.how)


def decoders() -> Iterator[Finding]:
    import av

    for codec, use in CODECS:
        there = codec in av.codecs_available
        yield Finding(
            "decoders", codec, there, use if there else f"missing; needed for {use}", "" if there else "pip install av"
        )


def disk() -> Iterator[Finding]:
    usage = shutil.disk_usage(Path.cwd())
    free = usage.free / 1e9
    yield Finding(
        "disk", "free here", free > 20, f"{free:.0f} GB (LRW's audio.hubert and mouth.roi take about 48 GB and 100 GB)"
    )
