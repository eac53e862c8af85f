"""Training one model of one task; the loop is that of `epochs.py`.

*Source:* Sec. 4.1.2 for the phases, learning rates and batch sizes (see `recipes.py`). Ours: the choice of the epoch by accuracy on
the dev split, ties by lower loss; where training clips are given noise, dev clips are judged once clean and once with it. The test
split is not looked at here.

The same seed, features, thread count and libraries give the same weights, bit for bit, on a CPU; also after a kill.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .config import RunConfig
from .data import Features
from .epochs import run_epochs
from .learner import clips_of, clips_to_learn, fresh_model, prepared, set_apart
from .lockstep import Training, driven
from .models.base import FusionModel
from .models.own import Builder
from .models.single import SingleModality
from .standing import Epoch
from .unfinished import Unfinished


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        model: with the weights of the best epoch.
        history: one entry an epoch: phase, epoch, lr, train_loss, dev_…, alpha, grad_norm_….
        best: the entry of the chosen epoch.
    """

    model: FusionModel
    history: list[Epoch]
    best: Epoch


def training(
    config: RunConfig,
    features: Features,
    *,
    branches: Mapping[str, SingleModality] | None = None,
    teachers: Mapping[str, SingleModality] | None = None,
    builder: Builder | None = None,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    unfinished: Unfinished | None = None,
) -> Training[Trained]:
    """Trains one model and keeps the weights of its best epoch on dev. Whoever drives it does the work, see `lockstep.py`.

    Args:
        features: with the splits to use (`Features.folded` has been called).
        branches: trained single-modality models that a run starts from; None: fresh weights.
        teachers: trained single-modality models that a balance method learns from.
        builder: makes the model, where it is the user's own; see `models/own.py`.
        device: where the features are.
        on_epoch: called with each entry of the history.
        unfinished: where to keep the state of the training, and to go on from where there is one; None: nowhere.

    Raises:
        Diverged: the loss became NaN or infinite; the best weights before it are in `unfinished`.
        UsageError: a split has no clip with the model's modality, the model does not take what a step of a stream is, or it is not
            trained itself and no branches were given.
    """
    place = torch.device(device)
    train_clips, held = set_apart(clips_of(features, "train", config), features, config)
    clips = clips_to_learn(config, features, train_clips, held, place)
    with seeded(config.seed, place):
        model = fresh_model(config, features, train_clips, builder)
        learner = prepared(config.model, config, features, clips, model, place, branches, teachers)
        done = yield from run_epochs([learner], place, on_epoch, unfinished)
    return Trained(model, done.history, done.best)


train = driven(training)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators begin at the seed inside, and are as they were outside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
