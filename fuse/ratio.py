"""The imbalance ratio A:V, audio first: the proportion of the two feature lengths after projection.

*Source:* Sec. 3.1 ("we introduce variability in feature lengths during the fusion stage"). The paper does not say whether the
total length stays; here it does by default ("fixed-total"), so that a ratio is not confounded with the model's size.
"""

import math
import re
from typing import NamedTuple

from ..store.errors import UnknownName, UsageError

MODES = ("fixed-total", "fixed-base")
LARGEST_PART = 64  # a width of 512 shared among 8 heads has no more steps than this
FORM = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")


class Ratio(NamedTuple):
    """Lowest terms: 2:4 is 1:2."""

    audio: int
    visual: int

    def __str__(self) -> str:
        return f"{self.audio}:{self.visual}"


def parse_ratio(text: str) -> Ratio:
    """Reads "A:V". Raises UsageError for anything but two whole numbers from 1 to LARGEST_PART in lowest terms."""
    match = FORM.fullmatch(text.strip())
    parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(parts) < 1:
        raise UsageError(
            f'ratio "{text}": expected two whole numbers A:V of at least 1, audio first, such as 1:2 '
            "(a modality can be left out with the models transformer-ao and transformer-vo)"
        )
    divisor = math.gcd(*parts)
    ratio = Ratio(parts[0] // divisor, parts[1] // divisor)
    if max(ratio) > LARGEST_PART:
        raise UsageError(f'ratio "{text}": too unequal, expected parts from 1 to {LARGEST_PART}')
    return ratio


def widths(ratio: Ratio, base: int, heads: int, mode: str = "fixed-total") -> tuple[int, int]:
    """Feature lengths (d_a, d_v) for a ratio, both positive multiples of the number of heads.

    Args:
        base: d, the length at 1:1 of either modality; a multiple of `heads`.
        mode: "fixed-total" keeps d_a + d_v = 2 d; "fixed-base" keeps the shorter side at d and lengthens the other.
    """
    if mode not in MODES:
        raise UnknownName("ratio mode", mode, MODES)
    if mode == "fixed-base":
        low = min(ratio)
        return base * ratio.audio // low // heads * heads, base * ratio.visual // low // heads * heads
    units = 2 * base // heads
    audio = math.floor(units * ratio.audio / sum(ratio) + 0.5)
    audio = min(max(audio, 1), units - 1)
    return audio * heads, (units - audio) * heads


def describe_widths(ratio: Ratio, base: int, heads: int, mode: str = "fixed-total") -> str:
    """One line for the user: the lengths, and by how much rounding to the heads moved the ratio."""
    audio, visual = widths(ratio, base, heads, mode)
    line = f"ratio {ratio}: {audio} audio + {visual} visual features"
    if audio * ratio.visual != visual * ratio.audio:
        line += f" (rounded to multiples of {heads} heads: 1:{visual / audio:.3g} instead of 1:{ratio.visual / ratio.audio:.3g})"
    return line
