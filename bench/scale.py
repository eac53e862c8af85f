"""What bookkeeping costs on a store of the size of LRW: 540,000 clips, 2,110 shards a stream, no features in it.

    python bench/scale.py --folder /data/scratch

The shard files are as large as real ones but hold nothing (sparse), the clip table and the ledger are whole. Each figure is
the median of some turns, each in a process of its own, without the time that Python takes to import the libraries.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bmla.store import Store, create_store
from bmla.store.arrays import ARRAYS, file_key
from bmla.store.clips import Clip, ClipTable
from bmla.store.ledger import Entry, Failure, write_entry
from bmla.store.quality import packed
from bmla.store.spec import StreamSpec

CLIPS, SHARD_CLIPS, T, L = 540_000, 256, 57, 768
STREAMS = ("audio.hubert", "face.vggface2")
VALUES_BYTES = SHARD_CLIPS * (T * L * 2 + 4 + 16) + 4  # chunks with their checksums, the index and its own
FILE_BYTES = {
    "values": VALUES_BYTES,
    "length": 4 * SHARD_CLIPS + 4,
    "valid": T * SHARD_CLIPS + 4,
    "status": SHARD_CLIPS + 4,
}
FACTS = {
    "audio.hubert": ("clipped_share", "silent_share", "sound_level_dbfs"),
    "face.vggface2": ("detector_score", "face_width_px", "interpolated_share", "track_jump"),
}
GOALS_S = {"open": 1.0, "info": 1.0, "pending": 2.0}

MEASURE = """
import json, sys, time
from bmla.store import open_store
from bmla.store.info import info
from bmla.store.verify import verify

def seconds(work):
    began = time.perf_counter()
    work(open_store(sys.argv[1]))
    return time.perf_counter() - began

print(json.dumps({
    "open": seconds(lambda store: store),
    "info": seconds(info),
    "pending": seconds(lambda store: [store.pending(stream) for stream in store.streams()]),
    "digest": seconds(lambda store: store.digest(store.streams())),
    "reader": seconds(lambda store: store.reader("audio.hubert", tier="mmap")),
    "list all files": seconds(lambda store: store.place.sizes("")),
    "verify": seconds(verify),
}))
"""


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "scale.zarr"
        shards = write(path)
        files = sum(1 for p in path.rglob("*") if p.is_file())
        print(f"{CLIPS:,} clips, {len(STREAMS)} streams of {shards:,} shards, {files:,} files")
        turns = [measure(path) for _ in range(options.turns)]
    for name in turns[0]:
        found = [turn[name] for turn in turns]
        goal = f"  goal {GOALS_S[name]:g} s" if name in GOALS_S else ""
        print(f"  {name:<16}{statistics.median(found):8.3f} s  ({min(found):.3f} to {max(found):.3f}){goal}")


def measure(path: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def write(path: Path) -> int:
    """The store; returns how many shards a stream has."""
    words = [f"WORD{i:03d}" for i in range(500)]
    splits = [*["train"] * 9, "dev", *["train"] * 9, "test"]
    clips = [
        Clip(
            f"{word}/{split}/{word}_{i:06d}",
            0,
            1.16,
            word,
            split,
            group=f"g{i}",
            video=f"{word}/{split}/{word}_{i:06d}.mp4",
        )
        for i in range(CLIPS)
        for word, split in ((words[i % 500], splits[i % 20]),)
    ]
    table = ClipTable.from_clips(clips)
    store = create_store(path, dataset="scale", task="none", classes=words, clips=table, shard_size=SHARD_CLIPS)
    for stream in STREAMS:
        store.add_stream(
            StreamSpec(stream, "audio" if stream[0] == "a" else "visual", "none", "float16", (L,), 50.0, "T = 57"), T
        )
        for number in range(store.shards):
            write_shard(store, stream, number, clips)
    return store.shards


def write_shard(store: Store, stream: str, number: int, clips: list[Clip]) -> None:
    """A finished shard's entry and files of the right size; in every tenth a clip has failed."""
    start, stop = store.extent(number)
    lengths, failures = [T] * (stop - start), ()
    if number % 10 == 0:
        lengths[3], failures = 0, (Failure(clips[start + 3].id, "decode", "MediaError", "it broke"),)
    for name in ARRAYS:
        file = store.path / file_key(store.head(stream), name, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as opened:
            opened.truncate(FILE_BYTES[name])
    files = {name: {"bytes": FILE_BYTES[name], "sha256": f"{number:064x}"} for name in ARRAYS}
    facts = packed({name: tuple(0.001 * (number + i) for i in range(stop - start)) for name in FACTS[stream]})
    versions = {"bmla": "1", "numpy": "2.4.6", "torch": "2.15.0", "transformers": "5.17.0"}
    write_entry(
        store.place, stream, Entry(number, start, stop, tuple(lengths), files, failures, 12.345, versions, facts)
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a temporary folder in it is made and removed")
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
