"""Fusion of features: models, training, sweeps and their report.

    from bmla.fuse import train, evaluate, load_run      arrays of one's own, a model of one's own: `api.py`

Inside: `choice.choose_streams`, `data.features_from_store` or `arrays.features_from_arrays` -> `Features`; `sweep.grid` and
`sweep.run_sweep` -> `Run`s; `summary.summarise` and `report.write_report`.

The names are loaded when they are first used: settings are listed without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Evaluation, evaluate, load_run, train

__all__ = ["Evaluation", "evaluate", "load_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)
