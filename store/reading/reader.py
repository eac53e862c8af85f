"""One call for features wherever they are kept: on the device, in memory, in mapped files, or in shards that do not fit.

    reader = store.reader("audio.hubert", "train")
    print(reader.describe())
    for values, lengths, valid in reader.prefetch(batches):     # batches: arrays of row numbers of the reader
        ...

Shape legend: n clips of the reader, b clips of a batch, T steps of its longest clip, F the shape of one step's feature.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import UnknownName, UsageError
from .device import Resident, free_bytes, on_device
from .files import StreamFiles
from .memory import available_bytes, empty
from .prefetch import prefetch
from .tiers import Mapped, Ram, Rows, Shards, Tier, Validity, load_valid

if TYPE_CHECKING:
    from ..store import Store

SOURCES: dict[str, Callable[[StreamFiles, Rows], Tier]] = {"ram": Ram, "mmap": Mapped, "shard": Shards}
TIERS = ("gpu", *SOURCES)


class Batch(NamedTuple):
    """Some clips, padded to the longest of them.

    Attributes:
        values: (b, T, *F) in the stored dtype; zeros past each clip's length.
        lengths: (b,) int64.
        valid: (b, T) bool: the step's own validity; False past the clip's length.
    """

    values: Any
    lengths: Any
    valid: Any


class Reader:
    """The clips of one stream that have features (of one split), read in batches. Made by `Store.reader`.

    It can be used by several threads, by forked workers, and be handed to spawned ones when they are started.

    Attributes:
        clips: (n,) int64 row numbers in the clip table, ascending; clips that failed are absent.
        lengths: (n,) int64 steps of each.
        tier: one of TIERS.
        device: where batches are made as torch tensors; None: they are numpy arrays.
    """

    def __init__(self, files: StreamFiles, rows: Rows, choice: "TierChoice", device: Any = None):
        self.files, self.rows, self.choice, self.device = files, rows, choice, device
        self.clips, self.lengths, self.tier = rows.clips, rows.lengths, choice.tier
        self.source: Tier | Resident
        if self.tier == "gpu":
            self.source = Resident(files, rows, device)
        else:
            self.source = SOURCES[self.tier](files, rows)
            self.validity = Validity(files, rows)

    def __len__(self) -> int:
        return len(self.clips)

    def describe(self) -> str:
        """One line: what is read from where, and why from there."""
        return self.choice.describe()

    def any_valid(self) -> np.ndarray:
        """(n,) bool: the clip has at least one valid step."""
        valid = np.zeros(self.rows.steps, bool)
        load_valid(self.files, self.rows, valid)
        return np.logical_or.reduceat(valid, self.rows.starts) if len(self) else np.zeros(0, bool)

    def read_many(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Some clips, in the order asked for.

        Args:
            rows: (b,) positions in this reader, 0 to n - 1, in any order; they may repeat.

        Raises:
            UsageError: a row that is not there.
            StoreError: a shard is missing or damaged; names it.
        """
        rows = self.checked(rows)
        if isinstance(self.source, Resident):
            return Batch(*self.source.batch(rows))
        lengths = self.lengths[rows]
        shape = (len(rows), int(lengths.max(initial=0)))
        spec = self.files.head.spec
        what = f"{self.files.place}: a batch of {spec.name}"
        values, valid = empty((*shape, *spec.feature_shape), spec.dtype, what), np.empty(shape, bool)
        if values.size:
            self.source.fill(rows, values)
            self.validity.fill(rows, valid)
            if lengths.min() < shape[1]:
                outside = np.arange(shape[1]) >= lengths[:, None]
                values[outside], valid[outside] = 0, False
        batch = Batch(values, lengths, valid)
        return batch if self.device is None else Batch(*on_device(batch, self.device))

    def prefetch(self, batches: Iterable[Sequence[int] | np.ndarray], depth: int = 2) -> Iterator[Batch]:
        """`read_many` of each batch, in order, up to `depth` batches ahead in a background thread; see `prefetch`."""
        return prefetch(self.read_many, batches, depth)

    def to(self, device: Any) -> "Reader":
        """The same clips, resident on a torch device: batches are tensors there."""
        return Reader(self.files, self.rows, choose(self.files, self.rows, "gpu", None, device), device)

    def checked(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        found = np.asarray(rows)
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise UsageError(f"rows must be a list of integers, got {found.dtype} of shape {found.shape}")
        found = found.astype(np.int64, copy=False)
        if found.size and not (found.min() >= 0 and found.max() < len(self)):
            wrong = found[(found < 0) | (found >= len(self))][0]
            raise UsageError(
                f"row {wrong}: this reader of {self.files.head.spec.name} has {len(self)} clips, from 0 on"
            )
        return found


@dataclass(frozen=True)
class TierChoice:
    """Where a stream's values are kept, and why.

    Attributes:
        stream, clips, dtype: what.
        bytes: of the values without padding.
        tier: one of TIERS.
        why: for a person.
    """

    stream: str
    clips: int
    dtype: str
    bytes: int
    tier: str
    why: str

    def describe(self) -> str:
        """One line."""
        size = f"{self.bytes / 1e9:.2f} GB of {self.dtype}"
        return f"{self.stream}: {self.clips} clips, {size}, tier {self.tier} ({self.why})"


def open_reader(
    store: "Store", stream: str, split: str | None, tier: str, budget_bytes: int | None, device: Any
) -> Reader:
    """See `Store.reader`."""
    files, rows = files_and_rows(store, stream, split)
    return Reader(files, rows, choose(files, rows, tier, budget_bytes, device), device)


def files_and_rows(store: "Store", stream: str, split: str | None) -> tuple[StreamFiles, Rows]:
    """A stream's files and the clips of one split. Raises StreamNotFound, StreamNotDone, StoreError, UnknownName (split)."""
    head = store.head(stream)
    wanted = store.clips.indices(split)
    store.require(stream, wanted)
    files = StreamFiles(store.place, head, store.identity.clips, store.shard_size, list(store.entries(stream)))
    return files, Rows.of(files, wanted)


def choose(files: StreamFiles, rows: Rows, tier: str, budget_bytes: int | None, device: Any) -> TierChoice:
    """The tier asked for or, for "auto", the fastest one that there is room for.

    Raises:
        UnknownName: there is no such tier.
        UsageError: this stream can't be read from it.
    """
    if tier not in ("auto", *TIERS):
        raise UnknownName("tier", tier, ("auto", *TIERS))
    spec, needed = files.head.spec, rows.steps * files.layout.step_bytes
    if tier == "auto":
        tier, why = fastest(files, needed, budget_bytes, device)
    else:
        check_tier(files, tier, device)
        why = "as asked for"
    return TierChoice(spec.name, len(rows.clips), spec.dtype, needed, tier, why)


def fastest(files: StreamFiles, needed_bytes: int, budget_bytes: int | None, device: Any) -> tuple[str, str]:
    """The first tier that there is room for, and why it is that."""
    passes = needed_bytes <= available_bytes()  # on its way to the device it is in memory
    if device is not None and passes and needed_bytes <= (free := free_bytes(device)) // 2:
        return "gpu", f"less than half of the {free / 1e9:.2f} GB free on {device}"
    budget = available_bytes() // 2 if budget_bytes is None else budget_bytes
    if needed_bytes <= budget:
        return "ram", f"fits the memory budget of {budget / 1e9:.2f} GB"
    why = f"more than the memory budget of {budget / 1e9:.2f} GB"
    if files.mappable:
        return "mmap", why
    return "shard", f"{why}, and {'remote' if files.place.remote else 'compressed'}"


def check_tier(files: StreamFiles, tier: str, device: Any) -> None:
    """Raises UsageError where a tier that was asked for can't be."""
    if tier == "gpu" and device is None:
        raise UsageError("tier gpu: say on which device, such as cuda:0 (--gpu 0)")
    if tier == "mmap" and not files.mappable:
        state = "remote" if files.place.remote else "compressed"
        raise UsageError(
            f"tier mmap: stream {files.head.spec.name} of {files.place} is {state}, only uncompressed local shards can be "
            "mapped: use tier ram or shard" + (", or `bmla store pull` it first" if files.place.remote else "")
        )
