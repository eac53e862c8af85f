"""What runs were trained and tested on, for a report: from the features where they are loaded, else from what the runs say."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..store.errors import UsageError
from .data import Features
from .run import Run
from .summary import Summary


@dataclass(frozen=True)
class StreamFacts:
    """A stream: its name, features a step, steps a second, and the digest of its specification."""

    name: str
    length: int
    rate_hz: float
    digest: str


@dataclass(frozen=True)
class Facts:
    """The data of a report.

    Attributes:
        dataset, task: of the store.
        classes: how many.
        digests: of the features; models of one modality may have been trained on features of their own.
        streams: audio first.
        clips: by split; those that are known.
        notes: about the splits.
    """

    dataset: str
    task: str
    classes: int
    digests: tuple[str, ...]
    streams: tuple[StreamFacts, ...]
    clips: dict[str, int]
    notes: tuple[str, ...]


def facts_of_features(features: Features) -> Facts:
    """Of features that are loaded."""
    streams = (s for s in (features.audio, features.visual) if s is not None)
    return Facts(
        features.dataset,
        features.task,
        len(features.classes),
        (features.digest,),
        tuple(StreamFacts(s.name, s.input.length, s.rate_hz, s.digest) for s in streams),
        {split: int((features.split == split).sum()) for split in ("train", "dev", "test")},
        features.notes,
    )


def facts_of_runs(summary: Summary) -> Facts:
    """Of runs alone; the number of training clips is not among what they say."""
    runs = [run for runs in summary.runs for run in runs]
    check_same_data(runs)
    features = [run.document["features"] for run in runs]
    streams = {(m, s["digest"]): s for f in features for m, s in f["streams"].items()}
    clips = {} if any(run.config.folds for run in runs) else {"dev": max(run.scores["dev"]["clips"] for run in runs)}
    return Facts(
        str(features[0]["dataset"]),
        str(features[0]["task"]),
        len(runs[0].classes),
        tuple(sorted({str(f["digest"]) for f in features})),
        tuple(
            StreamFacts(s["name"], s["length"], s["rate_hz"], s["digest"])
            for _, s in sorted(streams.items(), key=lambda item: item[0])
        ),
        {**clips, "test": max(row.clean.clips for row in summary.rows)},
        tuple(dict.fromkeys(note for f in features for note in f.get("notes", ()))),
    )


def check_same_data(runs: Sequence[Run]) -> None:
    """Raises UsageError unless all are of one data set and have the same classes."""
    for what, values in (
        ("data sets", {str(run.document["features"]["dataset"]): run for run in runs}),
        ("classes", {run.classes: run for run in runs}),
    ):
        if len(values) > 1:
            first, second = list(values.values())[:2]
            raise UsageError(f"runs of different {what} make no table: {first.path} and {second.path}; give one kind")
