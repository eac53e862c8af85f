"""Every model of the table, by the command: from a store to a report."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bmla.commands.fuse import fuse
from bmla.fuse.data import features_from_store
from bmla.fuse.models.kinds import VECTORS
from bmla.fuse.models.table import MODELS, entry
from bmla.fuse.run import load_run
from bmla.store import open_store
from bmla.store.errors import UsageError

SMALL = "--layers 1 --width 8 --heads 2 --epochs 1 --finetune-epochs 1 --gru-units 4 --front-width 2"
SMALL += " --resnet-depth 18 --threads 1 --workers 1 --json --quiet"


def test_every_model_trains_from_a_store_and_lands_in_one_report(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [name for name in MODELS if VECTORS in entry(name).kinds]
    words = ["--store", str(tiny_store), "--model", ",".join(names), *SMALL.split()]
    result = CliRunner().invoke(fuse, words)
    assert result.exit_code == 0, (result.output, result.exception)
    document = json.loads(result.stdout)
    assert [row["label"].split()[0] for row in document["rows"]] == names
    assert Path(document["report"]).is_file()
    shared = list((tmp_path / "runs" / "tiny").glob("balancemla-ao_*"))
    assert len(shared) == 1, "the logit average starts from the very branches of balancemla"


def test_models_of_pictures_find_the_crops_by_themselves(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--store", str(tiny_store), "--model", "stconv-vo,bgru-vo", *SMALL.split()]
    result = CliRunner().invoke(fuse, words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert [row["label"] for row in json.loads(result.stdout)["rows"]] == ["stconv-vo", "bgru-vo"]
    (run,) = (load_run(path) for path in (tmp_path / "runs" / "tiny").glob("bgru-vo_*"))
    stream = run.document["features"]["streams"]["visual"]
    assert (stream["name"], stream["shape"], stream["pixels"]) == ("mouth.roi", [4, 4], True)
    features = features_from_store(open_store(tiny_store), None, "mouth.roi", models=["bgru-vo"])
    np.testing.assert_allclose(run.predict(features).result, run.predictions.result, atol=1e-5)


def test_models_that_share_no_stream_are_told_so(tiny_store: Path) -> None:
    result = CliRunner().invoke(fuse, ["--store", str(tiny_store), "--model", "stconv-vo,transformer"])
    assert isinstance(result.exception, UsageError)
    assert "no stream suits both, train them by a command each" in str(result.exception)
