"""Sound of many lengths: batches of equal length gathered over a shard against over 16 clips, in one run.

    python bench/lengths.py --root data/grid                    # words of GRID: few lengths, many times each
    python bench/lengths.py --root data/grid --jitter 0.5       # each up to half a second longer: hardly two are equal

The network is HuBERT's architecture with random weights: how long it takes does not depend on them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from bmla.extract.datasets.grid import grid
from bmla.extract.encoders.base import samples_of
from bmla.extract.encoders.table import build
from bmla.extract.finishing import BATCH_CLIPS, Ready, Results
from bmla.extract.times import Times
from bmla.store.clips import Clip

STREAM = "audio.hubert"


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    clips = grid(options.root, target="word").clips
    rng = np.random.default_rng(0)
    drawn = [clips[i] for i in np.sort(rng.permutation(len(clips))[: options.clips])]
    lengths = [samples_of(c.duration_s + rng.uniform(0, options.jitter)) for c in drawn]
    sounds = [rng.normal(0, 0.1, n).astype(np.float32) for n in lengths]
    encoder = build(STREAM, model=options.model)
    batches: list[int] = []
    forward = encoder._forward  # type: ignore[attr-defined]
    encoder._forward = lambda part, precision: (batches.append(len(part)), forward(part, precision))[1]  # type: ignore[attr-defined]

    def run(shard: int) -> float:
        batches.clear()
        began = time.process_time()
        for start in range(0, len(sounds), shard):
            results, times = Results([STREAM], {STREAM: encoder}), Times()
            for s in range(start, min(start + shard, len(sounds)), BATCH_CLIPS):
                part = range(s, min(s + BATCH_CLIPS, start + shard, len(sounds)))
                results.add([Ready(Clip(str(i), 0.0, 1.0), {STREAM: sounds[i]}, {}) for i in part], times)
            results.close(times)
        return time.process_time() - began

    print(f"{len(sounds)} clips of {len(set(lengths))} lengths, {sum(lengths) / 16_000:.0f} s of sound")
    seconds: dict[int, list[float]] = {BATCH_CLIPS: [], options.shard: []}
    for _ in range(options.turns):
        for shard, found in seconds.items():
            found.append(run(shard))
            if len(found) == 1:
                print(f"  gathered over {shard:>3} clips: {len(batches):>4} batches")
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    print(
        f"  CPU seconds, over {BATCH_CLIPS} / over {options.shard}: {np.median(ratios):.2f} (median of {options.turns} turns)"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="GRID's folder")
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--shard", type=int, default=256)
    parser.add_argument("--jitter", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--model", default="random:hubert-base")
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
