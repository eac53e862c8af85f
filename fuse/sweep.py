"""Many runs over the same features, in this process or in several side by side: models x ratios x balance methods x seeds.

The single-modality models that BalanceMLA starts from, or that a balance method learns from, are runs as well, kept in the same folder: every run of the sweep that can
share them does, and so does the next sweep.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..store.errors import UsageError
from .config import PARTS, RunConfig, prerequisites, starting_points, teachers
from .contribution import contribution
from .data import Features
from .evaluate import predict
from .metrics import scores
from .models.balancemla import BalanceMLA
from .models.single import SingleModality
from .models.table import takes
from .progress import Progress
from .recipes import run_config
from .run import Run, load_run, run_name, save_run
from .train import clips_of, set_apart, train
from .unfinished import FOLDER, Unfinished
from .workers import run_parallel


def grid(
    models: Sequence[str],
    ratios: Sequence[str],
    seeds: Sequence[int],
    removals: Sequence[Sequence[str]] = ((),),
    balances: Sequence[str] = ("none",),
    **wishes: Any,
) -> list[RunConfig]:
    """The runs of a sweep, each once: a model of one modality has no ratio, no parts and nothing to balance, so it stands once a seed.

    Args:
        removals: parts of BalanceMLA to do without; each entry is a setting of its own.
        balances: balance methods; each is a setting of its own.
        wishes: see `recipes.run_config`.
    """
    configs = [
        run_config(
            model,
            ratio="1:1" if len(takes(model)) == 1 else ratio,
            seed=seed,
            balance=balance,
            **{**wishes, **{part: part not in removed for part in PARTS}},
        )
        for model in models
        for balance in (balances if len(takes(model)) == 2 else ("none",))
        for removed in removals
        for ratio in ratios
        for seed in seeds
    ]
    return list(dict.fromkeys(configs))


def run_sweep(
    configs: Sequence[RunConfig],
    features: Features,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    workers: int = 1,
    threads: int = 1,
) -> list[Run]:
    """Trains and tests what is not there yet, and returns all runs in the order asked for.

    Args:
        out: folder of the runs.
        device: where the features are.
        workers: processes that train side by side, on a CPU; 1: this one, with as many threads as torch is set to.
        threads: of each worker.
        provenance: more keys for each run's config.json.

    Raises:
        UsageError: no configuration; or as `train`, before anything is trained where it can be told.
        Diverged: the loss of a run became NaN; the runs before it are kept.
    """
    if not configs:
        raise UsageError("a sweep of no runs: give at least one model, ratio and seed")
    progress = progress or Progress()
    missing = {c: None for config in configs for c in needed(config) if not is_finished(c, features, out)}
    for config in dict.fromkeys([*configs, *missing]):
        for split in ("train", "dev", "test"):
            clips = clips_of(features.folded(config.folds, config.fold, config.fold_by), split, config)
            if split == "train":
                set_apart(clips, features, config)
    reused = [c for c in dict.fromkeys(configs) if c not in missing]
    progress.begin(sum(work(c) for c in missing), reused=[run_name(c, features) for c in reused])
    try:
        if workers > 1 and len(missing) > 1:
            first = [c for c in missing if not prerequisites(c)]
            waves = (first, [c for c in missing if prerequisites(c)])
            run_parallel(waves, features, out, provenance or {}, progress, min(workers, len(missing)), threads)
        return [obtain(config, features, out, device, dict(provenance or {}), progress) for config in configs]
    finally:
        progress.end()


def obtain(
    config: RunConfig,
    features: Features,
    out: Path,
    device: torch.device | str,
    provenance: dict[str, Any],
    progress: Progress,
) -> Run:
    """The finished run of this configuration: the one on disk, or a new one."""
    if is_finished(config, features, out):
        return load_run(out / run_name(config, features))
    starts, taught = (
        {m: obtain(p, features, out, device, provenance, progress) for m, p in before(config).items()}
        for before in (starting_points, teachers)
    )
    began = time.monotonic()
    progress.start(config)
    share = len(takes(config.model))
    unfinished = Unfinished(out / FOLDER / run_name(config, features))
    features = features.folded(config.folds, config.fold, config.fold_by)
    trained = train(
        config,
        features,
        branches=single_models(starts, device),
        teachers=single_models(taught, device),
        device=device,
        on_epoch=lambda epoch: progress.advance(config, epoch, share),
        unfinished=unfinished,
    )
    modalities = takes(config.model)
    results: dict[str, Any] = {"best": trained.best}
    for split in ("dev", "test"):  # the only look at the test split, after the epoch was chosen on dev
        clips = clips_of(features, split, config)
        predictions = predict(trained.model, features, clips, modalities)
        alone = None
        if isinstance(trained.model, BalanceMLA) and config.brff:
            alone = predict(trained.model, features, clips, modalities, brff=False)
        results[split] = scores(predictions, alone) | contribution(trained.model, features, clips, modalities)
    seconds = round(time.monotonic() - began, 2)
    origin = {"branches": {m: run.name for m, run in starts.items()}, "seconds": seconds}
    if taught:
        origin["teachers"] = {m: run.name for m, run in taught.items()}
    run = save_run(out, config, features, trained, results, predictions, provenance | origin)
    unfinished.remove()
    progress.finish(run)
    return run


def needed(config: RunConfig) -> Iterable[RunConfig]:
    """A run and those that it starts or learns from."""
    return (*prerequisites(config), config)


def single_models(runs: Mapping[str, Run], device: torch.device | str) -> dict[str, SingleModality]:
    """The trained models of some runs of one modality each."""
    models: dict[str, SingleModality] = {}
    for modality, run in runs.items():
        model = run.model(device)
        assert isinstance(model, SingleModality)
        models[modality] = model
    return models


def is_finished(config: RunConfig, features: Features, out: Path) -> bool:
    return (out / run_name(config, features) / "config.json").is_file()


def work(config: RunConfig) -> int:
    """What a run costs, in epochs of one modality."""
    return config.total_epochs * len(takes(config.model))
