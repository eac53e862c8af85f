"""How long N workers of an extraction take to start, and their memory: each by itself (spawn) against forked from one process.

python bench/workers.py --workers 4
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path

from bmla.extract import executors
from bmla.store.processes import worker_context

PAUSE_S = 1.0


def start() -> None:
    import torchvision.ops  # noqa: F401 - what detection imports


def memory_mb(_: int) -> float:
    """Of this process, memory that it shares counted by its share (PSS)."""
    time.sleep(PAUSE_S)  # so that no worker answers for two
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(context: BaseContext, workers: int) -> tuple[float, float]:
    """Seconds until all have started and answered, and the memory of all in MB."""
    began = time.perf_counter()
    with ProcessPoolExecutor(workers, context, start) as pool:
        memory = sum(pool.map(memory_mb, range(workers)))
        return time.perf_counter() - began - PAUSE_S, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    workers = parser.parse_args().workers
    print(f"workers import what this process has of bmla ({executors.__name__} and all that it needs), and torchvision")
    spawned_s, spawned_mb = measure(multiprocessing.get_context("spawn"), workers)
    context = worker_context("torchvision.ops")
    print(f"spawn       {spawned_s:6.1f} s {spawned_mb:6.0f} MB")
    for turn in ("first time", "again"):
        seconds, memory = measure(context, workers)
        faster, part = spawned_s / seconds, memory / spawned_mb
        print(f"{turn:11} {seconds:6.1f} s {memory:6.0f} MB   {faster:5.1f} times as fast, {part:.2f} of the memory")


if __name__ == "__main__":
    main()
