"""`bmla demo`: the whole path on generated talking faces, through the very commands that a user types."""

import shlex
from pathlib import Path

import click

from .options import QUIET

EXAMPLES = """\b
Examples:
  bmla demo                 ten words, a few hundred clips: some minutes on two cores
  bmla demo --small         a quarter of that, for a quick look
"""

SIZES = {  # fusion models and training that suit two cores and so few clips
    False: ["--ratio", "1:2,1:1,2:1", "--seed", "0,1", "--layers", "2", "--epochs", "20", "--batch-size", "16"],
    True: ["--ratio", "1:2,2:1", "--seed", "0", "--layers", "1", "--epochs", "25", "--batch-size", "8"],
}
COMMON = ["--width", "64", "--lr", "1e-3"]
WITHOUT = ("--drop-modality", "audio,visual")  # what each contributes is measured by that too


@click.command(epilog=EXAMPLES)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Where everything goes."
)
@click.option("--small", is_flag=True, help="Fewer clips, ratios and seeds.")
@click.option("--seed", default=0, show_default=True, help="Of the generated data.")
@QUIET
@click.pass_context
def demo(ctx: click.Context, out: Path, small: bool, seed: int, quiet: bool) -> None:
    """Generate talking faces, extract their features, fuse them, report.

    The data set is GENERATED: one public-domain portrait whose mouth moves to words that a synthesiser speaks. Its
    figures say that the path works and what each part shows; they say nothing about real speech.
    """
    from ..extract.demo import make_demo

    data, store, runs = out / "data", out / "demo.zarr", out / "runs"
    if not quiet:
        click.echo(
            f"GENERATED data: a portrait from scikit-image, its mouth moved to words spoken by eSpeak NG -> {data}",
            err=True,
        )
    silence = ["--quiet"] if quiet else []
    make_demo(data, small=small, seed=seed)
    run(ctx, "extract", "--dataset", "demo", "--root", str(data), "--store", str(store), *silence)
    run(ctx, "fuse", "--store", str(store), "--model", "transformer-ao,transformer-vo,transformer,balancemla",
        *SIZES[small], *COMMON, *WITHOUT, "--out", str(runs), *silence)  # fmt: skip
    click.echo(f"\nreport: {runs / 'report.html'}   (generated data: it shows the path, not a result)")


def run(ctx: click.Context, *words: str) -> None:
    """Runs another command of bmla as if it had been typed, and shows it."""
    if "--quiet" not in words:
        click.echo(f"\n$ bmla {shlex.join(words)}", err=True)
    code = ctx.find_root().command.main(list(words), prog_name="bmla", standalone_mode=False)
    if code:
        ctx.exit(code)
