"""A trained run's front end writes a stream: what its head reads, step by step, with all that the store knows of the clips; no leak."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from bmla.commands.extract import extract
from bmla.commands.fuse import fuse
from bmla.extract import deriving
from bmla.fuse.fold_streams import fold_name
from bmla.fuse.run import Run, load_run
from bmla.store import open_store
from bmla.store.errors import BmlaError, UsageError
from bmla.store.ledger import Failure
from bmla.store.shard import ClipFeatures
from bmla.store.store import Store
from bmla.store.verify import verify

SMALL = "--layers 1 --width 8 --heads 2 --epochs 2 --finetune-epochs 0 --gru-units 3 --front-width 2 --resnet-depth 18"
SMALL += " --threads 1 --workers 1"
BLURRED = "mouth.dct@blur=4"


def do(command: Any, words: str) -> Result:
    result = CliRunner().invoke(command, words.split())
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(words: str, error: type[BmlaError] = UsageError) -> str:
    result = CliRunner().invoke(extract, words.split())
    assert isinstance(result.exception, error), (result.output, result.exception)
    return str(result.exception)


def trained(store: Path, out: Path, words: str) -> list[Run]:
    do(fuse, f"--store {store} {SMALL} --quiet --out {out} {words}")
    return [load_run(path.parent) for path in sorted(out.glob("*/config.json"))]


def clips_of(store: Store, stream: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    packed = store.load(stream)
    ends = zip(packed.clips.tolist(), packed.offsets, packed.offsets[1:], strict=False)
    return {row: (packed.values[a:b], packed.valid[a:b]) for row, a, b in ends}


@pytest.fixture
def store(noisy_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(noisy_store, tmp_path / "s.zarr"))


@pytest.fixture(scope="module")
def bgru(noisy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(noisy_store, tmp_path_factory.mktemp("runs"), "--model bgru-vo --visual mouth.dct")[0]


@pytest.fixture(scope="module")
def folds(noisy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return trained(noisy_store, tmp_path_factory.mktemp("folds"), "--model bgru-vo --visual mouth.dct --folds 3")


@pytest.mark.parametrize(
    ("model", "source", "length"),
    [("bgru-vo", "mouth.dct", 6), ("transformer-ao", "audio.logspec", 8), ("stconv-vo", "mouth.roi", 16)],
)
def test_the_mean_of_its_steps_through_the_runs_head_is_the_runs_answer(
    store: Path, tmp_path: Path, model: str, source: str, length: int
) -> None:
    modality = "audio" if model.endswith("ao") else "visual"
    (run,) = trained(store, tmp_path / "runs", f"--model {model} --{modality} {source}")
    do(extract, f"--store {store} --from-run {run.path} --stream {modality}.learnt --quiet --max-failed 2%")
    opened = open_store(store)
    before, after = clips_of(opened, source), clips_of(opened, f"{modality}.learnt")
    assert before.keys() == after.keys()
    for row, (values, valid) in after.items():
        np.testing.assert_array_equal(valid, before[row][1])
        assert values.shape == (len(valid), length)
        assert (values[~valid] == 0).all()
    head = run.model().get_submodule(f"{modality}.head")
    rows = {name: row for row, name in enumerate(opened.clips.column("id").tolist())}
    answers = run.predictions
    for name, expected in zip(answers.ids.tolist(), answers.result, strict=True):
        values, valid = after[rows[name]]
        pooled = torch.from_numpy(values[valid].astype(np.float32).mean(0))
        np.testing.assert_allclose(torch.log_softmax(head(pooled), 0).detach(), expected, atol=5e-3)
    assert verify(opened, deep=True) == []
    failures = {f for s in (source, f"{modality}.learnt") for e in opened.entries(s) for f in e.failures}
    assert len(failures) == (1 if modality == "audio" else 0)  # the same record in both


def test_it_says_where_it_comes_from(store: Path, bgru: Run) -> None:
    do(extract, f"--store {store} --from-run {bgru.path} --stream visual.bgru,visual.bgru@blur=4 --quiet")
    opened = open_store(store)
    spec, noisy = opened.spec("visual.bgru"), opened.spec("visual.bgru@blur=4")
    source = opened.spec("mouth.dct")
    assert (spec.encoder, spec.modality, spec.rate_hz) == ("bgru-vo", "visual", source.rate_hz)
    assert spec.parameters["features"] == "the outputs of the last recurrent layer, both directions"
    assert spec.weights is not None
    assert spec.source is not None
    assert spec.weights["sha256"] == bgru.weights_digest()
    assert spec.source["specification"] == source.to_dict()
    assert spec.source["run"]["digest"] == bgru.digest()
    assert noisy.source is not None
    assert noisy.source["stream"] == BLURRED
    assert str(store) not in json.dumps(spec.to_dict())
    assert not np.array_equal(clips_of(opened, spec.name)[5][0], clips_of(opened, noisy.name)[5][0])


def test_killed_it_goes_on_to_the_same_bytes(store: Path, bgru: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path(shutil.copytree(store, store.parent / "whole.zarr"))
    words = f"--from-run {bgru.path} --stream visual.bgru --quiet"
    do(extract, f"--store {whole} {words}")
    plain, count = deriving.write, iter(range(9))
    with monkeypatch.context() as patch:
        patch.setattr(deriving, "write", lambda *a: plain(*a) if next(count) < 1 else (_ for _ in ()).throw(KeyError))
        assert isinstance(CliRunner().invoke(extract, [*f"--store {store} {words}".split()]).exception, KeyError)
    assert open_store(store).finished("visual.bgru") == [0]
    do(extract, f"--store {store} {words}")
    first, second = open_store(store), open_store(whole)
    assert first.digest(["visual.bgru"]) == second.digest(["visual.bgru"])
    ids = first.clips.column("id")[32:64].tolist()
    failed = [ClipFeatures(None, None, Failure(clip, "face", "NoFace", "none")) for clip in ids]
    open_store(store, read_only=False).rewrite_shard("mouth.dct", 1, failed)  # the source was written anew
    do(extract, f"--store {store} {words} --max-failed 100%")
    entries = list(open_store(store).entries("visual.bgru"))
    assert [len(e.failures) for e in entries] == [0, 32, 0]


def test_on_the_split_that_the_run_was_trained_with_nothing_leaks(store: Path, bgru: Run, tmp_path: Path) -> None:
    do(extract, f"--store {store} --from-run {bgru.path} --stream visual.bgru --quiet")
    result = do(fuse, f"--store {store} {SMALL} --model transformer-vo --visual visual.bgru --out {tmp_path / 'o'}")
    assert "warning" not in result.stderr
    (run,) = (load_run(p.parent) for p in (tmp_path / "o").glob("*/config.json"))
    assert run.leaks == ()


def test_a_run_tested_with_clips_that_the_features_were_trained_on_is_warned_of(
    store: Path, bgru: Run, tmp_path: Path
) -> None:
    do(extract, f"--store {store} --from-run {bgru.path} --stream visual.bgru --quiet")
    words = f"--model transformer,transformer-ao --audio audio.logspec --visual visual.bgru --folds 3 --fold 0,1 --out {tmp_path}"
    result = do(fuse, f"--store {store} {SMALL} {words}")
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    assert len(warnings) == 1
    runs = [load_run(p.parent) for p in tmp_path.glob("transformer_*/config.json")]
    opened = open_store(store)
    ids, split = opened.clips.column("id"), opened.clips.column("split")
    tested = [np.isin(ids, run.predictions.ids) for run in runs]
    seen = sum(int((split[mask] == "train").sum()) for mask in tested)
    assert f"trained on {seen} of the {sum(map(np.sum, tested))} test clips" in warnings[0]
    for run, mask in zip(runs, tested, strict=True):
        known = {(leak.how, leak.split): leak.clips for leak in run.leaks}
        assert known["trained on", "test"] == (split[mask] == "train").sum()
        assert known["chosen by", "test"] == (split[mask] == "dev").sum()
        assert known["trained on", "dev"] > 0
    assert all(load_run(p.parent).leaks == () for p in tmp_path.glob("transformer-ao_*/config.json"))
    assert f"trained on {seen} of the" in (tmp_path / "report.html").read_text()


def test_each_fold_takes_the_features_of_its_own_run(store: Path, folds: list[Run], tmp_path: Path) -> None:
    pattern = f"{folds[0].path.parent}/bgru-vo_fold*"
    do(extract, f"--store {store} --from-run {pattern} --stream visual.bgru,visual.bgru@blur=4 --quiet")
    opened = open_store(store)
    names = [fold_name("visual.bgru", fold) for fold in range(3)]
    assert set(names) <= set(opened.streams())
    words = f"--model bgru-vo --visual visual.bgru --folds 3 --test-on visual.bgru@blur=4 --out {tmp_path / 'o'}"
    result = do(fuse, f"--store {store} {SMALL} {words}")
    assert "warning" not in result.stderr
    runs = [load_run(path.parent) for path in sorted((tmp_path / "o").glob("*/config.json"))]
    assert [run.document["features"]["streams"]["visual"]["digest"] for run in runs] == [
        opened.spec(name).digest() for name in names
    ]
    for run, name in zip(runs, names, strict=True):
        assert run.leaks == ()
        values = clips_of(opened, name)
        rows = np.flatnonzero(np.isin(opened.clips.column("id"), trained_on(run)))
        steps = np.concatenate([values[row][0][values[row][1]] for row in rows.tolist()]).astype(np.float32)
        mean = run.model().get_submodule("visual.front.standardise").mean
        np.testing.assert_allclose(mean.numpy(), steps.mean(0), atol=1e-4)
    assert runs[0].conditions == ("clean", "visual.bgru@blur=4")
    do(
        extract, f"--store {store} --from-run {tmp_path}/o/bgru-vo_fold* --stream visual.twice --quiet"
    )  # a run on each fold's own
    twice = open_store(store).spec(fold_name("visual.twice", 2))
    assert twice.source is not None
    assert twice.source["stream"] == names[2]
    words = f"--model transformer --audio audio.logspec --visual visual.bgru --folds 3 --out {tmp_path / 'both'}"
    result = do(fuse, f"--store {store} {SMALL} {words}")  # sound has other clips, and the same folds
    assert "warning" not in result.stderr


def trained_on(run: Run) -> list[str]:
    import pyarrow.parquet as pq

    table = pq.read_table(run.path / "clips.parquet")
    return [i for i, split in zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True) if split == "train"]


def test_one_folds_stream_leaks_into_the_other_folds(store: Path, folds: list[Run], tmp_path: Path) -> None:
    do(extract, f"--store {store} --from-run {folds[1].path} --stream visual.bgru --quiet")
    words = f"--model transformer-vo --visual visual.bgru.fold-1 --folds 3 --out {tmp_path / 'o'}"
    result = do(fuse, f"--store {store} {SMALL} {words}")
    runs = [load_run(path.parent) for path in sorted((tmp_path / "o").glob("*/config.json"))]
    assert [bool(run.leaks) for run in runs] == [True, False, True]
    assert sum("warning" in line for line in result.stderr.splitlines()) == 1


def test_what_can_not_be_is_said_in_one_line(store: Path, bgru: Run, folds: list[Run], tmp_path: Path) -> None:
    begin = f"--store {store} --quiet --stream visual.bgru"
    assert "no run here" in refused(f"{begin} --from-run {tmp_path / 'none'}")
    assert "no run fits" in refused(f"{begin} --from-run {tmp_path}/none*")
    assert "name the store" in refused(f"--from-run {bgru.path} --stream visual.bgru")
    assert "--limit: has nothing to do with --from-run" in refused(f"{begin} --from-run {bgru.path} --limit 3")
    assert "--derive: has nothing to do" in refused(f"{begin} --from-run {bgru.path} --derive standardise")
    assert "have one name" in refused(f"{begin},visual.other --from-run {bgru.path}")
    assert "not the folds of one setting" in refused(f"{begin} --from-run {bgru.path} --from-run {folds[0].path}")
    (probe,) = trained(store, tmp_path / "p", "--model probe-vo --visual mouth.dct")
    assert "probe-vo has no features a step" in refused(f"{begin} --from-run {probe.path}")
    old = Path(shutil.copytree(bgru.path, tmp_path / "old"))
    (old / "clips.parquet").unlink()
    assert "does not say which clips" in refused(f"{begin} --from-run {old}", BmlaError)
    document = json.loads((old / "config.json").read_text())
    document["features"]["streams"]["visual"]["digest"] = "0" * 64
    (old / "config.json").write_text(json.dumps(document))
    assert "was trained on other features than mouth.dct" in refused(f"{begin} --from-run {old}")
    assert "visual.bgru" not in open_store(store).streams()


def test_statistics_of_a_fold_come_from_its_training_clips(store: Path, tmp_path: Path) -> None:
    words = f"--model transformer-vo --visual mouth.dct.standardise --folds 3 --out {tmp_path}"
    do(extract, f"--store {store} --derive standardise --stream mouth.dct,{BLURRED} --folds 3 --quiet")
    result = do(fuse, f"--store {store} {SMALL} {words}/a --test-on mouth.dct.standardise@blur=4")
    assert "warning" not in result.stderr
    opened = open_store(store)
    for fold, path in enumerate(sorted((tmp_path / "a").glob("*/config.json"))):
        run = load_run(path.parent)
        assert run.config.fold == fold
        rows = np.flatnonzero(np.isin(opened.clips.column("id"), trained_on(run))).tolist()
        values = clips_of(opened, fold_name("mouth.dct.standardise", fold))
        steps = np.concatenate([values[row][0][values[row][1]] for row in rows]).astype(np.float64)
        np.testing.assert_allclose(steps.mean(0), 0, atol=2e-3)
        np.testing.assert_allclose(steps.std(0), 1, atol=2e-3)
    do(extract, f"--store {store} --derive standardise --stream mouth.dct --quiet")  # of the store's own split
    result = do(fuse, f"--store {store} {SMALL} {words}/b")
    (warning,) = [line for line in result.stderr.splitlines() if "warning" in line]
    assert "statistics were computed from" in warning
    assert "no labels" in warning
    assert "no statistics" in refused(f"--store {store} --derive subsample:2 --stream mouth.dct --folds 3")
    assert "of --derive alone" in refused(f"--dataset lrw --store {store} --folds 3")
