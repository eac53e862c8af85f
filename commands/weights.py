"""`bmla weights`: published checkpoints become files that are safe to load."""

from pathlib import Path

import click

from ..extract.upstreams.table import UPSTREAMS
from .options import JSON, echo_json

EXAMPLES = """\b
Examples:
  bmla weights convert base_lrs3_iter5.pt --as avhubert-base --out weights/avhubert-base.safetensors
  bmla weights convert finetuned.pt --as avhubert-large
  bmla extract --dataset lrw --stream av.avhubert --weights weights
"""


@click.group()
def weights() -> None:
    """Model weights; `bmla doctor` lists those that are here and how to get the others."""


@weights.command(epilog=EXAMPLES)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--as", "name", required=True, type=click.Choice(sorted(UPSTREAMS)), help="Which published model the checkpoint is."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The file to write.  [default: NAME.safetensors beside it]"
)
@click.option("--every-key", is_flag=True, help="Name every key in the report, however many are alike.")
@JSON
def convert(checkpoint: Path, name: str, out: Path | None, every_key: bool, as_json: bool) -> None:
    """Turn a published CHECKPOINT into safetensors, by its key names and shapes.

    Nothing in it is run or imported. Every key that is missing, of another shape, not known or not used is reported; a
    checkpoint that is not the published model is refused.
    """
    from ..extract.upstreams.convert import convert as work

    target = out or checkpoint.with_name(f"{name}.safetensors")
    told: list[str] = []
    work(checkpoint, name, target, told.append if as_json else click.echo, every_key=every_key)
    echo_json({"weights": str(target), "report": told}) if as_json else click.echo(f"wrote {target}")
