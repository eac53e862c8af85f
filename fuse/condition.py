"""What a trained model is tested under: as the clips are, with noise in a stream, or without a modality.

    clean   audio.logspec@white=0   audio.logspec@white=0 + mouth.dct@blur=4   no-visual

Nothing is trained for it: the same weights answer about other versions of the same test clips.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..store.errors import UsageError
from .models.base import MODALITIES

JOIN = " + "
HIDE = "no-"


@dataclass(frozen=True)
class Condition:
    """Attributes:
    variants: noise variants that take their stream's place, at most one of a modality.
    hidden: modalities that the model is not shown.
    """

    variants: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def __str__(self) -> str:
        return JOIN.join([*self.variants, *(HIDE + m for m in self.hidden)]) or "clean"

    def seen_by(self, streams: Mapping[str, str]) -> "Condition":
        """What of it concerns a model of these streams, by modality. To a model of sound alone, blurred pictures are clean."""
        return Condition(
            tuple(v for v in self.variants if v.partition("@")[0] in streams.values()),
            tuple(m for m in self.hidden if m in streams),
        )


CLEAN = Condition()
DECIBELS = ("white", "babble", "file")  # noise whose number is a signal-to-noise ratio: less is worse


def hides(word: str) -> bool:
    """Whether a word of a condition hides a modality."""
    return word in {HIDE + m for m in MODALITIES}


def parse_condition(text: str) -> Condition:
    """Reads what `str` writes. Raises UsageError for a modality twice, or both hidden."""
    words = [word.strip() for word in text.split(JOIN.strip()) if word.strip()]
    hidden = tuple(m for m in MODALITIES if HIDE + m in words)
    variants = tuple(word for word in words if word != str(CLEAN) and not hides(word))
    bases = [v.partition("@")[0] for v in variants]
    if strange := [v for v in variants if "@" not in v]:
        raise UsageError(
            f'test condition "{text}": {strange[0]} is no noise variant; expected such as audio.logspec@white=0, '
            "no-audio, no-visual, or several joined by +"
        )
    if len(hidden) == len(MODALITIES) or len(set(bases)) < len(bases):
        raise UsageError(f'test condition "{text}": expected at most one noise of each stream, and one modality left')
    return Condition(variants, hidden)


def expand(patterns: Sequence[str], streams: Sequence[str], used: Iterable[str]) -> list[str]:
    """Noise variants by name or pattern, in the order of the store's names.

    Args:
        patterns: names, patterns such as `audio.logspec@*`, or "all"; each may join several with +.
        streams: all that the store has.
        used: the streams that they may be variants of.

    Raises:
        UsageError: a pattern that none fits; says which there are.
    """
    bases = set(used)
    variants = [s for s in streams if "@" in s and s.partition("@")[0] in bases]
    found: list[str] = []
    for pattern in (word.strip() for text in patterns for word in text.split(JOIN.strip())):
        fitting = variants if pattern == "all" else [v for v in variants if fnmatchcase(v, pattern)]
        if not fitting:
            raise UsageError(f'"{pattern}": no such noise variant here; there are: {", ".join(variants) or "none"}')
        found += fitting
    return [v for v in variants if v in set(found)]


def strength(variant: str) -> float:
    """How bad a noise variant is, to sort by: the last number in its name, of a ratio in dB its negative."""
    kind, _, value = variant.rpartition("@")[2].rpartition(",")[2].partition("=")
    try:
        return -float(value) if kind in DECIBELS else float(value)
    except ValueError:
        return 0.0


def place_in_table(name: str) -> tuple[bool, int, list[tuple[str, float]], str]:
    """To sort conditions by: clean, noise by name and strength, hidden modalities last."""
    condition = parse_condition(name)
    kinds = [(v.partition("=")[0], strength(v)) for v in condition.variants]
    return bool(condition.hidden), len(condition.variants), kinds, name


def noise_series(conditions: Sequence[str]) -> dict[str, list[tuple[float, str]]]:
    """By stream and kind of noise: number and condition, the mildest first; of conditions with one noise and all modalities."""
    series: dict[str, list[tuple[float, str]]] = {}
    for name in conditions:
        condition = parse_condition(name)
        stream, _, value = name.partition("=")
        if len(condition.variants) == 1 and not condition.hidden and "," not in value:
            with suppress(ValueError):
                series.setdefault(stream, []).append((float(value), name))
    return {stream: sorted(points, key=lambda p: strength(p[1])) for stream, points in series.items()}
