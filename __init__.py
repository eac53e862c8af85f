"""bmla: balanced multimodal learning for audio-visual research."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`bmla.load_run`, which loads torch when it is first asked for; `import bmla` alone loads nothing."""
    if name == "load_run":
        return import_module(".apply", __name__).load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
