"""Runs that are being trained, as the states say that they keep so as to go on after a kill.

A state is written whole, at most every ten seconds (`unfinished.EVERY_S`): a reader never sees half an epoch, and what it sees is what a
killed run would go on from. Only a state's text is read, none of its weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...store.errors import BmlaError
from ..config import RunConfig
from ..progress import describe
from ..unfinished import FOLDER, NAME, Unfinished

MOST_EPOCHS = 100_000


@dataclass(frozen=True)
class Training:
    """One unfinished run.

    Attributes:
        name: of its folder.
        config: its settings.
        history: one entry an epoch, as in metrics.jsonl.
        kept_s: when its last state was kept, in seconds since 1970; of a killed run it stays what it is.
    """

    name: str
    config: RunConfig
    history: list[dict[str, Any]]
    kept_s: float

    @property
    def label(self) -> str:
        return describe(self.config)

    @property
    def dev_accuracy(self) -> float | None:
        value = self.history[-1].get("dev_accuracy")
        return value if isinstance(value, float) else None


def trainings(folder: Path) -> list[Training]:
    """Those under a folder of runs, by name. What can't be read, or is finished by now, counts as none."""
    found = [read_training(path) for path in sorted((folder / FOLDER).glob(f"*/{NAME}"))]
    return [t for t in found if t is not None and not (folder / t.name / "config.json").is_file()]


def read_training(path: Path) -> Training | None:
    document = Unfinished(path.parent).document()
    try:
        kept = path.stat().st_mtime
        if document is None or "config" not in document:
            return None
        config, history = RunConfig.from_dict(document["config"]), document["history"]
    except (OSError, KeyError, TypeError, ValueError, BmlaError):
        return None
    if not isinstance(history, list) or not 0 < len(history) <= MOST_EPOCHS:
        return None
    if not all(isinstance(epoch, dict) for epoch in history):
        return None
    return Training(path.parent.name, config, history, kept)
