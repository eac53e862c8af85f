"""A model's answers about some clips, in big batches.

Shape legend: n clips, c classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data import Batch, Draw, Features
from .models.base import MODALITIES, FusionModel, Output
from .stream import constant

BATCH_CLIPS = 256
HEADS = ("result", "audio", "visual", "alpha")  # of an `Output`


@dataclass(frozen=True)
class Predictions:
    """Answers about n clips.

    Attributes:
        ids, groups: (n,) text.
        labels: (n,) int64.
        result: (n, c) float32 log-probabilities of the model.
        audio, visual: (n, c) float32 log-probabilities of the branches, or None; without meaning where not present.
        alpha: (n, 1) or (n, c) float32, share of the audio branch, or None.
        audio_present, visual_present: (n,) bool.
    """

    ids: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    result: np.ndarray
    audio: np.ndarray | None
    visual: np.ndarray | None
    alpha: np.ndarray | None
    audio_present: np.ndarray
    visual_present: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """(n,) the most probable class."""
        return self.result.argmax(1)

    def take(self, clips: np.ndarray) -> "Predictions":
        """Of some of the clips, by index or mask."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value[clips] for name, value in parts.items() if value is not None})


@dataclass(frozen=True, eq=False)
class Ask:
    """A question about some clips to a model in evaluation mode, in float32; the answer is Predictions.

    Attributes:
        clips: (n,) indices into the features.
        modalities: that the model takes.
        versions, augment: which noise variant each clip is taken from; see `data.Draw`.
        hidden: modalities that the model is not shown.
        mean: modalities of which every step is the mean of the training clips, which the model knows.
        options: passed on to the model (`brff=False`).
    """

    model: FusionModel
    features: Features
    clips: np.ndarray
    modalities: Sequence[str]
    versions: Mapping[str, Tensor] = field(default_factory=dict)
    augment: Sequence[str] = ()
    hidden: Sequence[str] = ()
    mean: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def alone(self) -> Predictions:
        """Of this model alone, whose mode is restored."""
        with answering(self.model):
            heads = by_head(self.model(audio, visual, **self.options) for _, audio, visual in self.batches(BATCH_CLIPS))
        return self.predictions({head: torch.cat(parts).numpy() for head, parts in heads.items()})

    def batches(self, size: int) -> Iterator[Batch]:
        """What the model is shown, so many clips at a time."""
        features = self.features
        for modality in self.mean:
            features = with_mean(features, self.model, modality)
        index = torch.from_numpy(self.clips)
        draws = (
            Draw(index[part], {m: v[part] for m, v in self.versions.items()})
            for part in torch.arange(len(index)).split(size)
        )
        for clips, audio, visual in features.batches(draws, self.modalities, self.augment):
            audio = audio.absent() if audio is not None and "audio" in self.hidden else audio
            visual = visual.absent() if visual is not None and "visual" in self.hidden else visual
            yield Batch(clips, audio, visual)

    def predictions(self, answers: Mapping[str, np.ndarray]) -> Predictions:
        """Args: answers: of each head that the model has, (n, …), about all clips."""
        features, clips = self.features, self.clips
        shown = [m for m in self.modalities if m not in self.hidden]
        present = {
            m: features.stream(m).present[clips] if m in shown else np.zeros(len(clips), bool) for m in MODALITIES
        }
        return Predictions(
            ids=features.ids[clips],
            groups=features.groups[clips],
            labels=features.labels.numpy()[clips],
            result=answers["result"],
            audio=answers.get("audio"),
            visual=answers.get("visual"),
            alpha=answers.get("alpha"),
            audio_present=present["audio"],
            visual_present=present["visual"],
        )


def predict(
    model: FusionModel,
    features: Features,
    clips: np.ndarray,
    modalities: Sequence[str],
    *,
    versions: Mapping[str, Tensor] | None = None,
    augment: Sequence[str] = (),
    hidden: Sequence[str] = (),
    **options: Any,
) -> Predictions:
    """The answer to a question, see `Ask`, of one model."""
    return Ask(model, features, clips, modalities, versions or {}, augment, hidden, options=options).alone()


@contextmanager
def answering(model: FusionModel) -> Iterator[None]:
    """Evaluation mode, and no gradients; afterwards the model's mode is what it was."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def by_head(outputs: Iterable[Output]) -> dict[str, list[Tensor]]:
    """The batches of each head that the model has; pooled features are not kept.

    They are fetched one by one: those of a whole stack together would fill the device.
    """
    heads: dict[str, list[Tensor]] = {}
    for output in outputs:
        for head in HEADS:
            if (answer := getattr(output, head)) is not None:
                heads.setdefault(head, []).append(answer.cpu())
    return heads


def with_mean(features: Features, model: FusionModel, modality: str) -> Features:
    """The same clips, with every step of one modality at the mean of the training clips, which the model knows."""
    changed = constant(features.stream(modality), model.mean_of(modality))
    return replace(features, audio=changed) if modality == "audio" else replace(features, visual=changed)
