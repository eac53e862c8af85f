"""What shaped a stream's numbers: the stream specification, stored with the stream and compared before anything joins.

No machine path and no device index goes in: the same specification on the same clips means the same features.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import prod
from typing import Any

from .errors import StoreError, UsageError
from .sealing import digest_json

STREAM_NAME = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9][a-z0-9_-]*)+(@[a-z0-9][a-z0-9=._,-]*)?")
MODALITIES = ("audio", "visual", "audio-visual")
DTYPES = ("float16", "float32", "uint8")
SHOWN = 200  # letters of a value in a message: some hold a bit a clip
LARGEST_FEATURE = 1 << 26  # numbers a step: a colour picture of 4,700 x 4,700 pixels


def check_stream_name(name: str) -> str:
    """Returns the name; raises UsageError where it could not be a folder's name in a store."""
    if len(name) > 100 or not STREAM_NAME.fullmatch(name) or ".." in name:
        raise UsageError(f'"{name}" is no stream name: expected two words joined by a dot, such as audio.hubert')
    return name


@dataclass(frozen=True)
class StreamSpec:
    """The specification of one stream of features.

    Attributes:
        name: such as "audio.hubert" or "mouth.dct".
        modality: "audio", "visual" or, of a model that takes both at once, "audio-visual".
        encoder: the encoder's name in bmla's table.
        dtype: of the stored values.
        feature_shape: shape of one step: (L,) or (H, W).
        rate_hz: steps per second.
        frame_law: how many steps a clip has, in words and symbols.
        weights: where the encoder has some: {"source": …, "sha256": …} or {"random_seed": s}.
        parameters: the encoder's own (layer, window, …).
        crop: the crop's policy and geometry; None for sound.
        detector: name, weights' SHA-256 and thresholds of what found the faces and landmarks; None for sound.
        noise: the noise variant; None for the clip as it is.
        source: the stream and the run that a derived stream was computed from; None otherwise.
        versions: of bmla and of every library that touched the numbers.
    """

    name: str
    modality: str
    encoder: str
    dtype: str
    feature_shape: tuple[int, ...]
    rate_hz: float
    frame_law: str
    weights: dict[str, Any] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    crop: dict[str, Any] | None = None
    detector: dict[str, Any] | None = None
    noise: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_stream_name(self.name)
        for value, known, what in ((self.modality, MODALITIES, "modality"), (self.dtype, DTYPES, "dtype")):
            if value not in known:
                raise StoreError(f'stream {self.name}: {what} "{value}" is not one of {", ".join(known)}')
        if not self.feature_shape or not all(isinstance(n, int) and 0 < n <= 1 << 20 for n in self.feature_shape):
            raise StoreError(f"stream {self.name}: feature shape {self.feature_shape} is not one of positive integers")
        if prod(self.feature_shape) > LARGEST_FEATURE:
            raise StoreError(
                f"stream {self.name}: a step of {prod(self.feature_shape)} numbers, at most {LARGEST_FEATURE}"
            )
        if not 0 < self.rate_hz <= 1e5:
            raise StoreError(f"stream {self.name}: rate {self.rate_hz} Hz is not positive")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StreamSpec":
        """Raises StoreError for unknown or missing keys and for values of another type, naming them."""
        known = {f.name for f in fields(cls)}
        required = {"name", "modality", "encoder", "dtype", "feature_shape", "rate_hz", "frame_law"}
        if unknown := sorted(set(values) - known):
            raise StoreError(f"stream specification: unknown keys {unknown}")
        if missing := sorted(required - set(values)):
            raise StoreError(f"stream specification: missing keys {missing}")
        for key in ("name", "modality", "encoder", "dtype", "frame_law"):
            if not isinstance(values[key], str):
                raise StoreError(f"stream specification: {key} is {values[key]!r}, expected text")
        if not isinstance(values["rate_hz"], int | float) or not isinstance(values["feature_shape"], list | tuple):
            raise StoreError("stream specification: rate_hz must be a number and feature_shape a list")
        for key in ("weights", "parameters", "crop", "detector", "noise", "source", "versions"):
            if not isinstance(values.get(key), dict | None):
                raise StoreError(f"stream specification: {key} is {values[key]!r}, expected an object")
        return cls(**{**values, "feature_shape": tuple(values["feature_shape"])})

    def digest(self) -> str:
        """SHA-256 of the canonical JSON text."""
        return digest_json(self.to_dict())


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two nested mappings differ: lines such as `parameters.layer: 9 here, 12 there`."""
    lines = []
    for key in sorted({*a, *b}):
        left, right, name = a.get(key), b.get(key), f"{prefix}{key}"
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += differences(left, right, f"{name}.")
        elif left != right:
            lines.append(f"{name}: {left!r:.{SHOWN}} here, {right!r:.{SHOWN}} there")
    return lines
