import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bmla.cli import main
from bmla.commands.tasks import streams_by_task, task_stores
from bmla.fuse.run import load_run
from bmla.store.errors import UsageError

SMALL = ["--layers", "1", "--width", "16", "--heads", "2", "--epochs", "1", "--finetune-epochs", "1", "--threads", "1"]


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["fuse", *words])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_command_trains_two_stores_in_one_model_and_compares_with_each_alone(
    tiny_store: Path, noisy_store: Path, tmp_path: Path
) -> None:
    words = ["--tasks", f"words={tiny_store}", "--tasks", f"noisy={noisy_store}", "--alone", "--workers", "1"]
    result = call(*words, "--drop-modality", "audio", *SMALL)
    assert result.exit_code == 0, result.output
    assert "words: tiny: audio.logspec + mouth.dct; clips: " in result.stderr
    for name, other in (("words", "noisy"), ("noisy", "words")):
        assert f"balancemla on {name} with {other} 1:1 seed 0: test" in result.stderr
        assert f"report: runs/noisy+words/{name}/report.html" in result.stdout
        folder = tmp_path / "runs" / "noisy+words" / name
        runs = [load_run(path.parent) for path in folder.glob("balancemla_*/config.json")]
        assert sorted(run.config.task_names for run in runs) == [(), (name, other)]
    assert result.stdout.count("Is the difference real?") == 2
    table = CliRunner().invoke(main, ["report", str(tmp_path / "runs" / "noisy+words" / "words")]).stdout
    assert "balancemla on words with noisy 1:1" in table


def test_json_is_one_document_of_all_tasks(tiny_store: Path, noisy_store: Path) -> None:
    words = ["--tasks", f"a={tiny_store},b={noisy_store}", "--model", "balancemla-ao", "--seed", "0,1", "--out", "here"]
    result = call(*words, "--json", "--quiet", *SMALL)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    document = json.loads(result.stdout)["tasks"]
    assert {name: [row["label"] for row in found["rows"]] for name, found in document.items()} == {
        "a": ["balancemla-ao on a with b"],
        "b": ["balancemla-ao on b with a"],
    }
    assert document["a"]["rows"][0]["seeds"] == [0, 1]
    assert document["b"]["report"] == "here/b/report.html"


def test_one_task_may_have_pictures_and_another_vectors(tiny_store: Path, noisy_store: Path, tmp_path: Path) -> None:
    words = [
        "--tasks",
        f"a={tiny_store},b={noisy_store}",
        "--model",
        "balancemla-vo",
        "--visual",
        "a=mouth.roi,b=mouth.dct",
    ]
    result = call(*words, "--out", "here", *SMALL, "--front-width", "2", "--resnet-depth", "18")
    assert result.exit_code == 0, result.output
    assert "a: mouth.roi: through a front end of 2 kernels and ResNet-18, learnt with the model" in result.stderr
    assert "b: mouth" not in result.stderr
    runs = [load_run(path.parent) for path in (tmp_path / "here").glob("*/balancemla-vo_*/config.json")]
    assert sorted(r.document["features"]["streams"]["visual"]["name"] for r in runs) == ["mouth.dct", "mouth.roi"]
    assert {r.config.mixup for r in runs} == {0.4}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--tasks", "a=S,b=S", "--executor", "stacked"],
            "--executor stacked: a model of several tasks is trained by itself",
        ),
        (["--tasks", "a=S,b=S", "--cluster", "local:2"], "--cluster: goes with one store, not with --tasks"),
        (["--tasks", "a=S,a=S"], '--tasks: two tasks are called "a"'),
        (["--tasks", "a=S"], "--tasks: a alone is given: expected two or more; for one: --store"),
        (["--tasks", "S"], "is not of the form NAME=STORE"),
        (["--tasks", "../a=S,b=S"], '--tasks: "../a='),
        (["--tasks", "a=S,b=none.zarr"], "none.zarr"),
        (["--tasks", "a=S,b=S", "--store", "S"], "--store: --tasks names the stores already"),
        (["--tasks", "a=S,b=S", "--log", "tensorboard"], "--log: goes with one store, not with --tasks"),
        (["--tasks", "a=S,b=S", "--features", "0" * 64], "--features: goes with one store, not with --tasks"),
        (["--tasks", "a=S,b=S", "--model", ""], "--model: nothing is named; give at least one"),
        (["--tasks", "a=S,b=S", "--workers", "2"], "--workers: a model of several tasks is trained in one process"),
        (["--tasks", "a=S,b=S", "--watch"], "--watch: goes with one store, not with --tasks"),
        (["--tasks", "a=S,b=S", "--model", "concat"], "concat is a model of one task; of several: balancemla-ao"),
        (["--tasks", "a=S,b=S", "--visual", "b=mouth.none"], 'mouth.none'),
        (["--tasks", "a=S,b=S", "--visual", "c=mouth.dct"], 'no task is called "c"; tasks: a, b'),
        (["--tasks", "a=S,b=S", "--audio", "mouth.dct"], "stream mouth.dct is visual, not audio"),
        (["--tasks", "a=S,b=S", "--balance", "mla"], "balance mla does not go with balancemla"),
        (["--tasks", "a=S,b=S", "--balance", "odd"], 'unknown balance method "odd"'),
        (["--tasks", "a=S,b=S", "--set", "tasks=x"], "--set tasks: say it with --tasks"),
        (["--tasks", "a=S,b=S", "--test-on", "all"], '"all": no such noise variant here'),
        (["--alone", "--store", "S"], "--alone: goes with --tasks"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_clear_line_and_nothing_is_written(
    tiny_store: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = call(*(word.replace("S", str(tiny_store)) for word in words), *SMALL)
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_words_of_tasks_are_read() -> None:
    assert task_stores((" a=x.zarr,b=s3://y/z=1.zarr ", "c=y")) == {"a": "x.zarr", "b": "s3://y/z=1.zarr", "c": "y"}
    names = ("a", "b")
    assert streams_by_task("--audio", None, names) == {"a": None, "b": None}
    assert streams_by_task("--audio", "audio.x", names) == {"a": "audio.x", "b": "audio.x"}
    assert streams_by_task("--audio", "b=audio.y", names) == {"a": None, "b": "audio.y"}
    assert streams_by_task("--audio", "audio.x@white=0,b=audio.y", names) == {"a": "audio.x@white=0", "b": "audio.y"}
    with pytest.raises(UsageError, match=r"--audio audio\.y: every task has audio.x already"):
        streams_by_task("--audio", "audio.x,audio.y", names)
