"""Which streams of a store are fused where the user names none."""

from typing import TYPE_CHECKING

from ..store.errors import UsageError
from .data import vector_streams

if TYPE_CHECKING:
    from ..store import Store

# Best first. Sound: self-supervised speech features before spectra (Sec. 3.1). Sight: Sec. 4.1.2 gives emotion the whole face and
# lip reading the mouth.
AUDIO = ("audio.hubert", "audio.logspec")
VISUAL = {
    "emotion": ("face.vggface2", "face.dlib", "mouth.dct"),
    "lip reading": ("mouth.dct", "face.vggface2", "face.dlib"),
}


def choose_streams(
    store: "Store", modalities: tuple[str, ...], audio: str | None, visual: str | None
) -> dict[str, str]:
    """The stream of each modality that is needed: the one asked for, else the best-known one in the store.

    Raises:
        UsageError: the store has no stream of vectors for a modality.
    """
    preferred = {"audio": AUDIO, "visual": VISUAL.get(store.task, VISUAL["lip reading"])}
    chosen = {}
    for modality in modalities:
        asked = {"audio": audio, "visual": visual}[modality]
        fitting = vector_streams(store, modality)
        if asked is None and not fitting:
            there = ", ".join(store.streams()) or "none"
            raise UsageError(f"{store.path}: no {modality} stream of vectors to train on; streams: {there}")
        known = [name for name in preferred[modality] if name in fitting]
        clean = [name for name in fitting if "@" not in name]  # a noise variant only where there is nothing else
        chosen[modality] = asked or (known + clean + fitting)[0]
    return chosen
