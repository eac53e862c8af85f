"""Training and evaluation on arrays of one's own, and with a model of one's own: `from bmla.fuse import train, evaluate, load_run`.

Arrays: numpy or torch, (n, t, l) padded to one length, or n arrays (t, l), None for a clip that lacks the modality. Floats, or pictures
(n, t, height, width[, 3]) of uint8. A mask (n, t) or n masks (t,) says which steps are valid, or `…_lengths` (n,) how many there are; what
stands elsewhere is never used.

Shape legend: n clips, t steps, l feature length, c classes.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..store.errors import UsageError
from ..store.reading.device import pick_device
from .arrays import features_from_arrays, laid_out
from .condition import Condition, parse_condition
from .config import RunConfig
from .data import Features
from .given import Given, class_numbers, clips_of, dealt
from .metrics import scores
from .models.balancemla import BalanceMLA
from .models.base import MODALITIES, FusionModel, Input
from .models.kinds import VECTORS
from .models.own import Builder, identity, name_of
from .models.table import OWN, OWN_NAME, check_inputs, takes
from .obtain import Task, obtain
from .predictions import Predictions, predict
from .progress import Progress
from .recipes import run_config
from .run import Run, load_run
from .standing import Diverged
from .stream import Resident

__all__ = ["Evaluation", "evaluate", "load_run", "train"]

RATES_HZ = {"audio": 50.0, "visual": 25.0}


@dataclass(frozen=True)
class Evaluation:
    """What a model answered, and what it is worth.

    Attributes:
        scores: see `metrics.scores`; None without labels.
        predictions: of the clips that have one of the modalities shown.
    """

    scores: dict[str, Any] | None
    predictions: Predictions


def train(
    labels: Given,
    split: Sequence[str] | np.ndarray | None = None,
    *,
    audio: Given | None = None,
    visual: Given | None = None,
    audio_mask: Given | None = None,
    visual_mask: Given | None = None,
    audio_lengths: Given | None = None,
    visual_lengths: Given | None = None,
    audio_rate_hz: float = RATES_HZ["audio"],
    visual_rate_hz: float = RATES_HZ["visual"],
    variants: Mapping[str, Given] | None = None,
    classes: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    speakers: Sequence[str] | None = None,
    model: str | Builder = "balancemla",
    name: str | None = None,
    conditions: Sequence[str] = (),
    out: str | Path | None = None,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[dict[str, Any]], None] = lambda epoch: None,
    **settings: Any,
) -> Run:
    """Trains one model on arrays, chooses its epoch on dev, and tests it.

    Args:
        labels: (n,) class numbers, or names; -1 or None: unknown, the clip is left out.
        split: (n,) "train", "dev" or "test"; None: whole groups are dealt out, a fifth to test and a fifth to dev.
        audio, visual, …_mask, …_lengths: see the module.
        audio_rate_hz, visual_rate_hz: steps a second.
        variants: noisy versions of the same clips by names such as "audio.arrays@white=0": for `augment` and `conditions`.
        classes: names; default the labels' own.
        ids, groups, speakers: n names; where splits are made here, clips of one group never get into two of them. With `folds`, `fold`
            and `fold_by`: a fold of a cross-validation.
        model: a name of `bmla models`, or a class or function that makes the user's own, called with what a step of each modality is
            and the number of classes; see `models/own.py`.
        name: of the user's own, by default its class's; the tables say own:NAME.
        conditions: that it is tested under as well, such as "audio.arrays@white=0" or "no-visual".
        out: folder of runs, where a finished run is found again; None: the run is gone with the object that is returned. (Where
            training diverges, the folder of temporary files with the last good weights stays, and the error names it.)
        on_epoch: called with the figures of each epoch.
        settings: fields of `RunConfig`, `schedule` and `recipe`: seed, epochs, balance, augment, …

    Returns:
        the run, with `scores`, `predictions`, `history`, `model()` and `conditions`.

    Raises:
        UsageError: what was given does not fit together; says how.
        Diverged: the loss became NaN or infinite.
    """
    place = pick_device(device)
    numbers, names = class_numbers(labels, classes)
    given = {
        "audio": clips_of("audio", audio, audio_mask, audio_lengths),
        "visual": clips_of("visual", visual, visual_mask, visual_lengths),
    }
    masks = {"audio": (audio_mask, audio_lengths), "visual": (visual_mask, visual_lengths)}
    noisy = {
        key: clips_of(key, values, *masks.get(key.partition(".")[0], (None, None)))[0]
        for key, values in (variants or {}).items()
    }
    features = features_from_arrays(
        numbers,
        dealt(len(numbers), ids, groups) if split is None else split,
        audio=given["audio"][0],
        visual=given["visual"][0],
        audio_valid=given["audio"][1],
        visual_valid=given["visual"][1],
        audio_rate_hz=audio_rate_hz,
        visual_rate_hz=visual_rate_hz,
        variants=noisy,
        classes=names,
        ids=ids,
        groups=groups,
        speakers=speakers,
        device=place,
    )
    config, builders = configuration(model, name, features, settings)
    if out is not None and builders and " " not in config.own:
        raise UsageError(f"the source of {config.own} can't be read, so its runs can't be told apart: put it in a file")
    if isinstance(conditions, str):
        raise UsageError(f'conditions is "{conditions}", expected a list of texts')
    tested = tuple(parse_condition(condition) for condition in conditions)
    check_conditions(tested, features)
    features.versions((*(settings.get("augment") or ()), *(settings.get("gate_augment") or ())))  # that they were given
    progress = Listening(config, on_epoch)
    if out is not None:
        return obtain(config, Task(features, Path(out), tested, place, {}, progress, builders=builders))
    folder = Path(tempfile.mkdtemp(prefix="bmla-"))
    try:
        run = obtain(config, Task(features, folder, tested, place, {}, progress, builders=builders))
    except Diverged:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def evaluate(
    trained: Run | FusionModel,
    labels: Given | None = None,
    *,
    audio: Given | None = None,
    visual: Given | None = None,
    audio_mask: Given | None = None,
    visual_mask: Given | None = None,
    audio_lengths: Given | None = None,
    visual_lengths: Given | None = None,
    ids: Sequence[str] | None = None,
    drop: str | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """What a trained model answers about any clips. Noise is evaluated by giving noisy arrays.

    Args:
        trained: a run, or the model of one.
        labels: (n,) class numbers, or names where a run is given; -1 or None: unknown; None: of no clip.
        audio, visual, …: as `train`; a modality that is not given is one that all clips lack, where a run is given.
        drop: "audio" or "visual": the model is not shown it.

    Raises:
        UsageError: these are not features such as it was trained on; nothing is left to see.
    """
    place = pick_device(device)
    run = trained if isinstance(trained, Run) else None
    model = trained.model(place) if isinstance(trained, Run) else trained.to(place)
    modalities = takes(run.config.model) if run else parts_of(model)
    given = {
        "audio": clips_of("audio", audio, audio_mask, audio_lengths),
        "visual": clips_of("visual", visual, visual_mask, visual_lengths),
    }
    if drop is not None and drop not in MODALITIES:
        raise UsageError(f'drop is "{drop}", expected audio or visual')
    hidden = tuple(m for m in modalities if m == drop)
    shown = [m for m in modalities if m not in hidden and given[m][0] is not None]
    if not shown:
        raise UsageError(f"nothing to see: the model takes {' and '.join(modalities)}, and none of it is given or left")
    n = len(given[shown[0]][0] or ())
    numbers, names = (np.full(n, -1), None) if labels is None else class_numbers(labels, run.classes if run else None)
    if len(numbers) != n:
        raise UsageError(f"labels has {len(numbers)} entries, expected one for each of the {n} clips")
    if run is None and names:
        raise UsageError("labels are names, and a model knows its classes by number: give numbers, or the run instead")
    rates = {m: run.inputs[m].rate_hz for m in modalities} if run else RATES_HZ
    features = laid_out(
        numbers,
        ["test"] * n,
        audio=given["audio"][0] if "audio" in modalities else None,
        visual=given["visual"][0] if "visual" in modalities else None,
        audio_valid=given["audio"][1],
        visual_valid=given["visual"][1],
        audio_rate_hz=rates.get("audio", 1.0),
        visual_rate_hz=rates.get("visual", 1.0),
        classes=run.classes if run else None,
        ids=ids,
        device=place,
    )
    features = complete(features, run or model, modalities, place)
    clips = np.flatnonzero(np.any([features.stream(m).present for m in shown], axis=0))
    predictions = predict(model, features, clips, modalities, hidden=hidden)
    known = predictions.labels >= 0
    if predictions.labels.max(initial=-1) >= (count := predictions.result.shape[1]):
        raise UsageError(f"labels reach to {predictions.labels.max()}, but the model tells {count} classes apart")
    if not known.any():
        return Evaluation(None, predictions)
    alone = None
    if isinstance(model, BalanceMLA) and model.audio_brff is not None:
        alone = predict(model, features, clips[known], modalities, hidden=hidden, brff=False)
    return Evaluation(scores(predictions.take(known), alone), predictions)


class Listening(Progress):
    """Tells the epochs of one run, not those of the runs that it starts or learns from."""

    def __init__(self, config: RunConfig, on_epoch: Callable[[dict[str, Any]], None]):
        self.config, self.on_epoch = config, on_epoch

    def advance(self, config: RunConfig, epoch: dict[str, Any], work: int) -> None:
        if config == self.config:
            self.on_epoch(epoch)


def configuration(
    model: str | Builder, name: str | None, features: Features, settings: Mapping[str, Any]
) -> tuple[RunConfig, dict[str, Builder]]:
    """The settings of a run, and what makes its model where it is the user's own."""
    streams = {m: s.name for m, s in (("audio", features.audio), ("visual", features.visual)) if s is not None}
    if isinstance(model, str):
        if name is not None:
            raise UsageError(f'name "{name}": {model} has a name; give one with a class of your own')
        pictures = any(features.stream(m).input.kind != VECTORS for m in takes(model) if m in streams)
        return run_config(model, **{"pictures": pictures, **streams, **settings}), {}
    if isinstance(model, torch.nn.Module):
        raise UsageError(
            "model is a module: give its class, or a function that makes one, so that a seed begins it anew"
        )
    one = {"audio": "-ao", "visual": "-vo"}[next(iter(streams))] if len(streams) == 1 else ""
    plain = name or name_of(model).rpartition(".")[2]
    full = f"{OWN}{plain}" + ("" if plain.endswith(one) else one)
    if not OWN_NAME.fullmatch(full):
        raise UsageError(f'name "{plain}": expected letters, digits, ".", "_" and "-"')
    config = run_config(full, **{**streams, **settings})
    inputs = {m: features.stream(m).input for m in takes(full)}
    check_inputs(full, inputs)
    return replace(config, own=identity(model, inputs, len(features.classes))), {full: model}


def check_conditions(conditions: Sequence[Condition], features: Features) -> None:
    """Raises UsageError for one that names what was not given."""
    for condition in conditions:
        features.under(condition.variants)


def parts_of(model: FusionModel) -> tuple[str, ...]:
    """The modalities that a model takes, by the names of its parts."""
    names = {name.split("_")[0] for name, _ in model.named_children()}
    return tuple(m for m in MODALITIES if m in names)


def complete(
    features: Features, trained: Run | FusionModel, modalities: Sequence[str], device: torch.device
) -> Features:
    """With a stream without any steps for a modality that was not given.

    Raises:
        UsageError: a step is not what the model was trained on; a modality is missing that a model takes, whose run is not known.
    """
    found: dict[str, Any] = {"audio": features.audio, "visual": features.visual}
    for modality in modalities:
        given: Input | None = found[modality].input if found[modality] is not None else None
        if isinstance(trained, Run):
            wanted = trained.inputs[modality]
            if given is None:
                found[modality] = nothing_of(modality, wanted, len(features), device)
            elif given != wanted:
                raise UsageError(
                    f"{trained.name}: a step of {modality} was {describe(wanted)} there, here it is {describe(given)}"
                )
        elif given is None:
            raise UsageError(f"the model takes {modality} too: give it, or the run instead of its model")
        elif not spreads(trained.mean_of(modality).shape, given.layout):
            raise UsageError(f"the model was trained on other steps of {modality} than {describe(given)}")
    return replace(features, **found)


def spreads(statistics: Sequence[int], layout: Sequence[int]) -> bool:
    """Whether statistics of the one shape are broadcast over a step of the other."""
    try:
        return tuple(torch.broadcast_shapes(tuple(statistics), tuple(layout))) == tuple(layout)
    except RuntimeError:
        return False


def describe(source: Input) -> str:
    return " x ".join(map(str, source.layout)) + (" pixels" if source.pixels else "") + f" at {source.rate_hz:g} Hz"


def nothing_of(modality: str, source: Input, clips: int, device: torch.device) -> Resident:
    """A stream that no clip has a step of."""
    zeros = torch.zeros(clips, dtype=torch.int64)
    values = torch.zeros(0, *source.layout, dtype=torch.uint8 if source.pixels else torch.float32, device=device)
    return Resident(
        f"{modality}.arrays",
        source.rate_hz,
        source.layout,
        source.pixels,
        zeros,
        np.zeros(clips, bool),
        "",
        values,
        torch.zeros(0, dtype=torch.bool, device=device),
        zeros,
    )
