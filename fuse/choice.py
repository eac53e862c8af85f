"""Which streams of a store are fused where the user names none."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..store.errors import UsageError
from .data import fitting_streams, kind_of_stream
from .fold_streams import stored_names
from .models.kinds import VECTORS, describe
from .models.table import common_kinds

if TYPE_CHECKING:
    from ..store import Store

# Best first. Sound: self-supervised speech features before spectra (Sec. 3.1). Sight: Sec. 4.1.2 gives emotion the whole face and
# lip reading the mouth.
AUDIO = ("audio.hubert", "audio.logspec", "audio.logspec-cube")
VISUAL = {
    "emotion": ("face.vggface2", "face.dlib", "mouth.dct", "face.roi", "mouth.roi"),
    "lip reading": ("mouth.dct", "face.vggface2", "face.dlib", "mouth.roi", "face.roi"),
}


def choose_streams(
    store: "Store", modalities: tuple[str, ...], audio: str | None, visual: str | None, models: Sequence[str] = ()
) -> dict[str, str]:
    """The stream of each modality that is needed: the one asked for, else the best-known one in the store.

    Args:
        models: that will be trained on them, which says what a step may be; none named: vectors.

    Raises:
        UsageError: the store has no stream for a modality that all models take.
    """
    preferred = {"audio": AUDIO, "visual": VISUAL.get(store.task, VISUAL["lip reading"])}
    chosen = {}
    for modality in modalities:
        asked = {"audio": audio, "visual": visual}[modality]
        kinds = common_kinds(models, modality)
        fitting = fitting_streams(store, modality, kinds)
        if asked is None and not fitting:
            there = ", ".join(store.streams()) or "none"
            raise UsageError(f"{store.path}: no {modality} stream of {describe(kinds)} to train on; streams: {there}")
        best = [name for name in preferred[modality] if name in fitting]
        known = sorted(best, key=lambda name: kinds.index(str(kind_of_stream(store.spec(name)))))
        clean = [name for name in fitting if "@" not in name]  # a noise variant only where there is nothing else
        chosen[modality] = asked or (known + clean + fitting)[0]
    return chosen


def needs_front(store: "Store", streams: Iterable[str], folds: int = 0) -> bool:
    """Whether a step of some stream is no vector, so that a front end has to make it one.

    A stream that the store lacks is passed over: whoever loads it says so.

    Args:
        folds: of the cross-validation that they are for: a name may then stand for a stream of each fold.
    """
    there = store.streams()
    parts = [part for name in streams for part in stored_names(name, there, folds) if part in there]
    return any(kind_of_stream(store.spec(part)) != VECTORS for part in parts)
