"""`bmla store push | pull | merge | diff | ls`: stores between teammates."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..store.errors import UsageError
from .options import JSON, QUIET, echo_json, remote_options, split_names

if TYPE_CHECKING:
    from ..store import Store
    from ..store.transfer import Selection

PUSH_EXAMPLES = """\b
Examples:
  bmla store push stores/lrw.zarr s3://team/lrw.zarr
  bmla store push stores/lrw.zarr /mnt/team/lrw.zarr --stream audio.hubert
"""
PULL_EXAMPLES = """\b
Examples:
  bmla store pull s3://team/lrw.zarr stores/lrw.zarr
  bmla store pull https://data.example.org/lrw.zarr lrw.zarr --stream mouth.dct --split dev --limit 1000
"""
SOURCE = click.argument("source")
TARGET = click.argument("target")


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--stream, --split and --limit; `selection_of` turns them into a Selection."""
    for option in (
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            metavar="N",
            help="Only as many shards as hold N clips, spread evenly.",
        ),
        click.option("--split", metavar="NAME", help="Only shards that hold clips of train, dev or test."),
        click.option(
            "--stream", "streams", multiple=True, metavar="NAME", help="Only these streams, repeatable or with commas."
        ),
    ):
        command = option(command)
    return command


def selection_of(streams: tuple[str, ...], split: str | None, limit: int | None) -> "Selection":
    from ..store.transfer import Selection

    return Selection(split_names(streams) or None, split, limit)


@click.command(epilog=PUSH_EXAMPLES)
@SOURCE
@TARGET
@selection_options
@remote_options
@QUIET
@JSON
def push(
    source: str, target: str, streams: tuple[str, ...], split: str | None, limit: int | None, quiet: bool, as_json: bool
) -> None:
    """Send what the other side lacks, by digest. Killed? Run it again: it goes on."""
    transfer(source, target, selection_of(streams, split, limit), quiet, as_json, listing=True)


@click.command(epilog=PULL_EXAMPLES)
@SOURCE
@TARGET
@selection_options
@remote_options
@QUIET
@JSON
def pull(
    source: str, target: str, streams: tuple[str, ...], split: str | None, limit: int | None, quiet: bool, as_json: bool
) -> None:
    """Fetch a store or a part of it. The part is a valid store that knows what it lacks."""
    from ..store.place import is_url

    if is_url(target):
        raise UsageError(f"{target}: pull fetches to a path; to send to a URL: bmla store push")
    transfer(source, target, selection_of(streams, split, limit), quiet, as_json, listing=False)


@click.command(epilog="\b\nExample:\n  bmla store merge stores/train.zarr stores/test.zarr --into stores/all.zarr\n")
@click.argument("sources", nargs=-1, required=True)
@click.option("--into", required=True, type=click.Path(path_type=Path), help="The store to make.")
@remote_options
@QUIET
@JSON
def merge(sources: tuple[str, ...], into: Path, quiet: bool, as_json: bool) -> None:
    """Make one store of several of one data set: other clips of the same streams, or other streams of the same clips."""
    from ..store import open_store
    from ..store.merge import merge as join
    from .progress import clip_progress

    if len(sources) < 2:
        raise UsageError("merge: give at least two stores")
    opened = [open_store(s) for s in sources]
    with clip_progress(quiet, "merge") as progress:
        progress.begin(0, sum(len(s.clips) for s in opened))
        merged = join(opened, into, progress.advance)
    if as_json:
        echo_json({"store": str(merged.place), "clips": len(merged.clips), "streams": list(merged.streams())})
        return
    click.echo(f"{merged.place}: {len(merged.clips)} clips, {', '.join(merged.streams())}")


@click.command(epilog="\b\nExample:\n  bmla store diff stores/mine.zarr s3://team/lrw.zarr\n")
@click.argument("here")
@click.argument("there")
@remote_options
@JSON
def diff(here: str, there: str, as_json: bool) -> None:
    """How two stores differ: clips, streams, specifications, shards. Exits with 1 where they do."""
    from ..store import open_store
    from ..store.diff import diff as compare

    lines = list(compare(open_store(here), open_store(there)))
    echo_json(lines) if as_json else click.echo("\n".join(lines) or "no difference")
    if lines:
        raise click.exceptions.Exit(1)


@click.command(epilog="\b\nExamples:\n  bmla store ls\n  bmla store ls s3://team --json\n")
@click.argument("path", default="stores")
@remote_options
@JSON
def ls(path: str, as_json: bool) -> None:
    """The stores in a folder or bucket: data set, streams, clips, size, date, provenance."""
    from ..store.catalogue import catalogue
    from ..store.place import is_url

    if not is_url(path) and not Path(path).is_dir():
        raise UsageError(f"{path}: no such folder")
    shelves = list(catalogue(path))
    if as_json:
        echo_json([asdict(s) for s in shelves])
        return
    if not shelves:
        click.echo(f"{path}: no store here", err=True)
    from .tables import shelves_table

    if shelves:
        click.echo(shelves_table(shelves), nl=False)


def transfer(source: str, target: str, selection: "Selection", quiet: bool, as_json: bool, listing: bool) -> None:
    """Moves what `target` lacks under a progress bar; both may be paths or URLs."""
    from contextlib import nullcontext

    from ..store import open_store
    from ..store.listing import write_listing
    from ..store.lock import writer_lock
    from ..store.place import is_url, open_place
    from ..store.transfer import plan_transfer, run_transfer
    from .progress import byte_progress

    store: Store = open_store(source)
    place = open_place(target, read_only=False)
    if not is_url(target):
        Path(target).mkdir(parents=True, exist_ok=True)
    with nullcontext() if is_url(target) else writer_lock(Path(target)):
        plan = plan_transfer(store, place, selection)
        with byte_progress("transfer", plan.bytes, quiet) as bar:
            run_transfer(plan, bar.advance)
        if listing and is_url(target):
            write_listing(place)
    if as_json:
        echo_json({"target": target, "shards": len(plan.items), "bytes": plan.bytes, "present": plan.present})
        return
    click.echo(
        f"{target}: {len(plan.items)} shards moved ({plan.bytes / 1e6:.1f} MB), {plan.present} were there already"
    )
