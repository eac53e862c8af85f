import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from bmla.cli import main
from bmla.commands.fuse import fuse
from bmla.fuse.balance.base import Balance, Step
from bmla.fuse.models.single import SingleModality
from bmla.fuse.run import load_run
from bmla.store.errors import StoreNotFound, UnknownName, UsageError

SMALL = ["--layers", "1", "--width", "16", "--heads", "2", "--epochs", "2", "--finetune-epochs", "1", "--threads", "1"]


def call(*words: str, store: Path | None = None) -> Result:
    return CliRunner().invoke(fuse, [*(["--store", str(store)] if store else []), *words])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_command_trains_and_reports(tiny_store: Path, tmp_path: Path) -> None:
    result = call("--ratio", "1:2", *SMALL, store=tiny_store)
    assert result.exit_code == 0, result.output
    assert "audio.logspec + mouth.dct" in result.stderr
    assert (
        "ratio 1:2: 10 audio + 22 visual features (rounded to multiples of 2 heads: 1:2.2 instead of 1:2)"
        in result.stderr
    )
    assert "balancemla-ao 1:2 seed 0: test" in result.stderr
    assert "balancemla 1:2" in result.stdout
    assert "report: runs/tiny/report.html" in result.stdout
    folder = tmp_path / "runs" / "tiny"
    assert (folder / "report.html").is_file()
    assert sum((path / "config.json").is_file() for path in folder.iterdir()) == 3


def test_the_same_command_again_reuses_its_runs(tiny_store: Path) -> None:
    words = ["--model", "transformer", "--seed", "0,1", *SMALL]
    first = call(*words, store=tiny_store)
    again = call(*words, store=tiny_store)
    assert "2 finished run(s) reused" in again.stderr
    assert again.stdout == first.stdout


def test_json_is_a_document_on_stdout_and_nothing_else(tiny_store: Path) -> None:
    words = [
        "--model",
        "transformer-ao,transformer",
        "--model",
        "transformer-vo",
        "--ratio",
        "1:1,1:3",
        "--seed",
        "0",
        "--json",
    ]
    result = call(*words, "--quiet", *SMALL, store=tiny_store)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["label"] for row in document["rows"]] == [
        "transformer-ao",
        "transformer 1:1",
        "transformer 1:3",
        "transformer-vo",
    ]
    assert document["report"] == "runs/tiny/report.html"
    assert result.stderr == ""


def test_the_ladder_of_parts(tiny_store: Path) -> None:
    words = ["--without", "brff,adf,clw", "--without", "adf,clw", "--without", "clw", "--without", "none", "--json"]
    document = json.loads(call(*words, *SMALL, store=tiny_store).stdout)
    assert [row["without"] for row in document["rows"]] == [["brff", "adf", "clw"], ["adf", "clw"], ["clw"], []]


def test_options_reach_the_run(tiny_store: Path, tmp_path: Path) -> None:
    words = "--attention bilinear --schedule long --lr 0.002 --finetune-lr 0.0003 --batch-size 7 --dropout 0.2 --mix probabilities"
    words += " --gate-input encoder --lambda-audio 0.5 --lambda-visual 2 --lr-scale-audio 0.3 --lr-scale-visual 0.4 --class-weights"
    words += " --ratio 1:3 --ratio-mode fixed-base --seed 5 --audio audio.logspec --visual mouth.dct --out here"
    result = call(*words.split(), *SMALL, store=tiny_store)
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "here").glob("balancemla_*")
    config = json.loads((folder / "config.json").read_text())["config"]
    expected = dict(
        attention="bilinear", lr=0.002, pretrain_lr=0.002, finetune_lr=0.0003, batch_size=7, dropout=0.2, epochs=2, pretrain_epochs=2,
        finetune_epochs=1, mix="probabilities", gate_input="encoder", lambda_audio=0.5, lambda_visual=2.0, lr_scale_audio=0.3,
        lr_scale_visual=0.4, class_weights=True, ratio="1:3", ratio_mode="fixed-base", seed=5, audio="audio.logspec", visual="mouth.dct",
        layers=1, width=16, heads=2,
    )  # fmt: skip
    assert {name: config[name] for name in expected} == expected


def test_balance_methods_span_the_sweep_and_any_setting_can_be_set(tiny_store: Path, tmp_path: Path) -> None:
    words = "--model transformer-ao,transformer --balance none,ogm --balance modality-dropout --json --quiet"
    words += " --set ogm_alpha=0.8 --set weight_decay=0.1 --set class_weights=true"
    document = json.loads(call(*words.split(), *SMALL, store=tiny_store).stdout)
    labels = ["transformer-ao", "transformer 1:1", "transformer+ogm 1:1", "transformer+modality-dropout 1:1"]
    assert [row["label"] for row in document["rows"]] == labels
    (folder,) = (tmp_path / "runs" / "tiny").glob("transformer_ogm_*")
    config = json.loads((folder / "config.json").read_text())["config"]
    assert (config["ogm_alpha"], config["weight_decay"], config["class_weights"]) == (0.8, 0.1, True)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--model", "balance"], UnknownName, 'unknown model "balance"; known: transformer-ao'),
        (["--ratio", "0:1"], UsageError, 'ratio "0:1": expected two whole numbers'),
        (["--balance", "odd"], UnknownName, 'unknown balance method "odd"; known: none, joint-aux'),
        (
            ["--model", "transformer", "--balance", "pmr"],
            UsageError,
            "balance pmr does not go with transformer; expected",
        ),
        (["--set", "odd=1"], UnknownName, 'unknown setting "odd"; known: model, audio'),
        (["--set", "ogm_alpha"], UsageError, '--set: "ogm_alpha" is not of the form NAME=VALUE'),
        (["--set", "ogm_alpha=much"], UsageError, 'ogm_alpha: "much" is no number'),
        (["--set", "layers=1.5"], UsageError, 'layers: "1.5" is no whole number'),
        (["--set", "class_weights=yes"], UsageError, 'class_weights: "yes" is neither true nor false'),
        (["--set", "ogm_alpha=-1"], UsageError, "ogm alpha is -1.0, expected 0 to"),
        (["--set", "seed=1"], UsageError, "--set seed: say it with --seed"),
        (["--set", "brff=false"], UsageError, "--set brff: say it with --without"),
        (["--lr", "1e-3", "--set", "lr=2e-3"], UsageError, "--set lr: --lr says it already"),
        (["--seed", "one"], UsageError, '--seed: "one" is no whole number'),
        (["--without", "gate"], UnknownName, 'unknown part of BalanceMLA "gate"; known: brff, adf, clw, none'),
        (["--width", "30"], UsageError, "width 30 can't be shared among 8 heads"),
        (["--epochs", "-3"], UsageError, "epochs is -3"),
        (
            ["--model", "probe-vo", "--visual", "mouth.roi"],
            UsageError,
            "pictures, expected several vectors a step or one vector a step",
        ),
        (["--gpu", "7"], UsageError, "cuda:7: no such GPU"),
        (["--gpu", "0", "--device", "cpu"], UsageError, "not both"),
    ],
)
def test_wrong_words_are_one_clear_line_and_nothing_is_written(
    tiny_store: Path, tmp_path: Path, words: list[str], error: type[Exception], message: str
) -> None:
    result = call(*words, store=tiny_store)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert isinstance(call(store=tmp_path / "none.zarr").exception, StoreNotFound)
    assert isinstance(call().exception, UsageError)


def test_the_only_store_is_found(tiny_store: Path, tmp_path: Path) -> None:
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "tiny.zarr").symlink_to(tiny_store)
    result = call("--model", "transformer", *SMALL)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "tiny" / "report.html").is_file()


def test_every_option_is_documented_and_help_has_runnable_examples() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for parameter in fuse.params:
        assert getattr(parameter, "help", ""), parameter.name
    assert "bmla fuse --ratio 1:2 --gpu 0" in result.output


def test_features_beyond_the_budget_are_read_as_they_are_wanted(tiny_store: Path) -> None:
    words = ["--model", "transformer", *SMALL]
    kept = call(*words, "--out", "kept", store=tiny_store)
    read = call(*words, "--out", "read", "--budget", "1kB", store=tiny_store)
    assert "audio.logspec: 79 clips, 0.00 GB of float16, tier ram (fits the memory budget" in kept.stderr
    assert "mouth.dct: 80 clips, 0.00 GB of float16, tier mmap (more than the memory budget of 0.00 GB)" in read.stderr
    assert read.stdout.replace("read/", "") == kept.stdout.replace("kept/", "")


@pytest.mark.parametrize("size", ["much", "8XB", "-1GB", ""])
def test_a_budget_that_is_no_size_is_refused(tiny_store: Path, size: str) -> None:
    result = call("--budget", size, store=tiny_store)
    assert isinstance(result.exception, UsageError)
    assert f'--budget: "{size}" is no size: expected such as 8GB' in str(result.exception)


def test_a_store_in_a_bucket_trains_through_the_cache(
    tiny_store: Path, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMLA_CACHE", str(tmp_path / "cache"))
    url = f"{s3}/fuse/tiny.zarr"
    assert CliRunner().invoke(main, ["store", "push", str(tiny_store), url]).exit_code == 0
    words = ["--model", "transformer", "--json", "--quiet", *SMALL]
    near = call(*words, "--out", "near", store=tiny_store)
    far = CliRunner().invoke(fuse, ["--store", url, *words, "--out", "far"])
    assert far.exit_code == 0, far.output
    assert far.stdout.replace("far/", "") == near.stdout.replace("near/", "")
    cached = list((tmp_path / "cache").rglob("ledger/*/*.json"))
    assert len(cached) == 6  # 3 shards of each of the two streams, not of the pictures


def test_workers_read_features_that_are_in_no_memory(tiny_store: Path) -> None:
    words = ["--model", "transformer", "--seed", "0,1", "--json", *SMALL]
    alone = call(*words, "--workers", "1", "--out", "runs", store=tiny_store)
    several = call(*words, "--workers", "2", "--tier", "shard", "--out", "sets", store=tiny_store)
    assert "tier shard (as asked for)" in several.stderr
    assert several.stdout.replace("sets/", "") == alone.stdout.replace("runs/", "")


def test_noises_folds_and_conditions_on_the_command_line(noisy_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = [
        "--model",
        "transformer",
        *SMALL,
        "--seed",
        "0..1",
        "--folds",
        "3",
        "--fold",
        "0,2",
        "--fold-by",
        "speaker",
    ]
    words += ["--augment", "none", "--augment", "audio.logspec@*", "--test-on", "audio.logspec@white=*"]
    words += ["--test-on", "audio.logspec@white=0 + mouth.dct@*", "--drop-modality", "visual,audio", "--workers", "1"]
    words += ["--test-on", "audio.logspec@white=0 + no-visual"]
    result = CliRunner().invoke(
        main, ["fuse", "--store", str(noisy_store), "--out", str(out), "--json", "--quiet", *words]
    )
    assert result.exit_code == 0, result.output
    runs = [load_run(path) for path in sorted(out.glob("transformer*"))]
    assert len(runs) == 2 * 2 * 2
    assert {r.config.fold for r in runs} == {0, 2}
    assert {r.config.augment for r in runs} == {(), ("audio.logspec@white=0", "audio.logspec@white=10")}
    expected = (
        "audio.logspec@white=0",
        "audio.logspec@white=0 + mouth.dct@blur=4",
        "audio.logspec@white=0 + no-visual",
        "audio.logspec@white=10",
        "no-audio",
        "no-visual",
    )
    assert all(r.conditions == ("clean", *expected) for r in runs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "3..x"], '--seed: "3..x" is no whole number of at least 0, nor a range such as 0..9'),
        (["--folds", "3", "--fold", "3"], "--fold 3: expected 0 to 2 of 3 folds, or all"),
        (["--fold", "1"], "--fold 1: of how many? Say that with --folds"),
        (["--folds", "2"], "folds is 2, expected at least 3"),
        (["--model", ""], "--model: nothing is named; give at least one, or leave the option out"),
        (["--seed", ","], "--seed: nothing is named"),
        (["--ratio", ""], "--ratio: nothing is named"),
        (["--balance", ""], "--balance: nothing is named"),
        (["--log", "tensorbord"], 'unknown log "tensorbord"; known: tensorboard, mlflow'),
        (["--augment", "audio.logspec@pink=1"], '"audio.logspec@pink=1": no such noise variant here; there are: audio.logspec@white'),
        (["--test-on", "mouth.dct@blur=4 + mouth.dct@blur=4"], "expected at most one noise of each stream"),
        (["--test-on", "audio.logspec@white=0 + no-audio"], "audio.logspec@white=0 is not heard or seen with no audio"),
        (["--test-on", "no-audio + no-visual"], "expected at most one noise of each stream, and one modality left"),
        (["--drop-modality", "audio,smell"], 'unknown modality "smell"; known: audio, visual'),
        (["--seed", "9..0"], '--seed: "9..0" counts down; expected the smaller number first, such as 0..9'),
        (["--seed", "0..99999999999"], '--seed: "0..99999999999" is a range of more than 100000 numbers'),
        (["--gate-augment", "all", "--set", "gate_augment=none"], "--set gate_augment: say it with --gate-augment"),
        (["--epochs", "0", "--set", "epochs=2"], "--set epochs: --epochs says it already"),
        (["--folds", "3", "--fold-by", "session"], "no session is known of these clips: --fold-by group"),
    ],
)  # fmt: skip
def test_axes_that_cannot_be_are_one_line(noisy_store: Path, tmp_path: Path, words: list[str], message: str) -> None:
    out = tmp_path / "runs"
    result = CliRunner().invoke(main, ["fuse", "--store", str(noisy_store), "--out", str(out), *words])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not out.exists()


def test_a_diverging_run_is_named_and_the_others_are_shown(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Balance.objective

    def objective(self: Balance, step: Step) -> torch.Tensor:
        return real(self, step) * (1.0 if type(step.model) is SingleModality else float("nan"))

    monkeypatch.setattr(Balance, "objective", objective)
    words = ["--model", "transformer,transformer-ao", *SMALL, "--workers", "1", "--out", str(tmp_path / "r")]
    result = CliRunner().invoke(main, ["fuse", "--store", str(tiny_store), *words])
    assert result.exit_code == 1
    assert "1 of 2 runs failed:\n  transformer 1:1 seed 0: transformer, seed 0: the loss is no number" in result.output
    assert "best on dev: transformer-ao" in result.output


def test_the_plan_is_told_and_the_executor_can_be_chosen(tiny_store: Path) -> None:
    words = ["--model", "transformer-vo", "--seed", "0,1", *SMALL]
    result = call(*words, "--executor", "stacked", store=tiny_store)
    assert result.exit_code == 0, result.output
    assert "2 runs to train, about " in result.stderr
    assert " in stacks; in processes " in result.stderr
    assert "2 x transformer-vo: " in result.stderr
    runs = [load_run(p) for p in Path("runs/tiny").iterdir() if (p / "config.json").is_file()]
    assert [run.document["executor"] for run in runs] == ["stacked"] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--cluster", "local:2", "--executor", "stacked"],
            "--cluster local:2 with --executor stacked: leave one of them out",
        ),
        (
            ["--cluster", "here"],
            '--cluster: "here" is no cluster: expected local:N, tcp://host:port or tls://host:port',
        ),
        (
            ["--model", "single-res", "--executor", "stacked"],
            "--executor stacked: single-res (SingleRes works for one run at a time): can't be trained in a stack; leave it out, "
            "or take --executor auto",
        ),
    ],
)
def test_a_way_to_train_that_can_not_be_is_refused_before_anything_is_written(
    tiny_store: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = call(*words, *SMALL, store=tiny_store)
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == message
    assert not list(tmp_path.iterdir())
