"""What the figures that every epoch logs cost, as a share of the training without them.

    python bench/diagnostics.py [--device cuda] [--clips 640]

Trains models on noise of the size of LRW's features (sound 58 x 768 at 50 Hz, sight 29 x 512) with the loop of bmla itself, and adds up
the time within everything that is there for the sake of a figure: losses and norms of every step (the norm that clipping needs anyway
included), the scores on dev beyond its loss and accuracy, and the Shapley values. Answering the dev clips is not counted: the epoch is
chosen by them. Processor time of one thread, so that other work on the machine does not count; on a GPU, the clock, with a wait before and
after.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bmla.fuse import epochs, training
from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.data import Features
from bmla.fuse.diagnostics import Running
from bmla.fuse.recipes import run_config

STEPS, LENGTHS, CLASSES, EPOCHS = {"audio": 58, "visual": 29}, {"audio": 768, "visual": 512}, 50, 1
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = tuple(
    (model, {**size, **more})
    for size in ({"layers": 6, "width": 256}, {"layers": 1, "width": 64})
    for model, more in (
        ("transformer", {}),
        ("joint-aux", {}),
        ("joint-aux", {"balance": "ogm-ge"}),
        ("balancemla", {"schedule": "long", "pretrain_epochs": 0}),
    )
)


class Clock:
    """Seconds within some functions, and in all."""

    def __init__(self, device: str):
        self.device, self.spent, self.inside = device, 0.0, False

    def now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            if self.inside:
                return work(*arguments, **options)
            began, self.inside = self.now(), True
            try:
                return work(*arguments, **options)
            finally:
                self.spent, self.inside = self.spent + self.now() - began, False

        return timed


def noise(clips: int, device: str) -> Features:
    rng = np.random.default_rng(0)
    arrays = {m: list(rng.normal(size=(clips, STEPS[m], LENGTHS[m])).astype(np.float16)) for m in STEPS}
    split = ["train"] * (clips * 3 // 4) + ["dev"] * (clips // 8)
    split += ["test"] * (clips - len(split))
    return features_from_arrays(np.arange(clips) % CLASSES, split, device=device, **arrays)


def share(model: str, settings: dict[str, Any], features: Features, device: str) -> tuple[float, float]:
    """Seconds of a step, and the diagnostics over the rest."""
    length = dict(epochs=EPOCHS, finetune_epochs=0, lr=1e-4, batch_size=32, heads=8)
    config = run_config(model, **{**length, **settings, "audio": "audio.arrays", "visual": "visual.arrays"})
    clock = Clock(device)
    names = ("gradient_norm", "dev_figures", "quick_contribution")
    before = {name: getattr(epochs, name) for name in names}
    methods = {name: getattr(Running, name) for name in ("add", "figures")}
    try:
        for name in names:
            setattr(epochs, name, clock.timed(before[name]))
        for name in methods:
            setattr(Running, name, clock.timed(methods[name]))
        began = clock.now()
        training.train(config, features, device=device)
        whole = clock.now() - began
    finally:
        for name in names:
            setattr(epochs, name, before[name])
        for name in methods:
            setattr(Running, name, methods[name])
    steps = EPOCHS * -(-int((features.split == "train").sum()) // config.batch_size)
    return whole / steps, clock.spent / (whole - clock.spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=640, help="three quarters of them train")
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = noise(options.clips, options.device)
    print("| model | layers x width | ms a step | diagnostics / the rest |\n| --- | --- | --- | --- |")
    for model, settings in SETTINGS:
        seconds, part = share(model, settings, features, options.device)
        name = f"`{model}`" + (f" + {settings['balance']}" if "balance" in settings else "")
        print(
            f"| {name} | {settings['layers']} x {settings['width']} | {1000 * seconds:.0f} | {100 * part:.1f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
