"""`bmla serve`: the report of runs that are still being made, in the browser; and the same beside `bmla fuse --watch`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..store.errors import UsageError

if TYPE_CHECKING:
    from ..fuse.server import PageServer

LOOPBACK = "127.0.0.1"
EXAMPLES = """\b
Examples:
  bmla serve runs/words                       http://127.0.0.1:8150/, while `bmla fuse` works in another terminal
  bmla serve runs/words --address 0.0.0.0     for other machines: prints an address with a token
  ssh -L 8150:127.0.0.1:8150 cluster          the first one, from afar and encrypted
"""


@click.command(epilog=EXAMPLES)
@click.argument("folders", metavar="RUNS…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--address", default=LOOPBACK, show_default=True, help="To be reached at; any but loopback wants a token."
)
@click.option("--port", type=click.IntRange(0, 65535), help="0: any free one.  [default: 8150, or any free one]")
@click.option(
    "--token", "wants_token", is_flag=True, help="Want a token on loopback too, where others share this machine."
)
def serve(folders: tuple[Path, ...], address: str, port: int | None, wants_token: bool) -> None:
    """Serve the report of RUNS and keep it up to date.

    RUNS are folders that `bmla fuse` writes runs to. The page follows finished runs and the epochs of unfinished ones; a run
    that is killed, or goes on, needs nothing here. Ctrl-C ends it.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder: expected one that `bmla fuse` writes runs to")
        if (folder / "config.json").is_file():
            raise UsageError(f"{folder}: a single run: give the folder that it is in, {folder.parent}")
    server = open_server(folders, address, port, wants_token)
    click.echo(f"serving: {server.url}   (Ctrl-C ends it)")
    serve_until_interrupted(server)


def open_server(folders: tuple[Path, ...], address: str, port: int | None, wants_token: bool) -> "PageServer":
    """Raises UsageError where it can't be bound."""
    from ..fuse.live import Watched
    from ..fuse.server import DEFAULT_PORT, PageServer, is_loopback, new_token

    token = new_token() if wants_token or not is_loopback(address) else None
    page = Watched(folders).page
    if port is not None:
        return PageServer(page, address, port, token)
    try:
        return PageServer(page, address, DEFAULT_PORT, token)
    except UsageError:
        return PageServer(page, address, 0, token)


def serve_until_interrupted(server: "PageServer") -> None:
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("", err=True)


@contextmanager
def watching(folder: Path, wanted: bool) -> Iterator[None]:
    """Serves a folder of runs on loopback, in a process of its own, as long as what is inside lasts."""
    if not wanted:
        yield
        return
    from multiprocessing import get_context

    folder.mkdir(parents=True, exist_ok=True)
    process = get_context("spawn").Process(target=serve_beside, args=(folder,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def serve_beside(folder: Path) -> None:
    """The other process: ends with its parent, and leaves the processor to it."""
    from ..store.processes import end_with_parent

    end_with_parent()
    server = open_server((folder,), LOOPBACK, None, False)
    os.nice(10)  # not before: where all processors are at work, it would be a minute until there is an address
    click.echo(f"watch: {server.url}", err=True)
    serve_until_interrupted(server)
