"""A sweep of the concatenation Transformer over ratios and seeds: the usual way, with features resident, and by bmla.

    python bench/sweep.py --store stores/words.zarr                       # 5 ratios x 3 seeds
    pip install --target peer accelerate && python bench/sweep.py --store stores/words.zarr --peer peer
    python bench/sweep.py --store stores/words.zarr --stack 1,8,32,128 --device cuda

    usual       one process a run; a DataLoader reads every clip from the store with plain zarr, batch by batch
    resident    one process a run, the same loop, all features in memory
    side by side   the same, two runs at a time on one thread each
    trainer     one process a run: the Trainer of transformers (with --peer), features in memory
    bmla        one command: features loaded once, runs in processes, everything that a run keeps written to disk

The first four train the very model with a plain loop: AdamW, clipped gradients, dev accuracy after each epoch, and nothing that bmla
measures besides. Starting Python and importing is counted as everybody has to wait for it. All ways are measured by turns; ratios are
medians of the ratios of the turns, in seconds on the clock and in CPU seconds, which other work on the machine disturbs less.

With --stack: model-samples a second of stacks of so many runs, against one run alone in float32; then whole sweeps of so many runs,
evaluation and all, against one run; nothing else is measured. With --generated N instead of --store: of noise in the shape of GRID words'
features, or of LRW's HuBERT and VGGFace2 features (--as lrw, float16, made on the device), of which --resident times an epoch of one run.

    python bench/sweep.py --generated 1800 --stack 1,8,32,128 --device cuda
    python bench/sweep.py --generated 538766 --as lrw --resident --device cuda --batch-size 256
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

RATIOS = ("1:4", "1:2", "1:1", "2:1", "4:1")
AUDIO, VISUAL = "audio.logspec", "mouth.dct"
TAKES = ("audio", "visual")
GOALS = {("usual", "bmla"): 3.0, ("resident", "bmla"): 1.5}


def main() -> None:
    options = arguments()
    if options.peer:
        sys.path.append(str(options.peer))
    if options.one:
        ONE[options.one](options)
    elif options.resident:
        measure_resident(options)
    elif options.stack:
        measure_stacks(options)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """All ways by turns."""
    ways: dict[str, Callable[[], None]] = {
        "usual": partial(one_by_one, options, "usual", 1),
        "resident": partial(one_by_one, options, "resident", 1),
        "side by side": partial(one_by_one, options, "resident", 2),
        **({"trainer": partial(one_by_one, options, "trainer", 1)} if options.peer else {}),
        "bmla": partial(by_bmla, options),
    }
    ways = {name: way for name, way in ways.items() if name not in options.leave_out}
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(options.turns):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), children_s()
            way()
            figures[name].append((time.perf_counter() - wall, children_s() - cpu))
            print(
                f"turn {turn + 1}: {name:<12} {figures[name][-1][0]:7.1f} s, {figures[name][-1][1]:7.1f} CPU s",
                flush=True,
            )
    for name in ways:
        if name == "bmla":
            continue
        clock, cpu = (
            statistics.median(theirs[i] / ours[i] for theirs, ours in zip(figures[name], figures["bmla"], strict=True))
            for i in (0, 1)
        )
        goal = GOALS.get((name, "bmla"))
        print(f"{name} / bmla: {clock:.2f} by the clock, {cpu:.2f} in CPU seconds{f' (goal {goal})' if goal else ''}")


def children_s() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_by_one(options: argparse.Namespace, way: str, at_once: int) -> None:
    """A process for each run, so many at a time; alone, a process has torch's own choice of threads."""
    environment = dict(os.environ) if at_once == 1 else {**os.environ, "OMP_NUM_THREADS": "1"}
    running: list[subprocess.Popen[bytes]] = []
    for ratio in RATIOS:
        for seed in range(options.seeds):
            if len(running) == at_once:
                ended(running.pop(0))
            words = ["--one", way, "--ratio", ratio, "--seed", str(seed)]
            running.append(subprocess.Popen([*command(options), *words], env=environment))
    for process in running:
        ended(process)


def ended(process: "subprocess.Popen[bytes]") -> None:
    if process.wait():
        raise SystemExit("a run failed, see above")


def by_bmla(options: argparse.Namespace) -> None:
    subprocess.run([*command(options), "--one", "bmla"], check=True)


def command(options: argparse.Namespace) -> list[str]:
    same = {
        name: getattr(options, name)
        for name in ("store", "seeds", "epochs", "layers", "width", "batch_size", "workers")
    }
    words = [word for name, value in same.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, __file__, *words, *(["--peer", str(options.peer)] if options.peer else [])]


def config_of(options: argparse.Namespace) -> Any:
    from bmla.fuse.recipes import run_config

    size = {name: getattr(options, name) for name in ("epochs", "layers", "width", "batch_size")}
    size["convolution"] = options.convolution
    return run_config(options.model, audio=AUDIO, visual=VISUAL, ratio=options.ratio, seed=options.seed, **size)


def usual(options: argparse.Namespace) -> None:
    """What a script in this field does: a Dataset that reads one clip, and torch's DataLoader."""
    import torch
    import zarr
    from torch.nn.utils.rnn import pad_sequence
    from torch.utils.data import DataLoader, Dataset

    from bmla.fuse.models.base import Steps

    features = resident_features(options, tier="shard")  # for the splits and the statistics of the model's inputs
    group = zarr.open_group(str(options.store), mode="r")
    arrays = {m: group[f"streams/{name}/values"] for m, name in zip(TAKES, (AUDIO, VISUAL), strict=True)}
    valid = {m: group[f"streams/{name}/valid"] for m, name in zip(TAKES, (AUDIO, VISUAL), strict=True)}
    rows = store_rows(options, features)

    class Clips(Dataset):  # type: ignore[type-arg]
        def __init__(self, clips: Any):
            self.clips = clips

        def __len__(self) -> int:
            return len(self.clips)

        def __getitem__(self, i: int) -> Any:
            clip = int(self.clips[i])
            sides = []
            for m in TAKES:
                length = int(features.stream(m).lengths[clip])
                sides.append(
                    (torch.from_numpy(arrays[m][rows[clip], :length]), torch.from_numpy(valid[m][rows[clip], :length]))
                )
            return sides, int(features.labels[clip])

    def collate(items: Any) -> Any:
        sides = (
            Steps(*(pad_sequence([clip[0][m][part] for clip in items], batch_first=True) for part in (0, 1)))
            for m in range(2)
        )
        return *sides, torch.tensor([label for _, label in items])

    def batches(clips: Any, shuffle: bool) -> Iterator[Any]:
        return iter(DataLoader(Clips(clips), options.batch_size, shuffle=shuffle, collate_fn=collate))

    plain_loop(options, features, batches)


def store_rows(options: argparse.Namespace, features: Any) -> Any:
    """The store's row of each clip."""
    from bmla.store import open_store

    numbers = {clip: row for row, clip in enumerate(open_store(options.store).clips.column("id"))}
    return [numbers[clip] for clip in features.ids]


def resident_features(options: argparse.Namespace, tier: str = "ram") -> Any:
    from bmla.fuse.data import features_from_store
    from bmla.store import open_store

    return features_from_store(open_store(options.store), AUDIO, VISUAL, tier=tier)


def resident(options: argparse.Namespace) -> None:
    import torch

    features = resident_features(options)

    def batches(clips: Any, shuffle: bool) -> Iterator[Any]:
        index = torch.from_numpy(clips)
        index = index[torch.randperm(len(index))] if shuffle else index
        for part in index.split(options.batch_size):
            batch = features.batch(part, TAKES)
            yield batch.audio, batch.visual, features.labels[part]

    plain_loop(options, features, batches)


def plain_loop(options: argparse.Namespace, features: Any, batches: Callable[[Any, bool], Iterator[Any]]) -> None:
    """Trains, keeps the best weights on dev, and tests them."""
    import torch
    from torch.nn import functional as F

    from bmla.fuse.learner import fresh_model

    config = config_of(options)
    torch.manual_seed(config.seed)
    train, dev, test = (features.clips(split, TAKES) for split in ("train", "dev", "test"))
    model = fresh_model(config, features, train)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    @torch.inference_mode()
    def accuracy(clips: Any) -> float:
        model.eval()
        right = sum(
            int((model(audio, visual).result.argmax(1) == labels).sum())
            for audio, visual, labels in batches(clips, False)
        )
        return right / len(clips)

    best, weights = -1.0, {}
    for _ in range(config.epochs):
        model.train()
        for audio, visual, labels in batches(train, True):
            loss = F.nll_loss(model(audio, visual).result, labels)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimiser.step()
        if (now := accuracy(dev)) > best:
            best, weights = now, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(weights)
    accuracy(test)


def trainer(options: argparse.Namespace) -> None:
    """The same model and tensors in transformers' Trainer."""
    import torch
    from torch.nn import functional as F
    from transformers import Trainer, TrainingArguments

    from bmla.fuse.learner import fresh_model
    from bmla.fuse.models.base import Steps

    features, config = resident_features(options), config_of(options)
    torch.manual_seed(config.seed)
    train, dev, test = (features.clips(split, TAKES) for split in ("train", "dev", "test"))

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = fresh_model(config, features, train)

        def forward(self, av: Any, vv: Any, am: Any, vm: Any, labels: Any) -> dict[str, Any]:
            logits = self.model(Steps(av, am), Steps(vv, vm)).result
            return {"loss": F.nll_loss(logits, labels), "logits": logits}

    def collate(items: Any) -> dict[str, Any]:
        clips = torch.tensor(items)
        batch = features.batch(clips, TAKES)
        return {
            **{"av": batch.audio.values, "am": batch.audio.mask, "vv": batch.visual.values, "vm": batch.visual.mask},
            "labels": features.labels[clips],
        }

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=config.batch_size,
            learning_rate=config.lr,
            weight_decay=config.weight_decay,
            max_grad_norm=config.clip_norm,
            lr_scheduler_type="constant",
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
            seed=config.seed,
        )
        run = Trainer(
            Wrapped(), settings, data_collator=collate, train_dataset=train.tolist(), eval_dataset=dev.tolist()
        )
        run.train()
        run.evaluate(test.tolist())


def bmla(options: argparse.Namespace) -> None:
    import torch

    from bmla.fuse.sweep import run_sweep

    configs = [replace(config_of(options), ratio=ratio, seed=seed) for ratio in RATIOS for seed in range(options.seeds)]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run_sweep(configs, resident_features(options), Path(folder), workers=options.workers, executor="processes")


def measure_stacks(options: argparse.Namespace) -> None:
    """Model-samples a second, and seconds of whole sweeps; on a GPU in bfloat16."""
    import torch

    from bmla.fuse.obtain import Task
    from bmla.fuse.planner import step_seconds, trial
    from bmla.fuse.progress import Progress
    from bmla.fuse.sweep import run_sweep

    features = generated(options) if options.generated else stored(options)
    task = Task(features, Path(), (), options.device, {}, Progress())
    config = config_of(options)
    precision = "bf16" if options.device.startswith("cuda") else "fp32"
    sizes = [int(word) for word in options.stack.split(",")]
    if options.device.startswith("cuda"):
        print(torch.cuda.get_device_name(options.device))

    def runs_of(size: int) -> list[Any]:
        return [replace(config, seed=seed, ratio=RATIOS[seed % 5], precision=precision) for seed in range(size)]

    for turn in range(options.turns):
        alone = options.batch_size / step_seconds([partial(trial, config, task)], task, options.workers, whole=False)
        print(f"turn {turn + 1}: alone, fp32: {alone:.0f} model-samples/s", flush=True)
        for size in sizes:
            starts = [partial(trial, run, task) for run in runs_of(size)]
            seconds = step_seconds(starts, task, options.workers, whole=True)
            rate = size * options.batch_size / seconds
            print(f"  E = {size}, {precision}: {rate:.0f} model-samples/s, {rate / alone:.2f} times alone", flush=True)
    base = 0.0
    for size in (int(word) for word in options.sweeps.split(",") if word):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            executor = "stacked" if size > 1 else "processes"
            run_sweep(runs_of(size), features, Path(folder), device=options.device, executor=executor)
            took = time.perf_counter() - began
        base = base or took
        print(
            f"  a sweep of {size}, {options.epochs} epochs: {took:.1f} s, {took / base:.2f} times the first", flush=True
        )


SHAPES = {  # clips' steps, numbers of a step and steps a second, of sound and of sight
    "grid": ((100, 80, 100.0), (25, 45, 25.0)),
    "lrw": ((57, 768, 50.0), (29, 512, 25.0)),
}
CLASSES = {"grid": 51, "lrw": 500}


def generated(options: argparse.Namespace) -> Any:
    """Noise, made where it is computed on."""
    import numpy as np
    import torch

    from bmla.fuse.arrays import features_from_arrays
    from bmla.fuse.stream import Resident

    n, classes = options.generated, CLASSES[options.shape]
    labels, split = np.arange(n) % classes, np.resize(["train"] * 7 + ["dev"] + ["test"] * 2, n)
    streams = {}
    for modality, (steps, length, rate_hz) in zip(TAKES, SHAPES[options.shape], strict=True):
        values = torch.empty(n * steps, length, dtype=torch.float16, device=options.device)
        for part in values.split(1 << 20):
            part.normal_()
        lengths = torch.full((n,), steps)
        valid = torch.ones(n * steps, dtype=torch.bool, device=options.device)
        starts = torch.arange(n) * steps
        name = f"{modality}.noise"
        streams[modality] = Resident(
            name, rate_hz, (length,), False, lengths, np.ones(n, bool), name, values, valid, starts
        )
    tiny = np.zeros((n, 1, 1), np.float16)
    return replace(features_from_arrays(labels, split, audio=list(tiny), visual=list(tiny)), **streams)


def measure_resident(options: argparse.Namespace) -> None:
    """An epoch over features that lie on the device."""
    import torch

    from bmla.fuse.obtain import Task
    from bmla.fuse.planner import step_seconds, trial
    from bmla.fuse.progress import Progress

    features = generated(options)
    task = Task(features, Path(), (), options.device, {}, Progress())
    train = len(features.clips("train", TAKES))
    held = sum(s.values.nbytes for s in (features.audio, features.visual))
    print(
        f"{len(features)} clips, {held / 1e9:.1f} GB resident; model {options.model}, batches of {options.batch_size}"
    )
    config = replace(config_of(options), precision="bf16")
    for whole in (False, True):
        seconds = step_seconds([partial(trial, config, task)], task, options.workers, whole=whole)
        epoch_s = seconds * train / options.batch_size
        how = "captured" if whole else "step by step"
        print(f"  {how}: {seconds * 1000:.2f} ms a step, {60 / epoch_s:.2f} epochs a minute", flush=True)
    if options.device.startswith("cuda"):
        print(f"  peak memory of the device: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def stored(options: argparse.Namespace) -> Any:
    from bmla.fuse.data import features_from_store
    from bmla.store import open_store

    return features_from_store(open_store(options.store), AUDIO, VISUAL, options.device)


ONE = {"usual": usual, "resident": resident, "trainer": trainer, "bmla": bmla}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", type=Path)
    source.add_argument("--generated", type=int, metavar="N", help="clips of noise")
    parser.add_argument("--as", dest="shape", choices=tuple(SHAPES), default="grid", help="shape of the noise")
    parser.add_argument("--resident", action="store_true", help="time an epoch of one run on generated features")
    parser.add_argument("--model", default="transformer", help="of the stacks and the resident run")
    parser.add_argument("--convolution", type=int, metavar="K", help="of their encoders; by default that of the model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--leave-out", nargs="*", default=(), metavar="WAY")
    parser.add_argument("--peer", type=Path, help="a folder with accelerate, which transformers' Trainer needs")
    parser.add_argument("--stack", metavar="E,…", help="measure stacks of these sizes instead")
    parser.add_argument(
        "--sweeps", default="1,32", metavar="E,…", help="with --stack: whole sweeps of so many runs; '': none"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", choices=tuple(ONE), help=argparse.SUPPRESS)
    parser.add_argument("--ratio", default="1:1", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
