"""Options that several commands share, and what they mean."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ..store.errors import UsageError

STORES = Path("stores")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
QUIET = click.option("--quiet", is_flag=True, help="No progress and no remarks.")


def echo_json(document: Any) -> None:
    """Results for a program, which are all that stdout gets. ASCII, so that no terminal's encoding is in the way."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--device and --gpu; `device_of` turns them into torch's name."""
    for option in (
        click.option("--gpu", type=int, metavar="N", help="Use GPU number N (the same as --device cuda:N)."),
        click.option("--device", metavar="NAME", help="cpu or cuda:N.  [default: cpu]"),
    ):
        command = option(command)
    return command


def device_of(device: str | None, gpu: int | None) -> str:
    """Raises UsageError where the device is not there, naming those that are."""
    if gpu is not None and device is not None:
        raise UsageError("give --gpu or --device, not both")
    name = f"cuda:{gpu}" if gpu is not None else (device or "cpu")
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UsageError(f'--{"gpu" if gpu is not None else "device"}: "{name}" is no device: expected cpu or cuda:N')
    import torch

    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        there = (
            f"this machine has {count} (numbers 0 to {count - 1})"
            if count
            else "torch finds no CUDA GPU on this machine"
        )
        raise UsageError(f"{name}: no such GPU: {there}; use --device cpu to work without")
    return f"cuda:{int(number or 0)}"


def remote_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--endpoint and --anonymous, for whatever reads or writes a URL; `set_remote` makes them count."""
    for option in (
        click.option("--anonymous", is_flag=True, expose_value=False, callback=set_anonymous, is_eager=True,
                     help="Read public data without credentials."),
        click.option("--endpoint", metavar="URL", expose_value=False, callback=set_endpoint, is_eager=True,
                     help="Of an S3-compatible server, such as http://localhost:9000; also $AWS_ENDPOINT_URL."),
    ):  # fmt: skip
        command = option(command)
    return command


def set_endpoint(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Also reads the variable that Amazon's own tools use."""
    endpoint = value or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        from ..store.place import REMOTE

        REMOTE.endpoint = endpoint


def set_anonymous(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from ..store.place import REMOTE

        REMOTE.anonymous = True


def split_names(values: Sequence[str]) -> tuple[str, ...]:
    """Repeated and comma-separated names as one tuple without repetition, in the order given."""
    return tuple(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def key_values(option: str, values: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE words as a mapping. Raises UsageError for a word without "="."""
    pairs = [v.partition("=") for v in values]
    if bad := [key for key, equals, _ in pairs if not equals or not key]:
        raise UsageError(f'{option}: "{bad[0]}" is not of the form NAME=VALUE')
    return {key: value for key, _, value in pairs}


def byte_count(option: str, text: str) -> int:
    """8GB, 500 MB or 1e9 as bytes; kB, MB, GB and TB are powers of 1000. Raises UsageError for anything else."""
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)b?", text.strip().lower())
    try:
        return round(float(found[1]) * 1000 ** " kmgt".index(found[2] or " "))  # type: ignore[index]
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f'{option}: "{text}" is no size: expected such as 8GB or 500MB') from error


def find_store(given: str | Path | None) -> str | Path:
    """The store that was named (a path or a URL), or else the only one here. Raises UsageError for none or several."""
    if given is not None:
        return given
    found = sorted(p.parent for folder in (Path(), STORES) for p in folder.glob("*/zarr.json"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError("no store here or in stores/: make one with `bmla extract`, or name one with --store")
    raise UsageError(f"several stores here: name one with --store: {', '.join(map(str, found))}")
