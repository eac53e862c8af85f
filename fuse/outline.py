"""What a sweep spans, in a line: how many of each axis, how many runs that makes, and how many are done."""

from collections.abc import Collection, Sequence

from .config import RunConfig

# What is counted, and the fields of a run that it is.
AXES = {
    "models": ("model",),
    "sets of parts": ("brff", "adf", "clw"),
    "balance methods": ("balance",),
    "noises to train with": ("augment",),
    "ratios": ("ratio",),
    "folds": ("fold",),
    "seeds": ("seed",),
}


def outline(configs: Sequence[RunConfig], every: Collection[RunConfig], finished: Collection[RunConfig]) -> str:
    """One line.

    Args:
        configs: the runs that are asked for.
        every: these and those that they start or learn from, each once.
        finished: of `every`, what is done already.
    """
    counts = {name: len({tuple(getattr(c, f) for f in fields) for c in configs}) for name, fields in AXES.items()}
    spans = ", ".join(f"{n} {name}" for name, n in counts.items() if n > 1)
    asked = len(set(configs))
    line = f"{asked} run{'s' if asked != 1 else ''}" + (f" of {spans}" if spans else "")
    if before := len(every) - asked:
        line += f", and {before} that they start or learn from"
    return f"sweep: {line}; {len(finished) or 'none'} of {len(every)} done already"
