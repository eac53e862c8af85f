"""The generated data set of `bmla demo`: LRW's layout, ten words, one portrait, synthetic voices (see extract/demo)."""

from pathlib import Path
from typing import Any

from .base import DataSet
from .lrw import LrwOptions, read_words
from .options import options_from


def demo(root: Path, **options: Any) -> DataSet:
    """All clips under `root`. Raises UsageError: nothing was generated there; unknown options."""
    notes = (
        "GENERATED data: an animated portrait and a speech synthesiser; it shows that the path works, nothing about real speech",
    )
    return read_words("demo", root, options_from(LrwOptions, options, "demo"), notes)
