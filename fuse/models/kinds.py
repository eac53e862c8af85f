"""What one step of a stream may be, and which models take it. Light: no torch."""

from collections.abc import Sequence

VECTORS, PIXELS, STACKS = "vectors", "pixels", "stacks"
KINDS = {
    VECTORS: "one vector a step",  # (l,) floats
    PIXELS: "a picture a step",  # (height, width) or (height, width, 3) uint8
    STACKS: "several vectors a step",  # (k, l) floats: a spectrum and its derivatives, or the layers of a network
}


def kind_of(shape: Sequence[int], pixels: bool) -> str | None:
    """Of KINDS; None for what no model takes.

    Args:
        shape: of a step.
        pixels: its numbers are uint8.
    """
    if pixels:
        return PIXELS if len(shape) == 2 or (len(shape) == 3 and shape[2] == 3) else None
    return {1: VECTORS, 2: STACKS}.get(len(shape))


def describe(kinds: Sequence[str]) -> str:
    """For a person."""
    return " or ".join(KINDS[kind] for kind in kinds)
