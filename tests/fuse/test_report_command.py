import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bmla.cli import main
from bmla.fuse.run import RunDamaged
from bmla.store.errors import UsageError

SMALL = [
    "--layers",
    "1",
    "--width",
    "16",
    "--heads",
    "2",
    "--epochs",
    "2",
    "--threads",
    "1",
    "--workers",
    "1",
    "--quiet",
]


@pytest.fixture(scope="module")
def swept(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep's folder, and what `bmla fuse` printed about it."""
    out = tmp_path_factory.mktemp("swept")
    words = ["--model", "transformer,transformer-ao", "--ratio", "1:2,2:1", "--seed", "0,1", "--drop-modality", "audio"]
    result = CliRunner().invoke(main, ["fuse", "--store", str(tiny_store), *words, "--out", str(out), "--json", *SMALL])
    assert result.exit_code == 0, result.output
    return out, result.stdout


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, words)])


def test_every_table_is_made_again_without_the_store(swept: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(swept[0], tmp_path / "runs")
    document = json.loads(call(tmp_path / "runs", "--json").stdout)
    before = json.loads(swept[1])

    def by_label(rows: list[dict]) -> list[dict]:
        return sorted(rows, key=lambda row: row["label"])

    assert by_label(document["rows"]) == by_label(before["rows"])
    assert document["best"] == before["best"]
    assert document["ratio_shares"] == before["ratio_shares"]
    assert sorted(p["permutation"] for p in document["pairs"]) == sorted(p["permutation"] for p in before["pairs"])
    assert document["features"]["streams"] == before["features"]["streams"]
    assert (tmp_path / "runs" / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_tables_are_shown_and_written(swept: tuple[Path, str], tmp_path: Path) -> None:
    result = call(swept[0], "--out", tmp_path / "out", "--csv", tmp_path / "csv", "--pairs", "all")
    assert result.exit_code == 0, result.output
    for title in ("Accuracy under noise", "Is the difference real?", "What sound and sight contribute", "Convergence"):
        assert title in result.output
    assert f"report: {tmp_path}/out/report.html" in result.output
    tables = {p.stem: list(csv.DictReader(p.read_text("utf-8").splitlines())) for p in (tmp_path / "csv").iterdir()}
    assert set(tables) == {"accuracy", "pairs", "contributions", "convergence"}
    assert len(tables["accuracy"]) == 2 * 2 + 1
    assert len(tables["pairs"]) == 3 + 1
    for line in tables["accuracy"]:
        assert float(line["low"]) <= float(line["mean"]) <= float(line["high"])


def test_single_runs_can_be_named(swept: tuple[Path, str], tmp_path: Path) -> None:
    some = sorted(swept[0].glob("transformer-ao_*"))
    document = json.loads(call(*some, *some, "--out", tmp_path, "--json").stdout)
    assert [row["label"] for row in document["rows"]] == ["transformer-ao"]
    assert len(document["runs"]) == len(some) == 2


def test_what_is_no_run_or_damaged_is_one_line(swept: tuple[Path, str], tmp_path: Path) -> None:
    error = CliRunner().invoke(main, ["--debug", "report", str(tmp_path)]).exception
    assert isinstance(error, UsageError)
    assert "no finished run here" in str(error)
    run = sorted(swept[0].glob("transformer_*"))[0]
    shutil.copytree(run, tmp_path / run.name)
    (tmp_path / run.name / "predictions.parquet").write_bytes(b"PAR1")
    result = CliRunner().invoke(main, ["--debug", "report", str(tmp_path)])
    assert isinstance(result.exception, RunDamaged)
    assert "predictions.parquet" in str(result.exception)


def test_runs_of_other_data_are_refused(swept: tuple[Path, str], tmp_path: Path) -> None:
    first, second = sorted(swept[0].glob("transformer_*"))[:2]
    for run in (first, second):
        shutil.copytree(run, tmp_path / run.name)
    path = tmp_path / second.name / "config.json"
    path.write_text(path.read_text().replace('"dataset": "tiny"', '"dataset": "other"'))
    result = CliRunner().invoke(main, ["--debug", "report", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "runs of different data sets make no table" in str(result.exception)
