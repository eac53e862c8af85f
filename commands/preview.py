"""`bmla store preview`: one page of a store, for a person to see what was extracted."""

from pathlib import Path

import click

from .options import JSON, echo_json, find_store, remote_options, split_names

EXAMPLES = """\b
Examples:
  bmla store preview stores/grid.zarr
  bmla store preview s3://team/lrw.zarr --stream mouth.roi --out lrw.html
  bmla store preview stores/grid.zarr --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("path", metavar="[STORE]", required=False)
@click.option(
    "--stream", "streams", multiple=True, metavar="NAME", help="Only these streams, repeatable or with commas."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The page.  [default: preview.html]")
@JSON
@remote_options
def preview(path: str | None, streams: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Show what was extracted: crops, the worst clips, histograms and failures, on one HTML page.

    With --json the page is written only where --out names it.
    """
    from ..store import open_store
    from ..store.preview import render_page, survey, write_page

    found = survey(open_store(find_store(path)), split_names(streams))
    page = out or (None if as_json else Path("preview.html"))
    if page is not None:
        write_page(page, render_page(found))
    echo_json(found.to_dict()) if as_json else click.echo(str(page))
