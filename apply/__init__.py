"""A trained run outside of training: its answers about raw clips, and what goes with a model that leaves the laboratory.

The one place where `extract` and `fuse` meet: above both, below the commands.
"""

from .cuts import Cut
from .loaded import LoadedRun, load_run

__all__ = ["Cut", "LoadedRun", "load_run"]
