"""A published checkpoint's tensors and settings, read without running or importing anything that it names.

fairseq and others save whole objects (omegaconf, argparse, dictionaries of words) beside the tensors, which torch's
`weights_only` refuses. Then the file is read again by an unpickler that admits tensors and plain containers and puts an
inert object in the place of everything else: its class is never looked up, what it holds can be read.

*Source:* "Restricting Globals" in Python's documentation of pickle.
"""

import pickle
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...store.errors import BmlaError, WeightsNotFound
from ..weights import first_line, sha256_of

STATES = ("model", "state_dict")  # where the tensors lie: in fairseq's files and MAViL's, in AVBERT's
SETTINGS = ("cfg", "args")
DEEPEST = 16  # objects in objects, for one value
UNREADABLE = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, IndexError, OSError, ImportError)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it lies on disk.

    Attributes:
        name: of the file.
        sha256: of the file.
        tensors: by the names that the file gives them.
        settings: what the file says of the model: see `setting`.
    """

    name: str
    sha256: str
    tensors: dict[str, Tensor]
    settings: Any

    def setting(self, *path: str) -> Any:
        """A plain value of the settings, such as `setting("model", "encoder_layers")`; None where it says nothing."""
        node = self.settings
        for key in path:
            node = unwrapped(node)
            node = node.get(key) if isinstance(node, Mapping) else None
        node = unwrapped(node)
        return node if isinstance(node, str | int | float | bool) else None


class Plain(dict[Any, Any]):
    """Stands for OrderedDict, which may carry attributes."""

    def __setstate__(self, state: Any) -> None: ...


class Inert:
    """Stands for an object of any other class: keeps what it was made of, does nothing."""

    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *args: Any, **words: Any) -> "Inert":
        made = super().__new__(cls)
        made.args, made.state, made.items = args, None, {}
        return made

    def __init__(self, *args: Any, **words: Any): ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **words: Any) -> "Inert":
        return Inert(*args)

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a file that `torch.save` wrote.

    Raises:
        WeightsNotFound: there is no such file.
        BmlaError: it can't be read, or holds no tensors by name.
    """
    if not path.is_file():
        raise WeightsNotFound(f"{path}: there is no such file: expected a published checkpoint (.pt, .pth, .pyth)")
    content = _load(path)
    tensors = _tensors(content)
    if not tensors:
        raise BmlaError(f"{path.name}: expected tensors by name, alone or under {' or '.join(STATES)}; found none")
    settings = next((content[key] for key in SETTINGS if key in content), None) if isinstance(content, dict) else None
    return Checkpoint(path.name, sha256_of(path), tensors, settings)


def unwrapped(node: Any) -> Any:
    """What an inert object stands for: a dictionary of another class, omegaconf's nodes, a Namespace, an Enum's member."""
    for _ in range(DEEPEST):
        if not isinstance(node, Inert):
            return node
        state = node.state
        if node.items:
            node = node.items
        elif isinstance(state, Mapping):
            inner = next((key for key in ("_content", "_val") if key in state), None)
            node = state if inner is None else state[inner]
        else:
            node = node.args[0] if state is None and len(node.args) == 1 else None
    return None


def _load(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    if tarfile.is_tarfile(path) or (zipped and _is_program(path)):
        raise BmlaError(f"{path.name}: is a program or an archive, expected tensors as `torch.save` writes them")
    words: dict[str, Any] = {"map_location": "cpu", "mmap": zipped}  # files of before torch 1.6 can't be mapped
    try:
        return torch.load(path, weights_only=True, **words)
    except (pickle.UnpicklingError, *UNREADABLE):
        pass  # holds other objects, or nothing that can be read
    module = SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=_load_inert)
    try:
        return torch.load(path, weights_only=False, pickle_module=module, **words)
    except (pickle.UnpicklingError, *UNREADABLE) as error:
        raise BmlaError(f"{path.name}: can't be read as a torch checkpoint ({first_line(error)})") from error


def _is_program(path: Path) -> bool:
    """Whether it is TorchScript, which torch would load by running it."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in file.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise BmlaError(f"{path.name}: can't be read as a torch checkpoint ({first_line(error)})") from error


class _Unpickler(pickle.Unpickler):
    """Admits what tensors are made of. torch itself answers for storages, before this is asked."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return Plain
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            rebuild = getattr(torch._utils, name)
            return lambda *args: rebuild(*args)  # a function of its own: whatever is set on it is set on nothing else
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *rest: data
        return type("Inert", (Inert,), {})


def _load_inert(file: Any, **words: Any) -> Any:
    return _Unpickler(file, **words).load()


def _tensors(content: Any) -> dict[str, Tensor]:
    """The named tensors of the file, wherever they lie."""
    for place in _places(content):
        found = {k: v for k, v in place.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if found:
            return found
    return {}


def _places(content: Any) -> Iterator[Mapping[Any, Any]]:
    if isinstance(content, Mapping):
        yield from (content[key] for key in STATES if isinstance(content.get(key), Mapping))
        yield content
