"""A converted model from a file on this machine; or a small one of seeded random weights, for trials.

Nothing that the file says is believed: its config is the table's, and every name and shape is compared.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ...store.errors import BmlaError, UnknownName, UsageError
from ..weights import UPSTREAM_FILES, find_upstream, first_line, sha256_of
from .convert import ABOUT, FORMAT
from .match import shapes_of
from .table import RANDOM_MODELS, UPSTREAMS, Upstream

RANDOM = "random:"
RANDOM_SEED = 0


@dataclass(frozen=True)
class Loaded:
    """A loaded model, a torch module that has its config, and where it came from (as in the stream specification)."""

    model: Any
    weights: dict[str, Any]


_in_use: "WeakValueDictionary[tuple[object, ...], Loaded]" = WeakValueDictionary()


def open_upstream(model: str | None, family: str, folders: Sequence[Path], device: str = "cpu") -> Loaded:
    """Loads a model from this machine alone. Streams of one model share it: it is loaded once, for as long as one of them lives.

    Args:
        model: a name of `weights.UPSTREAM_FILES`, a converted file, or a name of `RANDOM_MODELS` behind "random:"; None:
            the family's first.
        folders: where converted files are looked for.
        device: that it will be moved to; there it is shared.

    Raises:
        WeightsNotFound: naming the file, its source and how to get it.
        UnknownName, UsageError, BmlaError.
    """
    known = [name for name in UPSTREAM_FILES if UPSTREAMS[name].family == family]
    name = model or known[0]
    if name.startswith(RANDOM):
        return random_upstream(name.removeprefix(RANDOM), family)
    path = find_upstream(name, folders) if name in known else Path(name)
    if not path.is_file():
        raise UnknownName(f"{family} model", name, [*known, "or a file that `bmla weights convert` wrote"])
    file = path.stat()
    key = (path.resolve(), file.st_mtime_ns, file.st_size, family, device)
    loaded = _in_use.get(key)
    if loaded is None:
        loaded = _in_use[key] = load(path, family)
    return loaded


def random_upstream(name: str, family: str) -> Loaded:
    """Seeded random weights: for trials of the machinery, never a stand-in for trained ones."""
    known = {n: u for n, u in RANDOM_MODELS.items() if u.family == family}
    if name not in known:
        raise UnknownName("random model", RANDOM + name, [RANDOM + n for n in known])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model = known[name].build(known[name].config)
    return Loaded(model.eval(), {"source": RANDOM + name, "random_seed": RANDOM_SEED})


def load(path: Path, family: str, upstreams: Mapping[str, Upstream] = UPSTREAMS) -> Loaded:
    """Loads a converted model. Its config is the table's, not what the file says.

    Raises:
        UsageError: the file is of another family, or no converted file.
        BmlaError: it can't be read, or does not hold the model's tensors.
    """
    try:
        with safe_open(path, "pt") as file:
            about = _about(file.metadata())
            names = sorted(name for name, u in upstreams.items() if u.family == family)
            if about.get("format") != FORMAT or about.get("model") not in names:
                what = about.get("model") or "something else"
                raise UsageError(
                    f"{path.name}: holds {what}, expected one of {', '.join(names)} as `bmla weights convert` writes it"
                )
            upstream = upstreams[about["model"]]
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise BmlaError(
            f"{path.name}: can't be read as safetensors ({first_line(error)}); a published checkpoint is converted "
            f"first: bmla weights convert {path.name} --as NAME"
        ) from error
    with torch.device("meta"):
        model = upstream.build(upstream.config)
    expected = shapes_of(model)
    if odd := sorted(key for key, value in tensors.items() if value.dtype != torch.float32):
        raise BmlaError(
            f"{path.name}: {odd[0]} is {tensors[odd[0]].dtype}, expected float32 as `bmla weights convert` writes"
        )
    if {key: tuple(value.shape) for key, value in tensors.items()} != expected:
        odd = sorted(
            {k for k in {*expected, *tensors} if k not in tensors or expected.get(k) != tuple(tensors[k].shape)}
        )
        raise BmlaError(f"{path.name}: does not hold {about['model']}: {len(odd)} tensors differ, such as {odd[0]}")
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.num_batches_tracked = None  # counts in training
    model.load_state_dict(tensors, strict=False, assign=True)  # names were compared; torch itself adds the counters
    weights = {
        "source": str(about.get("checkpoint")),
        "model": about["model"],
        "sha256": str(about.get("checkpoint_sha256")),
        "safetensors_sha256": sha256_of(path),
    }
    return Loaded(model.eval(), weights)


def _about(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What the converter wrote of a file; {} where somebody else did."""
    try:
        about = json.loads((metadata or {}).get(ABOUT, "{}"))
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
