"""Training one model on several tasks: batches by turns, one optimiser, one choice of the epoch; the loop is that of `epochs.py`.

The same seed, tasks, features, thread count and libraries give the same weights, bit for bit, on a CPU; also after a kill.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from ..epochs import run_epochs
from ..learner import clips_to_learn, fresh_model, prepared
from ..lockstep import alone
from ..models.single import SingleModality
from ..models.table import takes
from ..standing import Epoch
from ..training import Trained, seeded
from ..unfinished import Unfinished
from .part import Part, check_parts, divided
from .share import share


def train_together(
    parts: Sequence[Part],
    *,
    branches: Sequence[Mapping[str, SingleModality]] = (),
    teachers: Sequence[Mapping[str, SingleModality]] = (),
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    unfinished: Unfinished | None = None,
) -> list[Trained]:
    """Trains the tasks' models, which share all that `share.py` says, and keeps the weights of the epoch that is best for all.

    Args:
        branches, teachers: one entry a task, see `training.train`; branches that were trained together.
        on_epoch: called with each epoch: `train_loss`, `dev_accuracy` and `dev_loss` are means over tasks, `tasks` has each task's
            own figures; of one task, they are all that there is.
        unfinished: where to keep the state of the training, and to go on from where there is one; None: nowhere.

    Returns:
        One entry a task, as `training.train` gives it; of several tasks, `tasks_dev_accuracy` in every epoch's figures is what it was
        chosen by.

    Raises:
        Diverged: a task's loss became NaN or infinite; the best weights before it are in `unfinished`.
        UsageError: the tasks' settings differ, a split is empty, or clips that train one task choose or test another.
    """
    check_parts(parts)
    place = torch.device(device)
    config = parts[0].config
    modalities = takes(config.model)
    clips = [
        clips_to_learn(part.config, part.features, train, held, place)
        for part, (train, held) in zip(parts, divided(parts), strict=True)
    ]
    with seeded(config.seed, place):
        models = [fresh_model(p.config, p.features, c.train) for p, c in zip(parts, clips, strict=True)]
        share(models, [{m: part.features.stream(m).digest for m in modalities} for part in parts])
        nothing: list[Mapping[str, SingleModality]] = [{} for _ in parts]
        learners = [
            prepared(part.name, part.config, part.features, own, model, place, started, taught)
            for part, own, model, started, taught in zip(
                parts, clips, models, branches or nothing, teachers or nothing, strict=True
            )
        ]
        done = alone(run_epochs(learners, place, on_epoch, unfinished))
    return [
        Trained(model, [own_figures(epoch, part.name) for epoch in done.history], own_figures(done.best, part.name))
        for part, model in zip(parts, models, strict=True)
    ]


def own_figures(epoch: Epoch, task: str) -> Epoch:
    """A task's, of those of all."""
    return epoch["tasks"][task] if "tasks" in epoch else epoch
