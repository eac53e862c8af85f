"""Reading features: bmla's tiers against np.fromfile, np.memmap, zarr, h5py and webdataset, on the same numbers in one run.

    python bench/read.py                                      # 1.2 GB in a temporary folder, removed afterwards
    python bench/read.py --folder /data/scratch --gb 10       # on the disk that matters
    pip install --target peer webdataset && python bench/read.py --peer peer

Each turn measures everything once, one after the other, so that a busy machine slows all of them; a ratio is the median of
the ratios of the turns. Warm: the files are in the page cache. Cold: each measurement begins after the system was told to
forget them (posix_fadvise), which a disk with a cache of its own may make look better than it is.

Shape legend: N clips, T steps, L feature length.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from bmla.store import Store, create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec

T, L = 57, 768  # HuBERT-base of a word of 1.16 s
CLIP_BYTES = T * L * 2
SHARD_CLIPS = 256
BATCH = 32
SLOW_BATCHES = 6  # of the readers that need seconds for a hundred
NONE, ZSTD = "audio.none", "audio.zstd"
LOADS = ("np.fromfile", "bmla load")
MISSING = "webdataset is not installed, its row is left out: pip install --target peer webdataset, then --peer peer"

Read = Callable[[np.ndarray], object]


@dataclass(frozen=True)
class Case:
    """A way to read random batches. open: gives the reading function, files that are not in memory yet stay so."""

    name: str
    open: Callable[[], Read]
    batches: int


@dataclass(frozen=True)
class Ratio:
    """What is compared: `name` is that many times faster than `base`; goal: what was promised, None: for information."""

    name: str
    base: str
    goal: float | None = None


RATIOS = (
    Ratio("bmla load", "np.fromfile", 0.8),
    Ratio("bmla mmap", "np.memmap", 0.7),
    Ratio("bmla mmap", "zarr oindex", 15),
    Ratio("bmla shard", "zarr oindex", 5),
    Ratio("bmla shard, zstd", "zarr oindex, zstd", 5),
    Ratio("bmla ram", "np.memmap"),
    Ratio("bmla mmap", "h5py"),
    Ratio("bmla shard", "h5py"),
    Ratio("bmla mmap", "webdataset"),
    Ratio("bmla shard", "webdataset"),
)


def main() -> None:
    options = arguments()
    if options.peer:
        sys.path.append(str(options.peer))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        clips = -(-int(options.gb * 1e9) // CLIP_BYTES)
        began = time.perf_counter()
        write_all(folder, clips)
        seconds = time.perf_counter() - began
        print(f"{clips} clips of {T} x {L} float16, {clips * CLIP_BYTES / 1e9:.2f} GB, written in {seconds:.0f} s")
        store = open_store(folder / "bench.zarr")
        print(f"peak memory of a load: {peak_ratio(store.path):.2f} x the data, the interpreter included (goal 1.15)")
        for cold in (False, True):
            show(measure(folder, store, clips, cold, options.batches, options.turns), cold)


def measure(folder: Path, store: Store, clips: int, cold: bool, batches: int, turns: int) -> dict[str, list[float]]:
    """Name -> rate of each turn: bytes/s of a whole load, clips/s of random batches."""
    rng = np.random.default_rng(0)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    cases = [case for case in random_cases(folder, store, batches) if not (cold and case.name == "bmla ram")]
    opened = {case.name: case.open() for case in cases} if not cold else {}
    rates: dict[str, list[float]] = {}
    for turn in range(turns + 1):
        for name, load in whole_loads(store).items():
            forget(files if cold else [])
            seconds = timed(load)
            rates.setdefault(name, []).append(clips * CLIP_BYTES / seconds)
        for case in cases:
            wanted = [rng.integers(0, clips, BATCH) for _ in range(case.batches)]
            if cold:
                reader = case.open()
                forget(files)
            else:
                reader = opened[case.name]
            seconds = timed(lambda read=reader, wanted=wanted: [read(rows) for rows in wanted] and None)
            rates.setdefault(case.name, []).append(BATCH * case.batches / seconds)
            del reader
        if turn == 0:
            rates = {}  # the first turn warms up
    return rates


def whole_loads(store: Store) -> dict[str, Callable[[], object]]:
    """All bytes into memory: np.fromfile of every shard file as it is, and bmla with checksums, ledger and validity."""
    shards = [store.path / f"streams/{NONE}/values/c/{k}/0/0" for k in range(store.shards)]
    return {
        "np.fromfile": lambda: [np.fromfile(path, np.uint8) for path in shards],
        "bmla load": lambda: open_store(store.path).load(NONE),
    }


def random_cases(folder: Path, store: Store, batches: int) -> list[Case]:
    slow = min(batches, SLOW_BATCHES)
    shape = (store.identity.clips, T, L)
    cases = [
        Case(f"bmla {tier}", lambda tier=tier: store.reader(NONE, tier=tier).read_many, batches)
        for tier in ("ram", "mmap", "shard")
    ]
    cases += [
        Case("bmla shard, zstd", lambda: store.reader(ZSTD, tier="shard").read_many, batches),
        Case("np.memmap", lambda: np.memmap(folder / "bare", np.float16, "r", shape=shape).__getitem__, batches),
        Case("zarr oindex", lambda: store.array(NONE, "values").oindex.__getitem__, slow),
        Case("zarr oindex, zstd", lambda: store.array(ZSTD, "values").oindex.__getitem__, slow),
        Case("h5py", lambda: from_h5(h5py.File(folder / "bench.h5")["values"]), batches),
    ]
    if find_spec("webdataset"):
        cases.append(Case("webdataset", lambda: from_tars(sorted(folder.glob("*.tar"))), batches))
    else:
        print(MISSING)
    return cases


def from_h5(values: h5py.Dataset) -> Read:
    """Clip by clip: h5py's own lists of rows must ascend without repeats, and were slower."""
    return lambda rows: np.stack([values[row] for row in rows])


def from_tars(paths: list[Path]) -> Read:
    """Batches as webdataset makes them: tar files in random order through a shuffle buffer; which clips, it says itself."""
    wds = import_module("webdataset")
    stream: Iterator | None = None

    def read(rows: np.ndarray) -> object:
        nonlocal stream
        if stream is None:
            data = wds.WebDataset([str(p) for p in paths], shardshuffle=len(paths), empty_check=False).repeat()
            stream = iter(data.shuffle(1000).decode().to_tuple("npy").batched(len(rows)))
        return next(stream)

    return read


def write_all(folder: Path, clips: int) -> None:
    """The same numbers as a store (uncompressed and zstd), a bare array, HDF5 and tar files."""
    table = ClipTable.from_clips([Clip(f"c{i:07d}", 0, 1, label="a", split="train") for i in range(clips)])
    store = create_store(
        folder / "bench.zarr", dataset="bench", task="none", classes=("a",), clips=table, shard_size=SHARD_CLIPS
    )
    for name, compression in ((NONE, "none"), (ZSTD, "zstd")):
        store.add_stream(StreamSpec(name, "audio", "bench", "float16", (L,), 50.0, "T = 57"), T, compression)
    rng = np.random.default_rng(0)
    base, valid = rng.normal(size=(SHARD_CLIPS, T, L)).astype(np.float16), np.ones(T, bool)
    with (folder / "bare").open("wb") as bare, h5py.File(folder / "bench.h5", "w") as h5:
        data = h5.create_dataset("values", (clips, T, L), np.float16)
        for shard in range(store.shards):
            start, stop = store.extent(shard)
            values = np.roll(base, shard * 1001)[: stop - start]
            for name in (NONE, ZSTD):
                store.write_shard(name, shard, [ClipFeatures(v, valid) for v in values])
            values.tofile(bare)
            data[start:stop] = values
            write_tar(folder / f"{shard:06d}.tar", start, values)


def write_tar(path: Path, start: int, values: np.ndarray) -> None:
    with tarfile.open(path, "w") as tar:
        for i, clip in enumerate(values):
            buffer = BytesIO()
            np.save(buffer, clip)
            info = tarfile.TarInfo(f"{start + i:07d}.npy")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)


def forget(files: list[Path]) -> None:
    """Takes files out of the page cache."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


PEAK = """
import resource, sys
from bmla.store import open_store
packed = open_store(sys.argv[1]).load(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / packed.values.nbytes)
"""


def peak_ratio(path: Path) -> float:
    """Peak memory of a process that opens the store and loads a stream, in units of the data."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(path), NONE], capture_output=True, text=True, check=True)
    return float(done.stdout)


def show(rates: dict[str, list[float]], cold: bool) -> None:
    print(f"\n{'cold' if cold else 'warm'} page cache, medians of {len(rates['np.fromfile'])} turns")
    for name, turns in rates.items():
        unit, scale = ("GB/s", 1e9) if name in LOADS else ("clips/s", 1)
        print(f"  {name:<42}{statistics.median(turns) / scale:>12,.2f}  {unit}")
    for ratio in RATIOS:
        if ratio.name in rates and ratio.base in rates:
            found = [a / b for a, b in zip(rates[ratio.name], rates[ratio.base], strict=True)]
            middle = statistics.median(found)
            met = "" if ratio.goal is None else f"  goal {ratio.goal:g}: {'met' if middle >= ratio.goal else 'MISSED'}"
            print(f"  {f'{ratio.name} / {ratio.base}':<42}{middle:>12.2f}  ({min(found):.2f} to {max(found):.2f}){met}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=1.2, help="of features; five times as much is written")
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure; a temporary folder in it is made and removed"
    )
    parser.add_argument("--batches", type=int, default=200, help="random batches of 32 clips a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--peer", type=Path, help="where webdataset was installed to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
