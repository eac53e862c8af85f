"""Every model of the table, by the command: from a store to a report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bmla.commands.fuse import fuse
from bmla.fuse.data import features_from_store
from bmla.fuse.models.kinds import PIXELS, VECTORS
from bmla.fuse.models.table import MODELS, entry
from bmla.fuse.run import load_run
from bmla.store import open_store
from bmla.store.errors import UsageError

SMALL = "--layers 1 --width 8 --heads 2 --epochs 1 --finetune-epochs 1 --gru-units 4 --front-width 2"
SMALL += " --resnet-depth 18 --threads 1 --workers 1 --json --quiet"


def fused(store: Path, *words: str) -> dict[str, Any]:
    """What a small sweep prints."""
    result = CliRunner().invoke(fuse, ["--store", str(store), *words, *SMALL.split()])
    assert result.exit_code == 0, (result.output, result.exception)
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def labels(document: dict[str, Any]) -> list[str]:
    return [row["label"].split()[0] for row in document["rows"]]


def test_every_model_trains_from_a_store_and_lands_in_one_report(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [name for name in MODELS if VECTORS in entry(name).kinds]
    document = fused(tiny_store, "--model", ",".join(names))
    assert labels(document) == names
    assert Path(document["report"]).is_file()
    shared = list((tmp_path / "runs" / "tiny").glob("balancemla-ao_*"))
    assert len(shared) == 1, "the logit average starts from the very branches of balancemla"


def test_models_of_pictures_find_the_crops_by_themselves(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert labels(fused(tiny_store, "--model", "stconv-vo,bgru-vo")) == ["stconv-vo", "bgru-vo"]
    (run,) = (load_run(path) for path in (tmp_path / "runs" / "tiny").glob("bgru-vo_*"))
    stream = run.document["features"]["streams"]["visual"]
    assert (stream["name"], stream["shape"], stream["pixels"]) == ("mouth.roi", [4, 4], True)
    features = features_from_store(open_store(tiny_store), None, "mouth.roi", models=["bgru-vo"])
    np.testing.assert_allclose(run.predict(features).result, run.predictions.result, atol=1e-5)


def test_every_model_of_sight_trains_on_pictures_beside_vectors_of_sound(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [n for n, e in MODELS.items() if "visual" in e.takes and PIXELS in e.kinds and n != "stconv"]
    assert {"balancemla", "logit-average", "transformer", "joint-aux", "concat", "stconv-vo"} <= set(names)
    document = fused(tiny_store, "--visual", "mouth.roi", "--model", ",".join(names), "--drop-modality", "audio")
    assert labels(document) == names
    store = open_store(tiny_store)
    for path in (tmp_path / "runs" / "tiny").glob("*_seed*"):
        run = load_run(path)
        streams = run.document["features"]["streams"]
        assert {m: s["name"] for m, s in streams.items()}.get("visual", "mouth.roi") == "mouth.roi"
        assert (run.config.mixup, run.config.crop, run.config.time_mask) == (0.4, 0.9, 0.4), run.config.model
        audio, visual = (streams[m]["name"] if m in streams else None for m in ("audio", "visual"))
        features = features_from_store(store, audio, visual, models=[run.config.model])
        np.testing.assert_allclose(run.predict(features).result, run.predictions.result, atol=1e-5)


def test_a_model_of_vectors_takes_pictures_where_one_beside_it_needs_them(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fused(tiny_store, "--model", "transformer-vo,stconv-vo")
    for path in (tmp_path / "runs" / "tiny").glob("*-vo_*"):
        assert load_run(path).document["features"]["streams"]["visual"]["name"] == "mouth.roi"


def test_where_no_stream_suits_all_models_that_is_said(tiny_store: Path) -> None:
    result = CliRunner().invoke(fuse, ["--store", str(tiny_store), "--model", "stconv-vo,probe-vo"])
    assert isinstance(result.exception, UsageError)
    assert "no visual stream of several vectors a step to train on" in str(result.exception)
