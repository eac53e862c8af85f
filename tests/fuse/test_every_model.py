"""Every model of the table, by the command: from a store to a report."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bmla.commands.fuse import fuse
from bmla.fuse.models.table import MODELS

SMALL = (
    "--layers 1 --width 8 --heads 2 --epochs 1 --finetune-epochs 1 --gru-units 4 --threads 1 --workers 1 --json --quiet"
)


def test_every_model_trains_from_a_store_and_lands_in_one_report(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--store", str(tiny_store), "--model", ",".join(MODELS), *SMALL.split()]
    result = CliRunner().invoke(fuse, words)
    assert result.exit_code == 0, (result.output, result.exception)
    document = json.loads(result.stdout)
    assert [row["label"].split()[0] for row in document["rows"]] == list(MODELS)
    assert Path(document["report"]).is_file()
    shared = list((tmp_path / "runs" / "tiny").glob("balancemla-ao_*"))
    assert len(shared) == 1, "the logit average starts from the very branches of balancemla"
