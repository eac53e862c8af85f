"""From a published checkpoint to a safetensors file.

The file holds the model's tensors in float32 and, as text, what they are: the model's name and config, and the name and
SHA-256 of the checkpoint. The same checkpoint gives the same bytes.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from ...store.errors import BmlaError, UsageError
from .checkpoint import read_checkpoint
from .match import Match, match, problem, report_lines
from .table import UPSTREAMS, Upstream

ABOUT = "bmla"  # one entry of text: safetensors writes several in any order
FORMAT = 1


def convert(
    checkpoint: Path,
    name: str,
    target: Path,
    tell: Callable[[str], None],
    upstreams: Mapping[str, Upstream] = UPSTREAMS,
    every_key: bool = False,
) -> Match:
    """Writes the safetensors file.

    Args:
        name: which published model it is.
        target: the file to write.
        tell: gets the report line by line, also where the conversion fails.
        every_key: see `match.report_lines`.

    Raises:
        WeightsNotFound, UsageError, BmlaError: the checkpoint can't be read or is not this model; nothing is written.
    """
    upstream = upstreams[name]
    if target.exists():
        raise UsageError(f"{target}: there is something already: remove it, or name another file with --out")
    read = read_checkpoint(checkpoint)
    found = match(read, upstream)
    for line in report_lines(found, every_key):
        tell(line)
    if not found.fits:
        raise BmlaError(f"{read.name}: is not {name} as published: {problem(found)}; nothing was written")
    tensors = {key: found.tensors[key].float().contiguous().clone() for key in sorted(found.tensors)}
    if bad := next((key for key, value in tensors.items() if not torch.isfinite(value).all()), None):
        raise BmlaError(f"{read.name}: {bad} holds numbers that are none (NaN or infinite); nothing was written")
    about = {
        "format": FORMAT,
        "model": name,
        "config": dict(upstream.config),
        "checkpoint": read.name,
        "checkpoint_sha256": read.sha256,
    }
    beside = target.with_name(f".{target.name}.part")
    try:
        beside.write_bytes(save(tensors, {ABOUT: json.dumps(about, sort_keys=True)}))
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BmlaError(f"{target}: can't be written ({error.strerror})") from error
    return found
