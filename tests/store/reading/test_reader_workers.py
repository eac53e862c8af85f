"""Worker processes read what their parent reads: forked or spawned, with a prefetch under way, without a deadlock or a leak.

Each case is a process of its own with a time limit: what deadlocks is a failure, not a hanging test, and whatever it
writes to stderr (a leak that multiprocessing's resource tracker reports, a warning) is one too.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bmla.store import create_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec

LIMIT_S = 240

# tempfile tries a folder out by writing a file into it: a worker that is ended meanwhile leaves that file behind
PREAMBLE = """
import os, tempfile
tempfile.tempdir = os.environ["TMPDIR"]
"""

PROCESSES = """
import multiprocessing as mp, os, sys, zlib
import numpy as np
from bmla.store import open_store

def digest(batch):
    return [zlib.crc32(np.ascontiguousarray(part)) for part in batch]

def child(readers, batches, queue):
    queue.put([[digest(b) for b in reader.prefetch(batches)] for reader in readers])

if __name__ == "__main__":
    method, store = sys.argv[1], open_store(sys.argv[2])
    readers = [store.reader("audio.toy", tier=tier) for tier in ("ram", "mmap", "shard")]
    batches = [np.random.default_rng(i).integers(0, len(readers[0]), 16) for i in range(8)]
    running = readers[1].prefetch(batches, 1)      # its thread is at work while the processes are made
    first = digest(next(running))
    open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    context = mp.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=child, args=(readers, batches, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=200) for _ in processes]
    for process in processes:
        process.join(200)
        assert process.exitcode == 0
    own = [[digest(reader.read_many(b)) for b in batches] for reader in readers]
    assert own[0] == own[1] == own[2] and own[0][0] == first
    assert found == [own, own]
    assert [first, *(digest(b) for b in running)] == own[0]
    print("same")
"""

LOADER = """
import sys
import numpy as np, torch
from torch.utils.data import DataLoader, Dataset
from bmla.store import open_store

class Clips(Dataset):
    def __init__(self, reader):
        self.reader = reader
    def __len__(self):
        return len(self.reader)
    def __getitem__(self, rows):
        return self.reader.read_many(rows)

if __name__ == "__main__":
    torch.set_num_threads(1)
    method, store = sys.argv[1], open_store(sys.argv[2])
    for tier in sys.argv[3:]:
        reader = store.reader("audio.toy", tier=tier)
        batches = [list(range(i, i + 8)) for i in range(0, len(reader) - 8, 8)]
        loader = DataLoader(Clips(reader), sampler=batches, batch_size=None, num_workers=2, multiprocessing_context=method)
        for epoch in range(1 if method == "spawn" else 2):  # a spawned worker imports torch first
            for rows, batch in zip(batches, loader, strict=True):
                for mine, direct in zip(batch, reader.read_many(rows), strict=True):
                    assert np.array_equal(np.asarray(mine), direct)
        iterator = iter(loader)
        next(iterator)                              # an early stop
        del iterator, loader
    print("same")
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers") / "s.zarr"
    table = ClipTable.from_clips([Clip(f"c{i}", 0, 1, label="a") for i in range(60)])
    store = create_store(folder, dataset="toy", task="t", classes=("a",), clips=table, shard_size=8)
    store.add_stream(StreamSpec("audio.toy", "audio", "toy", "float16", (5,), 50.0, "any"), 80)
    rng = np.random.default_rng(0)
    for shard in range(store.shards):
        start, stop = store.extent(shard)
        lengths = rng.integers(1, 81, stop - start)
        store.write_shard(
            "audio.toy",
            shard,
            [ClipFeatures(rng.normal(size=(n, 5)).astype(np.float16), rng.random(n) < 0.9) for n in lengths],
        )
    return folder


def run(tmp_path, script, *arguments):
    file = tmp_path / "script.py"
    file.write_text(PREAMBLE + script)
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(file), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["same"], "")
    assert [p.name for p in Path(tmp_path).iterdir()] == ["script.py"]  # nothing temporary is left


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_read_what_their_parent_reads(tmp_path, path, method):
    run(tmp_path, PROCESSES, method, path)


@pytest.mark.parametrize(("method", "tiers"), [("fork", ("ram", "mmap", "shard")), ("spawn", ("ram",))])
@pytest.mark.slow
def test_a_data_loader_with_two_workers_reads_the_same(tmp_path, path, method, tiers):
    run(tmp_path, LOADER, method, path, *tiers)
