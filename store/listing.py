"""A list of a store's files inside the store, for web servers, which cannot list: key -> bytes, sealed."""

from .place import Place
from .sealing import sealed, to_json

KEY = "listing.json"


def write_listing(place: Place) -> None:
    """Lists what is there now, without hidden files and without itself."""
    files = {k: n for k, n in place.sizes("").items() if k != KEY and not k.rsplit("/", 1)[-1].startswith(".")}
    place.write(KEY, to_json(sealed({"files": files})))
