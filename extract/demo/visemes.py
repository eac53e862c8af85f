"""Phonemes to the movement of a mouth: timed phones in, (T, 6) shape parameters out.

Each phone pulls the parameters towards its own shape with a strength that fades before and after it; where they
overlap, the stronger wins: co-articulation by dominance functions. *Source:* M. Cohen and D. Massaro, "Modeling
coarticulation in synthetic visual speech" (1993). The shapes follow the usual viseme classes (p b m / f v / th / ...);
the numbers are ours, chosen by eye.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .speech import Phone

SHARPNESS_S = 0.055  # how fast a phone's pull fades
STOP_LEAD_S = 0.02  # eSpeak marks a stop at its burst: the closure comes before


class Viseme(NamedTuple):
    """A mouth shape, and how strongly a phone insists on it.

    Attributes:
        opening: of the lips, 0 to 1 (widest vowel).
        spread: corners apart, 0 to 1 (ee).
        rounding: corners together, lips forward, 0 to 1 (oo).
        press: lips pressed together, 0 to 1 (p, b, m).
        tuck: lower lip under the upper teeth, 0 to 1 (f, v).
        tongue: its tip seen, 0 to 1 (th; less for l).
        strength: of the pull on all parameters; `lips` multiplies it for spread and rounding.
    """

    opening: float
    spread: float = 0.0
    rounding: float = 0.0
    press: float = 0.0
    tuck: float = 0.0
    tongue: float = 0.0
    strength: float = 1.0
    lips: float = 1.0


SHAPE = ("opening", "spread", "rounding", "press", "tuck", "tongue")
REST = Viseme(0.04, press=0.15, strength=0.25)
BILABIAL = Viseme(0.0, press=1.0, strength=7.0, lips=0.06)
LABIODENTAL = Viseme(0.1, tuck=1.0, strength=5.0, lips=0.1)
DENTAL = Viseme(0.3, spread=0.2, tongue=1.0, strength=3.0, lips=0.3)
ALVEOLAR = Viseme(0.22, spread=0.25, tongue=0.2, strength=1.0, lips=0.25)
LATERAL = Viseme(0.35, spread=0.2, tongue=0.6, strength=1.2, lips=0.25)
SIBILANT = Viseme(0.14, spread=0.4, strength=2.0, lips=0.5)
POSTALVEOLAR = Viseme(0.25, rounding=0.65, strength=2.0)
RHOTIC = Viseme(0.25, rounding=0.5, strength=1.2)
GLIDE = Viseme(0.1, rounding=1.0, strength=2.5)
VELAR = Viseme(0.3, strength=0.4, lips=0.3)
OPEN = Viseme(0.95, spread=0.2)
MID = Viseme(0.6, spread=0.4)
CLOSE_FRONT = Viseme(0.32, spread=0.95)
NEAR_FRONT = Viseme(0.38, spread=0.55)
OPEN_BACK = Viseme(0.75, rounding=0.35)
MID_BACK = Viseme(0.55, rounding=0.75)
CLOSE_BACK = Viseme(0.22, rounding=1.0)
NEUTRAL = Viseme(0.42, strength=0.7)
CENTRAL = Viseme(0.42, rounding=0.3)

# eSpeak's names of English phonemes; the longest that begins a phone's name counts ("t#" is a t, "3:r" a 3:).
VISEMES: dict[str, tuple[Viseme, ...]] = {
    **dict.fromkeys(("p", "b", "m"), (BILABIAL,)),
    **dict.fromkeys(("f", "v"), (LABIODENTAL,)),
    **dict.fromkeys(("T", "D"), (DENTAL,)),
    **dict.fromkeys(("t", "d", "n", "?", "*"), (ALVEOLAR,)),
    **dict.fromkeys(("s", "z"), (SIBILANT,)),
    **dict.fromkeys(("S", "Z", "tS", "dZ"), (POSTALVEOLAR,)),
    **dict.fromkeys(("k", "g", "N", "h", "x", "j"), (VELAR,)),
    "l": (LATERAL,),
    "r": (RHOTIC,),
    "w": (GLIDE,),
    **dict.fromkeys(("i", "i:"), (CLOSE_FRONT,)),
    "I": (NEAR_FRONT,),
    **dict.fromkeys(("E", "e"), (MID,)),
    **dict.fromkeys(("a", "aa", "A", "A:"), (OPEN,)),
    **dict.fromkeys(("0", "O"), (OPEN_BACK,)),
    **dict.fromkeys(("O:", "o", "o@"), (MID_BACK,)),
    **dict.fromkeys(("u", "u:"), (CLOSE_BACK,)),
    "U": (MID_BACK,),
    "V": (NEUTRAL._replace(opening=0.6),),
    "@": (NEUTRAL,),
    "3": (CENTRAL,),
    "a#": (NEUTRAL,),
    "I#": (NEUTRAL,),
    "@L": (NEUTRAL, LATERAL),
    "IR": (NEAR_FRONT, RHOTIC),
    "aU": (OPEN, CLOSE_BACK),
    "aI": (OPEN, NEAR_FRONT),
    "eI": (MID, CLOSE_FRONT),
    "OI": (MID_BACK, NEAR_FRONT),
    "oU": (MID_BACK, CLOSE_BACK),
    "i@": (CLOSE_FRONT, NEUTRAL),
    "e@": (MID, NEUTRAL),
    "U@": (CLOSE_BACK, NEUTRAL),
}


def mouth_shapes(phones: Sequence[Phone], moments_s: np.ndarray) -> np.ndarray:
    """The mouth at each moment: (T, 6) float64, columns as in SHAPE, each 0 to 1. At rest long before and after."""
    pulls = [(centre_s, viseme) for phone in phones for centre_s, viseme in _targets(phone)]
    strengths = [np.full(len(moments_s), REST.strength * 0.02)]  # something pulls even far from every phone
    for centre_s, viseme in pulls:
        strengths.append(viseme.strength * np.exp(-np.abs(moments_s - centre_s) / SHARPNESS_S))
    before = np.exp(np.minimum(0, (phones[0].start_s - moments_s) / SHARPNESS_S))  # 1 before the word, fading into it
    after = np.exp(np.minimum(0, (moments_s - phones[-1].end_s) / SHARPNESS_S))
    strengths[0] = strengths[0] + REST.strength * (before + after)
    visemes = [REST, *(viseme for _, viseme in pulls)]
    shapes = np.empty((len(moments_s), len(SHAPE)))
    for column, name in enumerate(SHAPE):
        lips = np.array([v.lips if name in ("spread", "rounding") else 1.0 for v in visemes])
        weights = np.stack(strengths) * lips[:, None]  # (1 + P, T)
        values = np.array([getattr(v, name) for v in visemes])
        shapes[:, column] = (weights * values[:, None]).sum(0) / weights.sum(0)
    return shapes


def viseme_of(name: str) -> tuple[Viseme, ...]:
    """The shapes of a phone, one after the other. Raises KeyError for a name that begins with no known phoneme."""
    for length in range(len(name), 0, -1):
        if name[:length] in VISEMES:
            return VISEMES[name[:length]]
    raise KeyError(f'no mouth shape for the phoneme "{name}"')


def _targets(phone: Phone) -> list[tuple[float, Viseme]]:
    """When each shape of the phone is reached: in the middle of its share of the time, a stop's closure a little before."""
    visemes = viseme_of(phone.name)
    share_s = (phone.end_s - phone.start_s) / len(visemes)
    lead_s = share_s / 2 + STOP_LEAD_S if phone.name[0] in "pb" else 0.0
    return [(phone.start_s + (k + 0.5) * share_s - lead_s, v) for k, v in enumerate(visemes)]
