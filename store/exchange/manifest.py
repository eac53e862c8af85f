"""What an export says of itself, beside its arrays: two sealed JSON documents, so that an import knows everything.

The root's names the store's identity, the layout and the streams; a stream's its specification, failures and content.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import StoreError
from ..head import COMPRESSIONS, LARGEST_STEPS
from ..identity import Identity
from ..ledger import Failure
from ..quality import Quality, check_quality
from ..sealing import sealed, to_json, unsealed
from ..spec import StreamSpec, check_stream_name

FORMAT = 1
PACKED, PADDED, SAMPLES = "packed", "padded", "samples"


@dataclass(frozen=True)
class Manifest:
    """The root's document.

    Attributes:
        identity: of the store that an import of this export makes; that of the exported store, unless `split` is set.
        layout: "packed" (clips end to end), "padded" (n x T) or "samples" (one a clip).
        split: the only split that was exported; None: all clips.
        store_digest: `Store.digest` of the exported store and these streams.
        streams: their names, sorted.
    """

    identity: Identity
    layout: str
    split: str | None
    store_digest: str
    streams: tuple[str, ...]

    def to_json(self) -> bytes:
        content = {**vars(self), "exchange": FORMAT, "identity": sealed(self.identity.to_dict())}
        return to_json(sealed({**content, "streams": list(self.streams)}))

    @classmethod
    def from_json(cls, text: bytes, where: str) -> "Manifest":
        """Raises StoreError where this is no export's document, or one of a newer format."""
        raw = parse(text, where)
        if raw.get("exchange") != FORMAT:
            raise StoreError(f"{where}: an export of format {raw.get('exchange')!r}; this bmla reads format {FORMAT}")
        identity = Identity.from_dict(raw.get("identity"), where)
        names, layout = raw.get("streams"), raw.get("layout")
        if layout not in (PACKED, PADDED, SAMPLES) or not isinstance(names, list):
            raise StoreError(f"{where}: damaged: layout {layout!r}, streams {names!r}")
        if not all(isinstance(name, str) for name in names):
            raise StoreError(f"{where}: damaged: a stream's name is no text")
        streams = tuple(sorted({check_stream_name(name) for name in names}))
        return cls(identity, layout, raw.get("split"), str(raw.get("store_digest")), streams)


@dataclass(frozen=True)
class StreamManifest:
    """A stream's document.

    Attributes:
        steps: T that the store's arrays can hold.
        compression: of the store's arrays.
        failures: one a clip that has no features, in the order of the clips.
        content: digest of all values and validity, see `ContentDigest`.
        quality: facts on the clips' material, one number or None a clip of the export; left out where there are none.
    """

    spec: StreamSpec
    steps: int
    compression: str
    failures: tuple[Failure, ...]
    content: str
    quality: Quality = field(default_factory=dict)

    def to_json(self) -> bytes:
        content = {**vars(self), "spec": self.spec.to_dict(), "failures": [asdict(f) for f in self.failures]}
        if not self.quality:
            del content["quality"]
        return to_json(sealed(content))

    @classmethod
    def from_json(cls, text: bytes, stream: str, where: str, clips: int) -> "StreamManifest":
        """Raises StoreError where this is not the document of this stream of an export of so many clips."""
        raw = parse(text, where)
        try:
            manifest = cls(
                spec=StreamSpec.from_dict(raw["spec"]),
                steps=raw["steps"],
                compression=raw["compression"],
                failures=tuple(Failure(**f) for f in raw["failures"]),
                content=raw["content"],
                quality=check_quality(raw.get("quality", {}), clips),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(f"{where}: damaged ({type(error).__name__}: {error})") from error
        texts = [t for f in manifest.failures for t in asdict(f).values()]
        if not all(isinstance(t, str) for t in (*texts, manifest.content)):
            raise StoreError(f"{where}: damaged: a failure or the content's digest is no text")
        if manifest.spec.name != stream:
            raise StoreError(f"{where}: the specification is that of {manifest.spec.name}, expected {stream}")
        if (
            type(manifest.steps) is not int
            or not 1 <= manifest.steps <= LARGEST_STEPS
            or manifest.compression not in COMPRESSIONS
        ):
            raise StoreError(f"{where}: damaged: steps {manifest.steps!r}, compression {manifest.compression!r}")
        return manifest


class ContentDigest:
    """SHA-256 over the finished clips in order, whatever the layout: row and steps (int64), values, validity."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, row: int, values: np.ndarray, valid: np.ndarray) -> None:
        for array in (np.array([row, len(values)], np.int64), values, valid):
            self._sha256.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).data)

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def parse(text: bytes, where: str) -> dict[str, Any]:
    """Sealed JSON from a stranger. Raises StoreError where it is none."""
    try:
        return unsealed(json.loads(text), where)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, NaN, or nested without end
        raise StoreError(f"{where}: damaged, or no export of bmla ({type(error).__name__})") from error
