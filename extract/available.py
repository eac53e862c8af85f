"""Which streams can be made with the weights that are on this machine."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..store.errors import WeightsNotFound
from .encoders.table import TABLE
from .weights import HF_DEFAULTS, find_facenet, find_hf_folder, find_upstream, find_vgg16

FINDERS: dict[str, Callable[[Sequence[Path]], Path]] = {
    **{stream: partial(find_hf_folder, model) for stream, model in HF_DEFAULTS.items()},
    "face.vggface2": partial(find_facenet, "vggface2"),
    "face.casia": partial(find_facenet, "casia-webface"),
    "face.vgg16": find_vgg16,
    **{f"{part}.avhubert": partial(find_upstream, "avhubert-base") for part in ("audio", "mouth", "av")},
    **{
        f"{part}.{name}": partial(find_upstream, name)
        for name in ("avbert", "mavil")
        for part in ("audio", "video", "av")
    },
}


def default_streams(folders: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The streams that are made where the user names none, in the table's order: those that can be, those that can't.

    `face.dlib` stands in for `face.vggface2`: it needs no weights, but half a second of a core for each second of video, which is more than
    all other work on the CPU. So it is made only where the other can't be.
    """
    wanted = [name for name, entry in TABLE.items() if entry.by_default]
    there = {name for name in wanted if can_make(name, folders)}
    missing = [name for name in wanted if name not in there]
    if "face.vggface2" in there:
        there.remove("face.dlib")
    return [name for name in wanted if name in there], missing


def can_make(stream: str, folders: Sequence[Path]) -> bool:
    """Whether the stream's default weights, if it needs any, are in one of the folders and caches."""
    if not TABLE[stream].needs_weights:
        return True
    try:
        FINDERS[stream](folders)
    except WeightsNotFound:
        return False
    return True
