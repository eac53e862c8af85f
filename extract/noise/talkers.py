"""Babble: the voices of several other clips at once.

*Source:* ours in detail; mixing other utterances of the corpus as in Shi et al. 2022 ("Robust self-supervised audio-visual
speech recognition"). Eight voices mask consonants most: fewer leave gaps to listen through, more turn into a steady hum
(Simpson and Cooke 2005, "Consonant identification in N-talker babble is a nonmonotonic function of N").

The voices come from the clip's own split, so that no test sound gets into training, and from other speakers where the
clip table names them: see `APART`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...store.clips import Clip, ClipTable
from ...store.errors import MediaError, UsageError

TALKERS = 8
# A voice differs from the clip in the first of these columns that every clip with sound states and that has at least
# two values in every split: other speakers; else other recordings; else other files.
APART = ("speaker", "group", "audio")


class Talkers:
    """Draws voices for a clip out of a clip table.

    Args:
        clips: the table.
        other_sound: (n,) float32 of the clip in that row; raises MediaError.

    Raises:
        UsageError: a split has sound from one file only.
    """

    def __init__(self, clips: ClipTable, other_sound: Callable[[int], np.ndarray]):
        self.other_sound = other_sound
        self.table_sha256 = clips.digest()
        self.rows = np.flatnonzero(clips.table["audio"].is_valid().to_numpy())
        sounding = clips.select(self.rows)
        self.split = sounding.column("split").astype(str)
        self.apart = _apart(sounding, self.split)
        names, self.code = np.unique(sounding.column(self.apart).astype(str), return_inverse=True)
        self.codes = {str(name): code for code, name in enumerate(names)}

    def describe(self) -> dict[str, Any]:
        return {
            "talkers": TALKERS,
            "talkers_drawn": f"clips of the same split and another {self.apart}, at random; fewer where there are fewer",
            "talkers_passed_over": "clips that are silent or cannot be read",
            "levels": "each voice of the same mean square over its whole clip",
            "lengths": "from a random sample on, looped",
            "clip_table_sha256": self.table_sha256,
        }

    def candidates(self, clip: Clip) -> np.ndarray:
        """The rows of the table, ascending, that may speak over this clip."""
        own = self.codes.get(str(getattr(clip, self.apart)))
        if own is None:
            raise UsageError(f'babble: clip "{clip.id}" is not of the clip table, which lacks its {self.apart}')
        return self.rows[(self.split == str(clip.split)) & (self.code != own)]

    def speak(self, clip: Clip, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n,) float64: up to TALKERS voices, each of mean square 1 before it was cut, added up.

        Raises:
            MediaError: no other clip can be heard.
        """
        rows = self.candidates(clip)
        babble, voices, tried = np.zeros(n), 0, set[int]()
        while voices < TALKERS and len(tried) < len(rows):
            row = int(rows[rng.integers(len(rows))])
            if row in tried:
                continue
            tried.add(row)
            try:
                voice = self.other_sound(row).astype(np.float64)
            except MediaError:  # that clip's own failure record tells of it
                continue
            if np.isfinite(voice).all() and voice.any():
                start = rng.integers(len(voice))
                babble += np.take(voice, np.arange(start, start + n), mode="wrap") / np.sqrt(np.mean(voice**2))
                voices += 1
        if not babble.any():
            raise MediaError(f"babble: none of {len(rows)} clips of its split and another {self.apart} can be heard")
        return babble


def _apart(sounding: ClipTable, split: np.ndarray) -> str:
    for column in APART:
        values = sounding.column(column)
        if not any(v is None for v in values) and all(len(set(values[split == s])) > 1 for s in np.unique(split)):
            return column
    lonely = [s for s in np.unique(split) if len(set(sounding.column("audio")[split == s])) < 2]
    raise UsageError(
        f"babble: needs the sound of at least two files in every split; fewer in: {', '.join(lonely) or 'the whole table'}"
    )
