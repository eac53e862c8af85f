"""Extraction: bmla's executors against a straight script, on the same clips, streams and models in one run.

    python bench/extract.py --root data/grid              # GRID; 64 words
    python bench/extract.py --root data/grid --light      # without the large networks: decoding, faces, crops, spectra

The straight script does what scripts in the field do: clip by clip, decode, detect frame by frame, landmarks, crop, encode one
clip at a time, with torch's default threads. Networks have random weights: how long they take does not depend on them. Seconds of CPU are
compared in one process of each: on a machine that others use they say more than the clock.
"Fed" is what a GPU gets: here its process encodes on the CPU, so the encoder is the bottleneck, and its busy share says
how well the feeding process keeps it at work.
"""

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from bmla.extract.encoders.base import Sound, encode
from bmla.extract.executors import run_here, run_in_processes
from bmla.extract.faces.sight import look
from bmla.extract.feeding import AHEAD, run_fed
from bmla.extract.media import read_audio, read_frames
from bmla.extract.pipeline import Done, Task
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.times import Times, busy_share
from bmla.extract.tools import ToolConfig, Tools

STREAMS = ("audio.logspec", "audio.hubert", "mouth.roi", "mouth.dct", "face.vggface2")
MODELS = {"audio.hubert": "random:hubert-base", "face.vggface2": "random:vggface2"}
SHARD = 16


def main() -> None:
    options = arguments()
    cores = os.cpu_count() or 1
    streams = tuple(name for name in STREAMS if name not in MODELS or not options.light)
    config = ToolConfig(streams, models={} if options.light else MODELS)
    plan = make_plan(
        ExtractConfig("grid", options.root, Path("none"), config, options={"target": "word"}, limit=options.clips)
    )
    clips, root = plan.clips.rows(range(len(plan.clips))), plan.dataset.root
    tasks = [Task(i, tuple(clips[i * SHARD : (i + 1) * SHARD]), streams) for i in range(-(-len(clips) // SHARD))]
    print(f"{len(clips)} clips, {', '.join(streams)}; {cores} cores")
    ways: dict[str, Callable[[], float]] = {
        "straight script": lambda: straight(tasks, config, root),
        f"bmla, {cores} processes": lambda: drained(run_in_processes(tasks, config, root, silent, cores), cores),
        "bmla, fed": lambda: fed(tasks, config, root, max(1, cores - 1)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: list[float] = []
    for _ in range(options.turns):
        for name, way in ways.items():
            torch.set_num_threads(cores)
            cpu_s = time.process_time()
            rates[name].append(len(clips) / way())
            if name == "straight script":
                costs.append((time.process_time() - cpu_s) / cpu_of_one_process(tasks, config, root))
    base = rates["straight script"]
    for name, found in rates.items():
        ratios = [a / b for a, b in zip(found, base, strict=True)]
        print(
            f"  {name:<20}{statistics.median(found):8.2f} clips/s  {statistics.median(ratios):6.2f} x the straight script"
        )
    print(f"  CPU seconds, straight script / one process of bmla: {statistics.median(costs):.2f}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"  largest process: {peak:.2f} GB")


def straight(tasks: list[Task], config: ToolConfig, root: Path) -> float:
    """Seconds, without the loading of models."""
    tools = Tools(config)
    detector, landmarks = tools.detector, tools.kit.landmarks
    began = time.perf_counter()
    for clip in (clip for task in tasks for clip in task.clips):
        sound = Sound(read_audio(root / str(clip.audio), *clip.sound_cut))
        frames = read_frames(root / str(clip.video), clip.start_s, clip.end_s).images
        faces = [detector.detect(frames[t : t + 1])[0] for t in range(len(frames))]
        sight = look(frames, faces, landmarks, config.finding)
        for encoder in tools.encoders.values():
            encode(encoder, [sound if encoder.takes == "sound" else sight])
    return time.perf_counter() - began


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
    parser.add_argument("--root", type=Path, required=True, help="GRID's folder")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--light", action="store_true", help="without the large networks")
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
