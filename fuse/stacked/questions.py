"""What all runs of a stack ask at the same time, answered in one go.

After an epoch every run asks about the same dev clips, and once it is trained about the same dev and test clips: each batch is gathered
once, and one pass shows it to all models. Runs that ask different things are answered one by one, as a run alone is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..models.base import FusionModel, Steps
from ..predictions import BATCH_CLIPS, Ask, Predictions, answering, by_head
from .layout import Layout

AT_ONCE = 8 * BATCH_CLIPS  # answers of all runs together in one pass: a stack that can be trained has room for them


def the_same(asks: Sequence[Ask]) -> bool:
    """Whether all ask about the same clips, shown in the same way."""
    return all(alike(asks[0], other) for other in asks[1:])


def alike(one: Ask, other: Ask) -> bool:
    """Streams are the same if they are one object; means, if they are equal numbers."""
    return (
        words(one) == words(other)
        and np.array_equal(one.clips, other.clips)
        and [*map(id, streams(one))] == [*map(id, streams(other))]
        and one.versions.keys() == other.versions.keys()
        and all(torch.equal(drawn, other.versions[m]) for m, drawn in one.versions.items())
        and all(torch.equal(one.model.mean_of(m), other.model.mean_of(m)) for m in one.mean)
    )


def words(ask: Ask) -> tuple[Any, ...]:
    return tuple(ask.modalities), tuple(ask.augment), tuple(ask.hidden), tuple(ask.mean), dict(ask.options)


def streams(ask: Ask) -> list[Any]:
    versions = ask.features.versions(ask.augment)
    return [stream for m in ask.modalities for stream in versions[m].streams]


def answers(model: FusionModel, layout: Layout, asks: Sequence[Ask]) -> list[Predictions]:
    """Of each run, to the same question.

    Args:
        model: of all runs, in their order; see `mirror.py`. Its mode is restored.
    """
    runs, first = len(asks), asks[0]
    with answering(model):
        heads = by_head(
            model(repeated(audio, runs), repeated(visual, runs), **first.options)
            for _, audio, visual in first.batches(min(BATCH_CLIPS, max(1, AT_ONCE // runs)))
        )
    whole = {head: torch.cat([*map(layout.unfold, parts)], 1).numpy() for head, parts in heads.items()}
    return [ask.predictions({head: each[e] for head, each in whole.items()}) for e, ask in enumerate(asks)]


def repeated(steps: Steps | None, runs: int) -> Steps | None:
    """(b, t, …) -> (E b, t, …): the same clips for every run."""
    if steps is None:
        return None
    return Steps(*(part.repeat(runs, *[1] * (part.ndim - 1)) for part in steps))
