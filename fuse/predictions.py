"""A model's answers about some clips, in big batches.

Shape legend: n clips, c classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data import Draw, Features
from .models.base import FusionModel, Output

BATCH_CLIPS = 256


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
    """Answers about some clips, in evaluation mode; the model's mode is restored.

    Args:
        clips: (n,) indices into the features.
        modalities: that the model takes.
        versions, augment: which noise variant each clip is taken from; see `data.Draw`.
        hidden: modalities that the model is not shown.
        options: passed on to the model (`brff=False`).
    """
    training = model.training
    model.eval()
    index = torch.from_numpy(clips)
    outputs: list[Output] = []
    draws = (
        Draw(index[part], {m: v[part] for m, v in (versions or {}).items()})
        for part in torch.arange(len(index)).split(BATCH_CLIPS)
    )
    with torch.inference_mode():
        for _, audio, visual in features.batches(draws, modalities, augment):
            audio = audio.absent() if audio is not None and "audio" in hidden else audio
            visual = visual.absent() if visual is not None and "visual" in hidden else visual
            outputs.append(model(audio, visual, **options))
    model.train(training)
    present = {
        m: features.stream(m).present[clips] if m in modalities and m not in hidden else np.zeros(len(clips), bool)
        for m in ("audio", "visual")
    }
    return Predictions(
        ids=features.ids[clips],
        groups=features.groups[clips],
        labels=features.labels.numpy()[clips],
        result=torch.cat([output.result for output in outputs]).cpu().numpy(),
        audio=joined([output.audio for output in outputs]),
        visual=joined([output.visual for output in outputs]),
        alpha=joined([output.alpha for output in outputs]),
        audio_present=present["audio"],
        visual_present=present["visual"],
    )


def joined(parts: Sequence[torch.Tensor | None]) -> np.ndarray | None:
    """The batches of one head end to end; None for a model without it."""
    known = [part for part in parts if part is not None]
    return torch.cat(known).cpu().numpy() if known else None
