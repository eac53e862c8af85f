"""--sweep and --add: the words of a sweep in a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bmla.cli import main
from bmla.commands.sweep_file import NAME
from bmla.fuse.logs import LOGS
from bmla.fuse.run import load_run
from bmla.store.errors import UsageError

SMALL = """
layers: 1
width: 16
heads: 2
epochs: 1
workers: 1
threads: 1
"""


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["fuse", *words])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sweep(text: str, store: Path | None = None) -> str:
    Path("sweep.yaml").write_text(text + SMALL + (f"store: {store}\n" if store else ""))
    return "sweep.yaml"


def ratios_and_seeds(folder: str) -> set[tuple[str, int]]:
    configs = [load_run(path.parent).config for path in Path(folder).glob("*/config.json")]
    return {(c.ratio, c.seed) for c in configs}


def test_the_words_of_a_file_are_those_of_the_command_line(tiny_store: Path) -> None:
    """1:4 is a ratio there as well, whatever YAML 1.1 takes it for; a range and a list of texts mean the same."""
    words = "model: transformer\nratio: [1:4, '1:1']\nseed: 0..1\nset: weight_decay=0.1\nclass-weights: true\nlr: 2e-3\npatience: 0\n"
    read = call("--sweep", sweep(words, tiny_store), "--out", "read", "--json", "--quiet")
    assert read.exit_code == 0, read.output
    said = "--model transformer --ratio 1:4,1:1 --seed 0,1 --set weight_decay=0.1 --class-weights --lr 0.002 --layers 1 --width 16"
    said += f" --heads 2 --epochs 1 --workers 1 --threads 1 --store {tiny_store} --out said --json --quiet"
    assert json.loads(call(*said.split()).stdout)["rows"] == json.loads(read.stdout)["rows"]
    assert {p.name for p in Path("read").glob("transformer*")} == {p.name for p in Path("said").glob("transformer*")}


def test_the_command_line_goes_before_the_file(tiny_store: Path) -> None:
    file = sweep("model: transformer\nseed: 0..9\nratio: 1:2\n", tiny_store)
    assert call("--sweep", file, "--seed", "3", "--out", "r", "--quiet").exit_code == 0
    assert ratios_and_seeds("r") == {("1:2", 3)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: transformer\nratios: 1:2\n", 'sweep.yaml, line 2: unknown key "ratios"; keys are the options of the command: store'),
        ("sweep: other.yaml\n", 'line 1: unknown key "sweep"'),
        ("\nlayers: many\n", "sweep.yaml, line 2: layers: 'many' is not a valid integer"),
        ("layers: [1, 2]\n", "line 1: layers is a list, expected one text or number: no sweep spans it"),
        ("attention: crossed\n", "line 1: attention: 'crossed' is not one of 'cross', 'bilinear'"),
        ("seed: {first: 1}\n", "line 1: seed: expected a text or number or a list of them"),
        ("seed: [[1]]\n", "line 1: seed: expected a text or number or a list of them"),
        ("seed:\n", "line 1: seed: expected a text or number or a list of them"),
        ("lr:\n", "line 1: lr: expected a text or number"),
        ("seed: 1\nseed: 2\n", "line 2: seed stands here a second time"),
        ("seed: !!python/object/apply:os.getcwd []\n", "line 1: seed: expected a text or number or a list of them"),
        ("lr: !!python/name:os.sep x\n", "line 1: lr: expected a text or number"),
        ("- 1\n- 2\n", "sweep.yaml, line 1: expected lines such as ratio: 1:2,1:1"),
        ("seed: [1, 2\nlr: 3\n", "no YAML: "),
        ("seed: 'one\n", "no YAML: "),
        ("seed: " + "[" * 20_000, "sweep.yaml: no YAML"),
        ("# " + "x" * 70_000, "more than 65536 bytes"),
        ("seed: \0\n", "sweep.yaml: no YAML"),
        ("seed: one\n", '--seed: "one" is no whole number'),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_one_line_that_names_key_and_line(text: str, message: str, tiny_store: Path) -> None:
    Path("sweep.yaml").write_text(text)
    result = call("--sweep", "sweep.yaml", "--store", str(tiny_store), "--out", "r")
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not Path("r").exists()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "none.yaml: can't be read: No such file" in call("--sweep", "none.yaml").output
    assert "no sweep here to add to: expected a folder with a sweep.yaml" in call("--add", str(tmp_path)).output


def test_a_sweep_leaves_its_words_and_they_ask_for_the_same(tiny_store: Path) -> None:
    first = call(
        "--sweep", sweep("model: transformer\nratio: 1:2,1:1\n", tiny_store), "--out", "r", "--json", "--quiet"
    )
    again = call("--sweep", f"r/{NAME}", "--out", "r", "--json")
    assert again.exit_code == 0, again.output
    assert "sweep: 2 runs of 2 ratios; 2 of 2 done already" in again.stderr
    assert again.stdout == first.stdout
    kept = Path("r", NAME).read_text()
    assert "audio: audio.logspec\n" in kept
    assert "folds: '0'\n" in kept
    assert "workers" not in kept


def test_a_sweep_is_extended_by_the_values_of_its_axes(tiny_store: Path) -> None:
    first = call("--sweep", sweep("model: transformer\nratio: 1:2,1:1\nseed: 0\n", tiny_store), "--out", "r", "--quiet")
    assert first.exit_code == 0, first.output
    result = call("--add", "r", "--seed", "1..2", "--drop-modality", "audio", "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "sweep: 6 runs of 2 ratios, 3 seeds; 2 of 6 done already" in result.stderr
    assert ratios_and_seeds("r") == {(ratio, seed) for ratio in ("1:2", "1:1") for seed in (0, 1, 2)}
    assert all(load_run(p.parent).conditions == ("clean", "no-audio") for p in Path("r").glob("*/config.json"))
    result = call("--add", "r", "--balance", "modality-dropout", "--workers", "1")
    assert "sweep: 12 runs of 2 balance methods, 2 ratios, 3 seeds; 6 of 12 done already" in result.stderr


def test_a_sweep_from_before_shares_of_noise_is_extended_with_as_much_noise_as_it_had(noisy_store: Path) -> None:
    words = "model: transformer-ao\naugment: audio.logspec@*\n"
    first = call("--sweep", sweep(words, noisy_store), "--noise-share", "0", "--out", "r", "--quiet")
    assert first.exit_code == 0, first.output
    kept = Path("r", NAME).read_text()
    assert "noise-share: '0.0'\n" in kept
    Path("r", NAME).write_text(kept.replace("noise-share: '0.0'\n", ""))
    result = call("--add", "r", "--seed", "1", "--workers", "1")
    assert "sweep: 2 runs of 2 seeds; 1 of 2 done already" in result.stderr
    assert {load_run(p.parent).config.noise_share for p in Path("r").glob("*/config.json")} == {0.0}
    today = call("--sweep", sweep(words, noisy_store), "--out", "today", "--quiet")
    assert today.exit_code == 0, today.output
    assert "noise-share: '0.3333333333333333'\n" in Path("today", NAME).read_text()
    assert "1 of 1 done already" in call("--sweep", f"today/{NAME}", "--out", "today").stderr


def test_words_that_say_nothing_are_not_kept(tiny_store: Path) -> None:
    """An empty value could not be read back."""
    file = sweep("model: transformer\n", tiny_store)
    assert call("--sweep", file, "--out", "r", "--drop-modality", "", "--gate-augment", "", "--quiet").exit_code == 0
    assert "''" not in Path("r", NAME).read_text()
    assert call("--add", "r", "--workers", "1", "--quiet").exit_code == 0


def test_a_sweep_that_is_extended_may_be_watched_in_another_way(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Seen:
        def __init__(self, out: Path):
            told.append(str(out))

        def has(self, run: str) -> bool:
            return False

        def epoch(self, run: str, number: int, figures: Mapping[str, float]) -> None:
            told.append(f"epoch {number}")

        def finish(self, run: str, config: Mapping[str, Any], scores: Mapping[str, float]) -> None:
            told.append("done")

        def close(self) -> None:
            pass

    monkeypatch.setitem(LOGS, "tensorboard", Seen)
    assert call("--sweep", sweep("model: transformer\n", tiny_store), "--out", "r", "--quiet").exit_code == 0
    result = call("--add", "r", "--log", "tensorboard", "--workers", "1", "--quiet")
    assert result.exit_code == 0, result.output
    assert told == ["r", "epoch 1", "done"]
    assert "log:" not in Path("r", NAME).read_text()


def test_what_would_make_it_another_sweep_is_refused(tiny_store: Path, noisy_store: Path) -> None:
    assert (
        call("--sweep", sweep("model: transformer\nset: weight_decay=0.1\n", tiny_store), "--out", "r").exit_code == 0
    )
    before = {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    for words, message in (
        (["--layers", "2"], "--layers 2: the sweep has 1, and --add changes only what a sweep spans"),
        (["--lr", "0.1"], "--lr 0.1: the sweep was made without it, and --add changes only what a sweep spans"),
        (["--set", "weight_decay=0.2"], "and --add changes only what a sweep spans"),
        (["--out", "elsewhere"], "--out elsewhere: --add keeps its runs in the folder of the sweep that it extends"),
        (["--sweep", "sweep.yaml"], "give --sweep or --add, not both"),
        (["--store", str(noisy_store)], "were asked for, these are"),
    ):
        result = call("--add", "r", "--seed", "5", *words)
        assert result.exit_code == 2, words
        assert message in result.output
    assert {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()} == before
    assert not Path("elsewhere").exists()
    assert call("--add", "r", "--layers", "1", "--quiet").exit_code == 0  # what the sweep has may be said again


def test_other_features_than_those_asked_for_are_refused(tiny_store: Path) -> None:
    result = CliRunner().invoke(
        main, ["--debug", "fuse", "--store", str(tiny_store), "--features", "0" * 64, "--out", "r"]
    )
    assert isinstance(result.exception, UsageError)
    assert "features 000000000000… were asked for, these are " in str(result.exception)
    assert not Path("r").exists()
