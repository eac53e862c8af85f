"""What a user says of arrays that somebody else made: which is what, and where they come from."""

from dataclasses import dataclass

from ..errors import UnknownName, UsageError
from ..spec import DTYPES, MODALITIES, check_stream_name

# What split groups and split columns are called elsewhere, and here.
SPLIT_NAMES = {"train": "train", "dev": "dev", "valid": "dev", "val": "dev", "validation": "dev", "test": "test"}


@dataclass(frozen=True)
class ArrayImport:
    """Keys of arrays in a file, and what they can't say themselves.

    Attributes:
        stream: the name that the features get, such as "audio.mine".
        modality: "audio", "visual" or "audio-visual".
        rate_hz: steps per second.
        values: key of the features: (N, T, *F), (N, layers, T, L) with `layer`, or (steps, *F) with `offsets`.
        dataset, task: names for the store.
        provenance: where the features come from and how they were made, in the user's words.
        lengths: key of (N,) steps of each clip; None: all T.
        offsets: key of (N + 1,): clip i has values[offsets[i]:offsets[i + 1]].
        valid: key of (N, T) or (steps,): the step's own validity; None: all are valid.
        labels: key of (N,) text or whole numbers.
        splits: key of (N,) text.
        ids: key of (N,) text or whole numbers; None: row numbers.
        durations: key of (N,) seconds; None: steps / rate_hz.
        split_groups: the keys are looked up in each of these groups, which name the splits (train, valid, test).
        classes: class names in order; none: those that the labels have, sorted.
        layer: which one of (N, layers, T, L).
        dtype: to convert to; None: float16, float32 and uint8 are kept, float64 becomes float32.
    """

    stream: str
    modality: str
    rate_hz: float
    values: str
    dataset: str
    task: str
    provenance: str
    lengths: str | None = None
    offsets: str | None = None
    valid: str | None = None
    labels: str | None = None
    splits: str | None = None
    ids: str | None = None
    durations: str | None = None
    split_groups: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    layer: int | None = None
    dtype: str | None = None

    def check(self) -> None:
        """Raises UsageError for what contradicts itself."""
        check_stream_name(self.stream)
        if self.modality not in MODALITIES:
            raise UnknownName("modality", self.modality, MODALITIES)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UnknownName("dtype", self.dtype, DTYPES)
        if not 0 < self.rate_hz <= 1e5:
            raise UsageError(f"--rate-hz {self.rate_hz}: expected steps per second, above 0")
        if not self.provenance.strip():
            raise UsageError("--provenance: say in a sentence where these features come from and how they were made")
        if self.offsets and self.lengths:
            raise UsageError(
                "--offsets and --lengths: give one; offsets are for clips end to end, lengths for padded ones"
            )
        if self.offsets and self.layer is not None:
            raise UsageError("--layer: is for padded features (N, layers, T, L), not for --offsets")
        if self.splits and self.split_groups:
            raise UsageError("--splits and --split-groups: give one; the groups name the splits")
        for group in self.split_groups:
            if group.rsplit("/", 1)[-1] not in SPLIT_NAMES:
                raise UnknownName("split group", group, tuple(SPLIT_NAMES))
        if self.classes and not self.labels:
            raise UsageError("--classes: needs --labels")

    def keys(self) -> dict[str, str]:
        """The keys that were given, by what they are."""
        names = ("values", "lengths", "offsets", "valid", "labels", "splits", "ids", "durations")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def path(self, group: str, key: str) -> str:
        """A key's full name in a split group ("" where there are none)."""
        return f"{group}/{key}" if group else key
