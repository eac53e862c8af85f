"""`bmla doctor`: what this machine has and lacks."""

from dataclasses import asdict
from pathlib import Path

import click

from .options import JSON, echo_json

MARKS = {True: "ok ", False: "-- "}


@click.command(epilog="\b\nExamples:\n  bmla doctor\n  bmla doctor --weights ~/weights --json\n")
@click.option(
    "--weights", type=click.Path(path_type=Path), multiple=True, metavar="DIR", help="Look for weights here too."
)
@JSON
def doctor(weights: tuple[Path, ...], as_json: bool) -> None:
    """Versions, devices, weights (and how to get the missing ones), decoders, free disk."""
    from ..extract.doctor import examine
    from .extract import weight_folders

    findings = examine(weight_folders(weights))
    if as_json:
        echo_json([asdict(f) for f in findings])
        return
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            click.echo(f"{group}")
        click.echo(f"  {MARKS[finding.ok]}{finding.name}: {finding.text}")
        if finding.remedy:
            click.echo(f"       {finding.remedy}")
