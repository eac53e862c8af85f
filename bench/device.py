"""What one device makes of generated clips in LRW's format, all default streams, through `bmla extract`'s own path.

See `extract.py --gpu`. Speech and face networks have random weights of the real sizes, whose speed is that of trained ones.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import torch

from bmla.extract.demo.generate import WORDS, make_demo
from bmla.extract.encoders.table import TABLE
from bmla.extract.extraction import Summary, extract
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.report import human_bytes, profile_lines
from bmla.extract.times import DEVICE_STAGES, busy_share
from bmla.extract.tools import ToolConfig

LRW_CLIPS = 538_766
GOAL_HOURS, GOAL_BUSY = 1.0, 0.9
RANDOM = {"audio.hubert": "random:hubert-base", "face.vggface2": "random:vggface2"}


def measure(options: argparse.Namespace) -> None:
    """Generates the clips (or takes those that an earlier run left in --root), extracts them, and prints what it took."""
    devices = tuple("cpu" if word == "cpu" else f"cuda:{word}" for word in options.gpu.split(","))
    device = devices[0]
    feeders = options.feeders or max(1, (os.cpu_count() or 2) - len(devices))
    streams = options.streams or [name for name, entry in TABLE.items() if entry.by_default]
    streams = [name for name in streams if not (options.light and name in RANDOM)]
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder) / "clips"
        began = time.perf_counter()
        make_demo(root, clips_per_word=max(3, -(-options.clips // len(WORDS))))
        print(f"clips made, or found, in {time.perf_counter() - began:.0f} s")
        tools = ToolConfig(
            tuple(streams),
            device=device,
            models={name: model for name, model in RANDOM.items() if name in streams},
            parameters={name: {"precision": options.precision} for name in RANDOM if name in streams},
            compiled=options.compile,
        )
        config = ExtractConfig(
            "lrw", root, Path(folder) / "lrw.zarr", tools, limit=options.clips, workers=feeders, devices=devices
        )
        plan, processes = make_plan(config), len(devices)
        moments: list[tuple[float, int]] = []  # when so many clips got done
        used: list[int] = [0]  # bytes of the device then

        def advance(clips: int) -> None:
            moments.append((time.perf_counter(), clips))
            if device != "cpu":
                free, all_bytes = torch.cuda.mem_get_info(device)
                used.append(all_bytes - free)

        summary = extract(plan, lambda before, clips: None, advance)
        size = sum(file.stat().st_size for file in config.store.rglob("*") if file.is_file())
    place = torch.cuda.get_device_name(device) if device != "cpu" else "cpu"
    print(f"{len(plan.clips)} clips on {place}, {os.cpu_count()} cores: {', '.join(streams)}")
    print(f"  {processes} process(es) with the device, {feeders} feeders")
    for line in report(summary, moments, processes, feeders):
        print(f"  {line}")
    print(f"  most memory of the device that was in use, by whomever: {max(used) / 1e9:.2f} GB")
    own, fed = (resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"  memory: {own:.2f} GB here, {fed:.2f} GB in the largest feeder; the store: {human_bytes(size)}")


def report(summary: Summary, moments: list[tuple[float, int]], processes: int, feeders: int) -> list[str]:
    """Lines on how fast it was.

    Args:
        moments: when each batch of clips got done, and how many they were. The rate is from the first to the last: loading
            models and starting feeders take as long for LRW as for any clips.
    """
    (first, _), (last, _) = moments[0], moments[-1]
    clips, failed = sum(n for _, n in moments), sum(s.failed for s in summary.streams)
    rate = sum(n for _, n in moments[1:]) / (last - first) if len(moments) > 1 else clips / summary.wall_s
    start_s = max(0.0, summary.wall_s - clips / rate)
    hours = (LRW_CLIPS / rate + start_s) / 3600
    busy = busy_share(summary.stages)
    work = {stage: s for stage, s in summary.stages.items() if not stage.startswith("wait")}
    device_s = sum(s for stage, s in work.items() if stage.startswith(DEVICE_STAGES))
    feeding_s = sum(work.values()) - device_s - work.get("write", 0.0)
    return [
        f"{rate:.2f} clips/s, and {start_s:.0f} s to start; {failed} results failed",
        f"LRW's {LRW_CLIPS} clips: {hours:.2f} hours (goal {GOAL_HOURS:g})",
        f"the device's process was busy {busy or 0:.0%} of its time (goal {GOAL_BUSY:.0%})",
        f"by their work alone: {processes} process(es) with the device {processes * clips / device_s:.1f} clips/s, "
        f"{feeders} feeders {feeders * clips / feeding_s:.1f}",
        *(line.removeprefix("  ") for line in profile_lines(summary)),
    ]
