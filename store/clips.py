"""The clip table: one row a clip, the same columns for every data set, kept as `clips.parquet`.

The row number is the clip's index n in every stream. `digest` depends on the values alone, not on the parquet
writer's version, so two machines that list the same data set agree on it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import StoreError, UnknownName

SPLITS = ("train", "dev", "test")

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("label", pa.string()),
        ("split", pa.string()),
        ("speaker", pa.string()),
        ("group", pa.string()),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        ("video", pa.string()),
        ("audio", pa.string()),
        ("fps", pa.float64()),
        ("crop_x", pa.int32()),
        ("crop_y", pa.int32()),
        ("crop_w", pa.int32()),
        ("crop_h", pa.int32()),
        ("word_start_s", pa.float64()),
        ("word_end_s", pa.float64()),
        ("text", pa.string()),
        ("audio_offset_s", pa.float64()),
    ]
)
# Newer than the first stores of format 1: written and digested only where some clip has a value.
LATER = ("audio_offset_s",)


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled item: what is cut out of which files.

    Attributes:
        id: unique in the data set and stable between machines.
        start_s, end_s: the cut, in seconds of presentation time from the start of the file.
        label: class name; None where unknown.
        split: "train", "dev", "test" or None.
        speaker: None where the data set does not say.
        group: clips cut from one recording share it; no group is ever in two splits.
        video, audio: sources relative to the data root, with forward slashes; None where there is none. `video` may
            be a folder of numbered images, which needs `fps`. Sound inside the video file: audio == video.
        crop_x, crop_y, crop_w, crop_h: the part of the picture that belongs to this clip (pixels); None: all of it.
        word_start_s, word_end_s: the word inside the cut, in seconds from the start of the cut; None where unknown.
        audio_offset_s: where the sound file begins, in seconds on the picture's timeline, on which start_s and end_s
            count; for sound that was cut out of the recording beforehand. None: both begin together.
    """

    id: str
    start_s: float
    end_s: float
    label: str | None = None
    split: str | None = None
    speaker: str | None = None
    group: str | None = None
    video: str | None = None
    audio: str | None = None
    fps: float | None = None
    crop_x: int | None = None
    crop_y: int | None = None
    crop_w: int | None = None
    crop_h: int | None = None
    word_start_s: float | None = None
    word_end_s: float | None = None
    text: str | None = None
    audio_offset_s: float | None = None

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def sound_cut(self) -> tuple[float, float]:
        """start_s and end_s in the sound file's own time."""
        if self.audio_offset_s is None:
            return self.start_s, self.end_s
        # Rounded: a cut at the file's very start must not come out a hair before it.
        return round(self.start_s - self.audio_offset_s, 9), round(self.end_s - self.audio_offset_s, 9)

    @property
    def crop(self) -> tuple[int, int, int, int] | None:
        """x, y, width, height in pixels; None: the whole picture."""
        if self.crop_x is None or self.crop_y is None or self.crop_w is None or self.crop_h is None:
            return None
        return self.crop_x, self.crop_y, self.crop_w, self.crop_h


class ClipTable:
    """N clips as columns. Row number = index of the clip in every stream."""

    def __init__(self, table: pa.Table):
        if not table.schema.equals(SCHEMA):
            missing = [f.name for f in SCHEMA if f not in list(table.schema)]
            extra = [f.name for f in table.schema if f not in list(SCHEMA)]
            raise StoreError(
                f"clip table: columns do not fit format 1: missing or of another type {missing}, unknown {extra}"
            )
        self.table = table.combine_chunks()

    @classmethod
    def from_clips(cls, clips: Iterable[Clip]) -> "ClipTable":
        """Raises StoreError for a repeated id or a cut that ends before it starts, naming the clip."""
        rows = list(clips)
        columns = {f.name: [getattr(c, f.name) for c in rows] for f in SCHEMA}
        table = cls(pa.table(columns, schema=SCHEMA))
        table.check()
        return table

    @classmethod
    def from_parquet(cls, data: bytes) -> "ClipTable":
        """Raises StoreError where the bytes are no clip table. No two ids are equal, so each takes a byte of the file at
        least: one that claims more clips than bytes is not unpacked."""
        try:
            file = pq.ParquetFile(pa.BufferReader(data))
            if file.metadata.num_rows > len(data):
                raise StoreError(f"clip table: {file.metadata.num_rows} clips can't be in {len(data)} bytes")
            table = file.read()
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"clip table: cannot be read ({error})") from error
        for name in LATER:
            if name not in table.schema.names:
                table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
        clips = cls(table.cast(SCHEMA) if table.schema.names == SCHEMA.names else table)
        clips.check()
        return clips

    def to_parquet(self) -> bytes:
        """The bytes of `clips.parquet`."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table.select(self.kept_columns()), sink, compression="zstd", write_page_checksum=True)
        return sink.getvalue().to_pybytes()

    def kept_columns(self) -> list[str]:
        """The columns that are written and digested: all but those of `LATER` that no clip has a value in."""
        return [name for name in SCHEMA.names if name not in LATER or self.table[name].null_count < len(self)]

    def check(self) -> None:
        """Raises StoreError where a row breaks a rule that readers rely on."""
        ids = self.table["id"]
        if self.table.select(["id"]).group_by("id").aggregate([]).num_rows != len(self):
            repeated = [v["values"] for v in pc.value_counts(ids).to_pylist() if v["counts"] > 1]
            raise StoreError(f'clip table: id "{repeated[0]}" stands more than once; ids must be unique')
        bad = np.flatnonzero(~(self.column("end_s") > self.column("start_s")) | ~(self.column("start_s") >= 0))
        if len(bad):
            c = self[int(bad[0])]
            raise StoreError(f'clip "{c.id}": the cut {c.start_s} to {c.end_s} s is empty or starts before 0')
        known = {None, *SPLITS}
        other = set(pc.unique(self.table["split"]).to_pylist()) - known
        if other:
            raise StoreError(f"clip table: unknown split {sorted(map(str, other))}; expected train, dev, test or none")

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> Clip:
        return Clip(**{f.name: self.table[f.name][index].as_py() for f in fields(Clip)})

    def rows(self, indices: Sequence[int]) -> list[Clip]:
        return [Clip(**row) for row in self.table.take(pa.array(indices, pa.int64())).to_pylist()]

    def column(self, name: str) -> np.ndarray:
        """One column as a numpy array: numbers as float64 with NaN, text as objects with None."""
        return self.table[name].to_numpy(zero_copy_only=False)

    def indices(self, split: str | None) -> np.ndarray:
        """Row numbers (int64, ascending) of one split; of all clips for None."""
        if split is None:
            return np.arange(len(self))
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS)
        return np.flatnonzero(self.column("split") == split)

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """(N,) int64 class indices; -1 where the label is unknown or not in `classes`."""
        found = pc.index_in(self.table["label"], value_set=pa.array(list(classes), pa.string()))
        return found.fill_null(-1).to_numpy().astype(np.int64)

    def counts(self, name: str) -> dict[str, int]:
        """How many clips have each value of a text column, sorted by value; "-" stands for no value."""
        pairs = pc.value_counts(self.table[name].fill_null("-")).to_pylist()
        return dict(sorted((p["values"], p["counts"]) for p in pairs))

    def select(self, indices: Sequence[int] | np.ndarray) -> "ClipTable":
        return ClipTable(self.table.take(pa.array(indices, pa.int64())))

    def digest(self) -> str:
        """SHA-256 over the values of the kept columns, independent of how parquet lays them out."""
        h = hashlib.sha256()
        for field in map(SCHEMA.field, self.kept_columns()):
            array = self.table[field.name].combine_chunks()
            h.update(f"{field.name}:{field.type}:{len(array)}\n".encode())
            h.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
            if pa.types.is_string(field.type):
                filled = array.fill_null("")
                h.update(pc.binary_length(filled).to_numpy().astype("<i8").tobytes())
                h.update("".join(filled.to_pylist()).encode())
            else:
                kind = "<f8" if pa.types.is_floating(field.type) else "<i8"
                h.update(array.fill_null(0).to_numpy().astype(kind).tobytes())
        return h.hexdigest()


def as_dict(clip: Clip) -> dict[str, object]:
    """The clip's columns without those that are None."""
    return {k: v for k, v in asdict(clip).items() if v is not None}
