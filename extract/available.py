"""Which streams can be made with the weights that are on this machine."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..store.errors import WeightsNotFound
from .encoders.table import TABLE
from .weights import HUBERT, find_facenet, find_hf_folder

FINDERS: dict[str, Callable[[Sequence[Path]], Path]] = {
    "audio.hubert": lambda folders: find_hf_folder(HUBERT, folders),
    "face.vggface2": lambda folders: find_facenet("vggface2", folders),
}


def missing_streams(folders: Sequence[Path]) -> list[str]:
    """Streams whose default weights are in none of the folders and caches, in the table's order."""
    return [name for name, entry in TABLE.items() if entry.needs_weights and not _found(name, folders)]


def _found(stream: str, folders: Sequence[Path]) -> bool:
    try:
        FINDERS[stream](folders)
    except WeightsNotFound:
        return False
    return True
