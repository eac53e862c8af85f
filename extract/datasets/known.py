"""How much the data sets are known to hold, to hold a copy against: by other people's word, so never a reason to fail."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .base import DataSet

READ, COMPUTED, MEMORY = "stated by public sources", "computed from stated counts", "from memory"


@dataclass(frozen=True)
class Known:
    """One count of the whole data set.

    Attributes:
        what: "clips", "classes", "speakers", "split train" or "class ang".
        certainty: READ, COMPUTED or MEMORY.
        when: the adapter's options under which it holds; others do not matter.
    """

    what: str
    count: int
    certainty: str
    when: dict[str, Any] = field(default_factory=dict)


def of_classes(counts: dict[str, int], certainty: str, **when: Any) -> tuple[Known, ...]:
    return tuple(Known(f"class {name}", count, certainty, when) for name, count in counts.items())


def of_splits(train: int, dev: int, test: int, certainty: str, **when: Any) -> tuple[Known, ...]:
    counts = {"train": train, "dev": dev, "test": test}
    return tuple(Known(f"split {name}", count, certainty, when) for name, count in counts.items())


IEMOCAP_6 = {"ang": 1103, "exc": 1041, "fru": 1849, "hap": 595, "neu": 1708, "sad": 1084}
IEMOCAP_9 = {**IEMOCAP_6, "dis": 2, "fea": 40, "sur": 107}
IEMOCAP_4 = {"ang": 1103, "hap": 595 + 1041, "neu": 1708, "sad": 1084}

KNOWN: dict[str, tuple[Known, ...]] = {
    "lrw": (Known("classes", 500, READ), *of_splits(488_766, 25_000, 25_000, MEMORY)),
    "lrw1000": (
        Known("clips", 718_018, COMPUTED),
        Known("classes", 1000, READ),
        *of_splits(603_193, 63_237, 51_588, MEMORY),
    ),
    "grid": (
        Known("classes", 51, READ, {"target": "word"}),
        Known("speakers", 33, MEMORY),  # 34, one of them without video
    ),
    "iemocap": (
        Known("speakers", 10, READ),
        Known("clips", sum(IEMOCAP_4.values()), READ, {"classes": 4}),
        *of_classes(IEMOCAP_4, COMPUTED, classes=4),
        *of_splits(3871, 553, 1107, READ, classes=4, split="paper"),
        Known("clips", sum(IEMOCAP_6.values()), COMPUTED, {"classes": 6}),
        *of_classes(IEMOCAP_6, READ, classes=6),
        Known("clips", sum(IEMOCAP_9.values()), COMPUTED, {"classes": 9}),
        *of_classes(IEMOCAP_9, READ, classes=9),
    ),
    "cremad": (Known("clips", 7442, READ, {"label": "intended"}), Known("speakers", 91, READ)),
    "ravdess": (
        Known("speakers", 24, READ, {"channel": "speech"}),
        Known("clips", 1440, MEMORY, {"channel": "speech"}),
        Known("clips", 1012, MEMORY, {"channel": "song"}),
    ),
    "meld": of_splits(9989, 1109, 2610, READ),  # rows of the tables; one train and one dev clip are not usable
}


@dataclass(frozen=True)
class Comparison:
    """A count as found, beside the known one; known and certainty are None where nothing is known."""

    what: str
    found: int
    known: int | None
    certainty: str | None


def compare(dataset: DataSet) -> list[Comparison]:
    """All counts of the data set: clips, classes, speakers, each split, each class."""
    clips = dataset.clips
    splits = Counter(clip.split for clip in clips)
    labels = Counter(clip.label for clip in clips)
    found = {
        "clips": len(clips),
        "classes": len(dataset.classes),
        "speakers": len({clip.speaker for clip in clips if clip.speaker is not None}),
        **{f"split {name}": splits[name] for name in ("train", "dev", "test")},
        **{f"class {name}": labels[name] for name in dataset.classes},
    }
    known = {
        k.what: k
        for k in KNOWN.get(dataset.name, ())
        if all(dataset.options.get(name) == value for name, value in k.when.items())
    }
    return [
        Comparison(what, count, known[what].count, known[what].certainty)
        if what in known
        else Comparison(what, count, None, None)
        for what, count in found.items()
    ]
