"""What becomes of an error: a record of one clip's failure, or the end of the extraction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..store.clips import Clip
from ..store.ledger import Failure

# No clip's fault: stops the extraction. A GPU that has failed once fails in every later call.
NO_CLIPS_FAULT = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
MESSAGE_CHARS = 300


def attempt(clip: Clip, step: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """The work's result, or the record of its failure. One bad clip must not end the extraction of a million."""
    try:
        return work(*arguments)
    except NO_CLIPS_FAULT:
        raise
    except Exception as error:
        return failure(clip, step, error)


def failure(clip: Clip, step: str, error: Exception) -> Failure:
    text = str(error)
    if isinstance(error, OSError) and error.filename:  # its own text holds the whole path, which is this machine's
        text = f"{Path(str(error.filename)).name}: {error.strerror}"
    return Failure(clip.id, step, type(error).__name__, " ".join(text.split())[:MESSAGE_CHARS])
