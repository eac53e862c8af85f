"""The table of noises, and noise variants of streams: `audio.hubert@mask=0.4` is `audio.hubert` of masked sound.

A stream's name ends with `@kind=value` or, applied in this order, `@kind=value,kind=value`. Importing this loads no
picture or media library.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...store.clips import Clip
from ...store.errors import UnknownName, UsageError
from ...store.spec import check_stream_name
from ..encoders import table as encoders
from ..encoders.base import Both, Sight, Sound
from .base import Context, Noise, rng_of

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")

Taken = TypeVar("Taken", Sound, Sight, Both)


@dataclass(frozen=True)
class Kind:
    """One kind of noise.

    Attributes:
        modality: "audio" or "visual".
        meaning: of the value, with its unit.
        low, high: the values that make sense, both included.
        description: one line, with the source.
        builder: value and context to the noise; heavy imports happen inside.
    """

    modality: str
    meaning: str
    low: float
    high: float
    description: str
    builder: Callable[[float, Context], Noise]


@dataclass(frozen=True)
class Part:
    """One noise of a variant: its kind in the table and its strength."""

    kind: str
    value: float

    def build(self, context: Context) -> Noise:
        return TABLE[self.kind].builder(self.value, context)


@dataclass(frozen=True)
class Variant:
    """What is done to a clip's sound or sight before it is encoded: the parts, one after the other."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        """As in a stream's name, after the @."""
        return ",".join(f"{part.kind}={_text(part.value)}" for part in self.parts)

    @property
    def modalities(self) -> set[str]:
        return {TABLE[part.kind].modality for part in self.parts}

    def describe(self, context: Context) -> dict[str, Any]:
        """The stream specification's `noise`: all that shapes it, no path. The clip's id is part of its seed.

        Raises:
            UsageError, MediaError: the context lacks what the noise needs (the noise file, the clips).
        """
        return {
            "seed": context.seed,
            "generator": "numpy default_rng of SHA-256 of [seed, kind, clip id]",
            "parts": [
                {
                    "kind": part.kind,
                    "value": part.value,
                    "meaning": TABLE[part.kind].meaning,
                    **part.build(context).describe(),
                }
                for part in self.parts
            ],
        }


def parse(name: str) -> tuple[str, Variant | None]:
    """A stream's name to the stream that its encoder is found by, and the noise; None for the clip as it is.

    Raises:
        UnknownName: no such encoder, or no such kind of noise.
        UsageError: a noise of the other modality, the same kind twice, a value out of range or written another way.
    """
    base, at, text = check_stream_name(name).partition("@")
    modality = encoders.find(base).modality
    if not at:
        return base, None
    parts = tuple(_part(name, modality, item) for item in text.split(","))
    kinds = [part.kind for part in parts]
    if repeated := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise UsageError(f"{name}: noise {repeated[0]} stands more than once; expected each kind at most once")
    return base, Variant(parts)


def apply(variant: Variant, clip: Clip, taken: Taken, context: Context) -> Taken:
    """The clip's sound or sight with the noise in it, of both the one that the noise is for; as many samples or frames as before.

    `taken` itself is not changed.

    Depends on the clip, what was taken of it and the context alone: not on other clips of a batch or their order.

    Raises:
        MediaError: this clip can't be given this noise; becomes the clip's failure record.
        UsageError: the context lacks what the noise needs.
    """
    for part in variant.parts:
        added, rng = part.build(context), rng_of(context.seed, part.kind, clip.id)
        if isinstance(taken, Both):
            of = "sound" if TABLE[part.kind].modality == "audio" else "sight"
            taken = replace(taken, **{of: added.add(getattr(taken, of), clip, rng)})
        else:
            taken = added.add(taken, clip, rng)
    return taken


def _part(name: str, modality: str, item: str) -> Part:
    kind, _, text = item.partition("=")
    if kind not in TABLE:
        raise UnknownName(f"noise in {name}:", kind, list(TABLE))
    entry = TABLE[kind]
    if entry.modality not in modality.split("-"):  # a stream of both may have either noise
        fitting = ", ".join(k for k, e in TABLE.items() if e.modality == modality)
        raise UsageError(f"{name}: {kind} is {entry.modality} noise, the stream is {modality}; known for it: {fitting}")
    expected = f"expected {_text(entry.low)} to {_text(entry.high)} ({entry.meaning})"
    if not NUMBER.fullmatch(text) or _text(float(text)) != text:  # one noise has one name
        raise UsageError(f'{name}: {kind} is "{text}"; {expected}, as a plain decimal number without needless zeros')
    if not entry.low <= float(text) <= entry.high:
        raise UsageError(f"{name}: {kind}={text} is out of range; {expected}")
    return Part(kind, float(text))


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _mask(value: float, context: Context) -> Noise:
    from .frequency import FrequencyMask

    return FrequencyMask(value)


def _white(value: float, context: Context) -> Noise:
    from .mixing import White

    return White(value)


def _babble(value: float, context: Context) -> Noise:
    from .mixing import Babble

    return Babble(value, context.talkers)


def _file(value: float, context: Context) -> Noise:
    from .mixing import FromFile

    return FromFile(value, context.recording)


def _blur(value: float, context: Context) -> Noise:
    from .pictures import Blur

    return Blur(value)


def _occlude(value: float, context: Context) -> Noise:
    from .pictures import Occlude

    return Occlude(value)


def _dark(value: float, context: Context) -> Noise:
    from .pictures import Dark

    return Dark(value)


def _drop(value: float, context: Context) -> Noise:
    from .pictures import Drop

    return Drop(value)


TABLE: dict[str, Kind] = {
    "mask": Kind(
        modality="audio",
        meaning="mask factor: share of the frequency axis that is zeroed",
        low=0,
        high=1,
        description="frequency masking of the waveform's STFT (the paper, section 4.1.2 and Figure 3; Park et al. 2019)",
        builder=_mask,
    ),
    "white": Kind(
        modality="audio",
        meaning="signal-to-noise ratio in dB",
        low=-30,
        high=60,
        description="Gaussian white noise (ours)",
        builder=_white,
    ),
    "babble": Kind(
        modality="audio",
        meaning="signal-to-noise ratio in dB",
        low=-30,
        high=60,
        description="eight other clips of the data set speak at once (after Shi et al. 2022; Simpson and Cooke 2005)",
        builder=_babble,
    ),
    "file": Kind(
        modality="audio",
        meaning="signal-to-noise ratio in dB",
        low=-30,
        high=60,
        description="a stretch of a recording of noise that you give (ours)",
        builder=_file,
    ),
    "blur": Kind(
        modality="visual",
        meaning="sigma of a Gaussian blur in percent of the face's size",
        low=0,
        high=50,
        description="pictures out of focus (ours)",
        builder=_blur,
    ),
    "occlude": Kind(
        modality="visual",
        meaning="share of the face box that a patch around the mouth covers",
        low=0,
        high=1,
        description="a grey patch in front of the mouth that goes with the head (ours)",
        builder=_occlude,
    ),
    "dark": Kind(
        modality="visual",
        meaning="share of the light that is taken away",
        low=0,
        high=1,
        description="low light with the shot and read noise of a small sensor (ours)",
        builder=_dark,
    ),
    "drop": Kind(
        modality="visual",
        meaning="share of the frames that are lost",
        low=0,
        high=1,
        description="lost frames: not valid, the one before is shown again (ours)",
        builder=_drop,
    ),
}
