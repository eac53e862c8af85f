"""What several tasks share of one model, and what each of them keeps to itself.

    own              x of the task's stream -> standardise -> project
    shared           -> widen -> BRFF of both directions -> encoder, of each modality
    own              -> mean -> head of each modality -> decision weights (the gate)

Each task has a whole BalanceMLA of its own, in which the shared parts are the same modules: whatever works on one model (answers,
balance methods, the fit of the decision weights, a run on disk) works on each task's. *Source:* the paper calls BalanceMLA a
"multi-task" framework and does not say what its tasks share; all of this is ours.

The projections of two tasks are one where their streams have the same specification, and so are the front ends of pictures: the same
features mean the same, and the smaller task is spared learning to read them. Other streams have other features, and maybe another
number of them, so they are read apart. Standardisation is always a task's own: recordings differ between data sets, and BRFF should
see neither's offset.
"""

from collections.abc import Mapping, Sequence

from ...store.errors import UsageError
from ..models.balancemla import BalanceMLA
from ..models.base import FusionModel
from ..models.single import Branch
from ..models.table import MODELS, entry

FAMILY = tuple(name for name, model in MODELS.items() if model.file == "balancemla")


def check_model(name: str) -> None:
    """Raises UnknownName, or UsageError for a model that several tasks can't share."""
    entry(name)
    if name not in FAMILY:
        raise UsageError(f"{name} is a model of one task; of several: {', '.join(FAMILY)}")


def share(models: Sequence[FusionModel], streams: Sequence[Mapping[str, str]]) -> None:
    """Puts the first model's shared parts in the place of those of the others.

    Args:
        models: one a task, of FAMILY and of the same configuration but for the streams.
        streams: of each, by modality, what stands for the specification of its stream.
    """
    first = models[0]
    for number, model in enumerate(models[1:], 1):
        for modality, stream in streams[number].items():
            mine, common = branch(model, modality), branch(first, modality)
            mine.widen, mine.encoder = common.widen, common.encoder
            same = [i for i in range(number) if streams[i][modality] == stream]
            if same:
                mine.project.share(branch(models[same[0]], modality).project)
        if isinstance(model, BalanceMLA) and isinstance(first, BalanceMLA):
            model.audio_brff, model.visual_brff = first.audio_brff, first.visual_brff


def branch(model: FusionModel, modality: str) -> Branch:
    found = model.get_submodule(modality)
    assert isinstance(found, Branch)  # as all models of FAMILY have
    return found
