"""`bmla store`: look into a feature store."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .exchange import export, import_
from .options import JSON, QUIET, echo_json, find_store, remote_options
from .preview import preview
from .share import diff, ls, merge, pull, push

if TYPE_CHECKING:
    from ..store.info import StoreInfo

STORE = click.argument("path", metavar="[STORE]", required=False)


@click.group()
def store() -> None:
    """Look into a feature store."""


@store.command(epilog="\b\nExamples:\n  bmla store info stores/grid.zarr\n  bmla store info stores/grid.zarr --json\n")
@STORE
@remote_options
@JSON
def info(path: str | None, as_json: bool) -> None:
    """What a store holds: clips, splits, classes, streams, what is done and where it came from."""
    from ..store import open_store
    from ..store.info import info as read_info

    result = read_info(open_store(find_store(path)))
    echo_json(asdict(result)) if as_json else show(result)


@store.command(epilog="\b\nExample:\n  bmla store failures stores/grid.zarr\n")
@STORE
@remote_options
@JSON
def failures(path: str | None, as_json: bool) -> None:
    """Every clip that gave no features, with its stream, step and reason."""
    from ..store import open_store

    opened = open_store(find_store(path))
    rows = [{"stream": s, **asdict(f)} for s in opened.streams() for e in opened.entries(s) for f in e.failures]
    if as_json:
        echo_json(rows)
        return
    for row in rows:
        click.echo("{clip}\t{stream}\t{step}\t{error}\t{message}".format(**row))
    click.echo(f"{len(rows)} failures", err=True)


@store.command(
    epilog="\b\nExamples:\n  bmla store verify stores/grid.zarr --deep\n  bmla store verify stores/grid.zarr --deep --repair\n"
)
@STORE
@remote_options
@click.option("--deep", is_flag=True, help="Read every byte and hold it against the ledger's digests.")
@click.option(
    "--repair", is_flag=True, help="Mark bad shards, so that `bmla extract` does them again; nothing else is removed."
)
@QUIET
@JSON
def verify(path: str | None, deep: bool, repair: bool, quiet: bool, as_json: bool) -> None:
    """Hold a store against its ledger: what is damaged, missing or foreign. Exits with 1 where something is."""
    from ..store import open_store
    from ..store.lock import writer_lock
    from ..store.verify import repair as mark
    from ..store.verify import total_bytes
    from ..store.verify import verify as check
    from .progress import byte_progress

    opened = open_store(find_store(path), read_only=not repair)
    with byte_progress("verify", total_bytes(opened), quiet or not deep) as bar:
        problems = check(opened, deep, bar.advance)
    bad = [p for p in problems if not p.harmless]
    if as_json:
        echo_json([asdict(p) for p in problems])
    else:
        for problem in problems:
            click.echo(f"{'note' if problem.harmless else 'BAD '} {problem.where}: {problem.text}")
        click.echo(
            f"{opened.place}: {len(bad)} problems"
            if bad
            else f"{opened.place}: whole{'' if deep else ' (shallow: --deep reads every byte)'}"
        )
    if repair:
        with writer_lock(opened.path):
            for stream, shard in mark(opened, problems):
                click.echo(f"marked {stream} shard {shard}: run `bmla extract` again", err=True)
    if bad:
        raise click.exceptions.Exit(1)


@store.command(epilog="\b\nExample:\n  bmla store listing /srv/www/lrw.zarr\n")
@click.argument("path")
@JSON
def listing(path: str, as_json: bool) -> None:
    """Write the list of files that a store needs to be read from a web server (push to a bucket writes it by itself)."""
    from ..store import open_store
    from ..store.listing import KEY, write_listing

    write_listing(open_store(path, read_only=False).place)
    echo_json({"listing": f"{path}/{KEY}"}) if as_json else click.echo(f"{path}/{KEY}")


@store.command(epilog="\b\nExample:\n  bmla store gc stores/grid.zarr\n")
@STORE
@remote_options
@click.option("--dry-run", is_flag=True, help="Show what would go.")
@JSON
def gc(path: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove what killed writers left behind, never anything that the ledger names."""
    from ..store import open_store
    from ..store.lock import writer_lock
    from ..store.verify import collect, leftovers

    opened = open_store(find_store(path), read_only=False)
    with writer_lock(opened.path):
        keys = leftovers(opened) if dry_run else collect(opened)
    if as_json:
        echo_json({"removed": [] if dry_run else keys, "leftovers": keys})
        return
    for key in keys:
        click.echo(key)
    click.echo(f"{len(keys)} files {'would go' if dry_run else 'removed'}", err=True)


def show(result: "StoreInfo") -> None:
    """The store in numbers, as text."""
    splits = ", ".join(f"{name} {count}" for name, count in result.splits.items())
    options = ", ".join(f"{key}={value}" for key, value in result.options.items()) or "none"
    least, most = min(result.labels.values(), default=0), max(result.labels.values(), default=0)
    click.echo(f"{result.path}: {result.dataset}, {result.task}")
    click.echo(
        f"  clips    {result.clips} ({splits}), {result.hours:.2f} hours, {result.speakers or 'unknown'} speakers"
    )
    click.echo(f"  classes  {len(result.labels)}: {names(list(result.labels))} ({least} to {most} clips each)")
    click.echo(f"  options  {options}")
    click.echo(f"  table    sha256 {result.clips_digest}")
    click.echo(f"  shards   of {result.shard_size} clips")
    for stream in result.streams:
        spec = stream.specification
        shape = " x ".join(map(str, stream.shape))
        pending = f", {stream.pending} pending" if stream.pending else ""
        click.echo(
            f"\n  {stream.name}  {shape} {stream.dtype} at {stream.rate_hz:g} Hz, {stream.bytes / 1e6:.1f} MB on disk"
        )
        click.echo(f"    {stream.done} done, {stream.failed} failed{pending}")
        for reason, count in stream.failures.items():
            click.echo(f"      {count} x {reason}")
        click.echo(f"    encoder   {spec['encoder']}: {compact(spec['parameters'])}")
        click.echo(f"    length    {spec['frame_law']}")
        for key in ("weights", "crop", "detector", "noise", "source"):
            if spec[key]:
                click.echo(f"    {key:<9} {compact(spec[key])}")
        click.echo(f"    versions  {compact(spec['versions'])}")


for command in (push, pull, merge, diff, ls, export, import_, preview):
    store.add_command(command)


def names(values: list[str], most: int = 8) -> str:
    shown = ", ".join(values[:most])
    return shown if len(values) <= most else f"{shown}, …"


def compact(value: object) -> str:
    """A nested value on one line, digests and what holds a bit a clip cut to 12 letters."""
    if isinstance(value, dict):
        return (
            ", ".join(f"{k} {f'({compact(v)})' if isinstance(v, dict) else compact(v)}" for k, v in value.items())
            or "none"
        )
    if isinstance(value, str) and (len(value) == 64 or len(value) > 200):
        return f"{value[:12]}…"
    return str(value)
