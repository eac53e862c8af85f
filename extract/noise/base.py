"""What every kind of noise has in common: its contract, what it may use besides the clip, and its seed per clip."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...store.clips import Clip, ClipTable
from ...store.errors import UsageError

if TYPE_CHECKING:
    from .recording import Recording
    from .talkers import Talkers


class Noise(Protocol):
    """One kind of noise at one strength."""

    def describe(self) -> dict[str, Any]:
        """All that shapes it, for the stream specification; no path."""
        ...

    def add(self, taken: Any, clip: Clip, rng: np.random.Generator) -> Any:
        """A Sound or Sight of the same length with the noise in it. What is given is not changed.

        Raises:
            MediaError: this clip can't be given this noise; becomes the clip's failure record.
        """
        ...


@dataclass(frozen=True)
class Context:
    """What noise may use besides the clip. One object serves a whole extraction: it keeps what it has looked up.

    Attributes:
        seed: the same seed draws the same noise for the same clip, on every machine and in any order.
        file: the recording that `file=` adds; None: there is none.
        clips: the clips whose sound `babble=` is made of; None: there is none.
        other_sound: the sound of the clip in that row of `clips`: (n,) float32 at 16 kHz; raises MediaError.
    """

    seed: int = 0
    file: Path | None = None
    clips: ClipTable | None = None
    other_sound: Callable[[int], np.ndarray] | None = None

    @cached_property
    def recording(self) -> "Recording":
        """Raises UsageError where no noise file is given, MediaError where it can't be read."""
        from .recording import Recording

        if self.file is None:
            raise UsageError("noise file=: no noise file was given; name a recording of noise: --noise-file PATH")
        return Recording(self.file)

    @cached_property
    def talkers(self) -> "Talkers":
        """Raises UsageError where there are no clips to make babble of."""
        from .talkers import Talkers

        if self.clips is None or self.other_sound is None:
            raise UsageError("noise babble=: is made of the voices of a data set's clips; no clips were given")
        return Talkers(self.clips, self.other_sound)


def rng_of(seed: int, kind: str, clip_id: str) -> np.random.Generator:
    """The generator of one clip's noise of one kind. Its strength has no part in it: 10 dB is 20 dB, only louder."""
    key = json.dumps([seed, kind, clip_id], separators=(",", ":")).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest(), "big"))
