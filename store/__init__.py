"""The feature store: clips, streams, shards and the ledger that says what is done (format 1).

The names are loaded when they are first used: `bmla --help` needs the errors of this package, but not zarr and pyarrow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .read import Packed
    from .reading.reader import Reader, TierChoice
    from .store import Store, create_store, open_store

__all__ = ["Packed", "Reader", "Store", "TierChoice", "create_store", "open_store"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import read, store

    return getattr(read if name == "Packed" else store, name)
