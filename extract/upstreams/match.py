"""A checkpoint's keys and shapes against those that a model needs, and the report on it."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...store.errors import UsageError
from .checkpoint import Checkpoint
from .table import Upstream

Key = tuple[str, tuple[int, ...]]  # name and shape

COUNTER = "num_batches_tracked"  # of BatchNorm, for training alone
LISTED = 40  # keys of one kind that a report names one by one


@dataclass(frozen=True)
class Match:
    """What was found.

    Attributes:
        prefix: that stands before the model's keys in the checkpoint.
        tensors: the model's, by its own names, where name and shape fit.
        missing: needed, and not there.
        wrong: there with another shape: key, shape there, shape expected.
        strange: beside the needed ones, in a part that the model computes with: name and shape.
        unused: of training or of other parts: name and shape.
        unlike: where numbers contradict each other, such as a part that is repeated with others; a sentence each.
        settings: path, value there (None: the checkpoint does not say), value expected.
    """

    prefix: str
    tensors: dict[str, Tensor]
    missing: tuple[Key, ...]
    wrong: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    strange: tuple[Key, ...]
    unused: tuple[Key, ...]
    unlike: tuple[str, ...]
    settings: tuple[tuple[str, Any, Any], ...]

    @property
    def fits(self) -> bool:
        """Whether the model can be made of it, and would be the published one."""
        other = any(there is not None and there != wanted for _, there, wanted in self.settings)
        return not (self.missing or self.wrong or self.strange or self.unlike or other)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all that a model keeps, without counters."""
    return {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.endswith(COUNTER)}


def match(checkpoint: Checkpoint, upstream: Upstream) -> Match:
    """Compares, changes nothing.

    Raises:
        UsageError: the checkpoint is of another family altogether.
    """
    with torch.device("meta"):
        expected = shapes_of(upstream.build(upstream.config))
    prefix = next((p for p in upstream.prefixes if p + upstream.mark in checkpoint.tensors), None)
    if prefix is None:
        some = ", ".join(sorted(checkpoint.tensors)[:3])
        raise UsageError(
            f"{checkpoint.name}: is no checkpoint of {upstream.family}: expected the key {upstream.mark}, alone or behind "
            f"{' or '.join(p for p in upstream.prefixes if p)}; it has {len(checkpoint.tensors)} keys such as {some}"
        )
    parts = {name.split(".")[0] for name in expected}
    tensors: dict[str, Tensor] = {}
    wrong, unlike = [], []
    strange: list[Key] = []
    unused: list[Key] = []
    for key, tensor in checkpoint.tensors.items():
        name, shape = key.removeprefix(prefix), tuple(tensor.shape)
        original = _original(name, upstream)
        if not key.startswith(prefix) or name.endswith(COUNTER):
            unused.append((key, shape))
        elif original is not None:
            same = checkpoint.tensors.get(prefix + original)
            if same is None or not torch.equal(same, tensor):
                unlike.append(f"{name} is not {original}, as it should be")
        elif name not in expected:
            known = upstream.unused.fullmatch(name) or name.split(".")[0] not in parts
            (unused if known else strange).append((name, shape))
        elif shape != expected[name]:
            wrong.append((name, shape, expected[name]))
        elif not tensor.is_floating_point():
            unlike.append(f"{name} is {tensor.dtype}, where weights are floating-point numbers")
        else:
            tensors[name] = tensor
    if upstream.contradictions:  # it computes with what is not the model's and with what fits
        whole = {
            key.removeprefix(prefix): tensor for key, tensor in checkpoint.tensors.items() if key.startswith(prefix)
        }
        unlike += upstream.contradictions({k: v for k, v in whole.items() if k in tensors or k not in expected})
    there = {key.removeprefix(prefix) for key in checkpoint.tensors if key.startswith(prefix)}
    return Match(
        prefix=prefix,
        tensors=tensors,
        missing=tuple((k, s) for k, s in expected.items() if k not in there),
        wrong=tuple(wrong),
        strange=tuple(strange),
        unused=tuple(unused),
        unlike=tuple(unlike),
        settings=tuple(_settings(checkpoint, upstream)),
    )


def report_lines(found: Match, every_key: bool = False) -> Iterator[str]:
    """The report as a person reads it: the keys that are not used as they are, each with its shape.

    Args:
        every_key: however many they are; otherwise the first LISTED of a kind, and unused ones by their first word.
    """
    most = sys.maxsize if every_key else LISTED
    prefix = f' behind "{found.prefix}"' if found.prefix else ""
    yield f"{len(found.tensors)} keys are the model's{prefix}"
    for what, rows in (
        ("missing", [(key, f"expected {shape}") for key, shape in found.missing]),
        ("wrong shape", [(key, f"{got}, expected {want}") for key, got, want in found.wrong]),
        ("not known", [(key, str(shape)) for key, shape in found.strange]),
        ("contradiction", [(text, "") for text in found.unlike]),
    ):
        yield from _table(what, rows, most)
    if every_key:
        yield from _table("not used", [(key, str(shape)) for key, shape in found.unused], most)
    else:
        yield from _groups(found.unused)
    for path, there, wanted in found.settings:
        if there is None:
            yield f"  {path}: not in the checkpoint, taken to be {wanted!r}"
        else:
            yield f"  {path}: {there!r}" + ("" if there == wanted else f", expected {wanted!r}")


def problem(found: Match) -> str:
    """Why it does not fit, in a few words."""
    counts = [
        (len(found.missing), "keys missing"),
        (len(found.wrong), "of another shape"),
        (len(found.strange), "not known"),
        (len(found.unlike), "contradictions"),
        (sum(there is not None and there != wanted for _, there, wanted in found.settings), "settings unlike"),
    ]
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def _original(name: str, upstream: Upstream) -> str | None:
    for alias, original in upstream.aliases.items():
        if name.startswith(alias):
            return original + name.removeprefix(alias)
    return None


def _settings(checkpoint: Checkpoint, upstream: Upstream) -> Iterator[tuple[str, Any, Any]]:
    for path, wanted in upstream.expected:
        there = checkpoint.setting(*upstream.inside, *path) if upstream.inside else None
        yield ".".join(path), checkpoint.setting(*path) if there is None else there, wanted


def _table(what: str, rows: list[tuple[str, str]], most: int) -> Iterator[str]:
    if not rows:
        return
    yield f"{what}: {len(rows)}"
    width = max(len(key) for key, _ in rows[:most])
    for key, text in rows[:most]:
        yield f"  {key:<{width}}  {text}".rstrip()
    if len(rows) > most:
        yield f"  and {len(rows) - most} more (--every-key names them)"


def _groups(rows: tuple[Key, ...]) -> Iterator[str]:
    """Unused keys: alone where there are few, by their first words where there are many."""
    if not rows:
        return
    yield f"not used: {len(rows)}"
    counters = sum(key.endswith(COUNTER) for key, _ in rows)
    counted = Counter(key.split(".")[0] for key, _ in rows if not key.endswith(COUNTER))
    for first, count in sorted(counted.items()):
        if count == 1:
            key, shape = next((k, s) for k, s in rows if k.split(".")[0] == first and not k.endswith(COUNTER))
            yield f"  {key}  {shape}"
        else:
            yield f"  {first}.*  {count} keys"
    if counters:
        yield f"  *.{COUNTER}  {counters} keys"
