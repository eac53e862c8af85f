"""Models of the user's own on the command line: `own:package.module:ClassName`, imported by name as the user says.

The working folder is looked into first, as Python itself does for a script there. Nothing else is imported: no run and no store can
name code that bmla would load.
"""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..store.errors import UsageError

if TYPE_CHECKING:
    from ..fuse.config import RunConfig
    from ..fuse.data import Features
    from ..fuse.models.own import Builder

FORM = "own:package.module:ClassName"


def own_models(names: tuple[str, ...]) -> "dict[str, Builder]":
    """What makes each model that is the user's own. Raises UsageError where there is none of that name."""
    from ..fuse.models.table import OWN

    return {name: imported(name) for name in names if name.startswith(OWN)}


def imported(name: str) -> "Builder":
    parts = name.split(":")
    if len(parts) != 3 or not all(word.isidentifier() for word in (*parts[1].split("."), *parts[2].split("."))):
        raise UsageError(f"--model {name}: expected {FORM}")
    _, module, path = parts
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Builder = importlib.import_module(module)  # type: ignore[assignment]
        for word in path.split("."):
            found = getattr(found, word)
    except Exception as error:
        raise UsageError(f"--model {name}: {type(error).__name__}: {error} (looked in {here} first)") from error
    if not callable(found):
        raise UsageError(f"--model {name}: {path} is {type(found).__name__}, expected a class or a function")
    return found


def with_sources(configs: "list[RunConfig]", builders: "dict[str, Builder]", features: "Features") -> "list[RunConfig]":
    """The same runs, those of the user's own models with what stands for their source."""
    if not builders:
        return configs
    from ..fuse.models.own import identity
    from ..fuse.models.table import check_inputs, takes

    marked = {}
    for name, builder in builders.items():
        inputs = {m: features.stream(m).input for m in takes(name)}
        check_inputs(name, inputs)
        marked[name] = identity(builder, inputs, len(features.classes))
    return [replace(c, own=marked[c.model]) if c.model in marked else c for c in configs]
