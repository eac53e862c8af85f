import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bmla.fuse import run as module
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.predictions import HEADS
from bmla.fuse.run import Run, RunDamaged, load_run, run_name
from bmla.fuse.sweep import run_sweep
from bmla.store.errors import StoreError, UsageError

Make = Callable[..., Features]
Tiny = Callable[..., RunConfig]
FILES = ["config.json", "metrics.jsonl", "model.safetensors", "predictions.parquet", "test.json"]


@pytest.fixture(scope="module")
def config(tiny: Tiny) -> RunConfig:
    return tiny("balancemla", epochs=1, finetune_epochs=1)


@pytest.fixture(scope="module")
def finished(config: RunConfig, features: Features, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_sweep([config], features, tmp_path_factory.mktemp("finished"), provenance={"command": "bmla fuse"})[0]


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy, to be damaged."""
    shutil.copytree(finished.path, tmp_path / finished.name)
    return load_run(tmp_path / finished.name)


def test_a_run_holds_its_six_files_and_says_where_it_comes_from(
    run: Run, config: RunConfig, features: Features
) -> None:
    assert sorted(p.name for p in run.path.iterdir()) == ["clips.parquet", *FILES]
    document = json.loads((run.path / "config.json").read_text())
    assert RunConfig.from_dict(document["config"]) == config
    assert document["features"]["digest"] == features.digest
    assert document["features"]["streams"]["audio"]["length"] == 12
    assert document["classes"] == list(features.classes)
    assert document["command"] == "bmla fuse"
    assert set(document["versions"]) == {"bmla", "python", "numpy", "scikit-learn", "torch"}
    assert set(document["branches"]) == {"audio", "visual"}
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1]


def test_a_loaded_run_answers_as_the_stored_predictions_say(run: Run, features: Features) -> None:
    loaded = load_run(run.path)
    again, stored = loaded.predict(features), loaded.predictions
    assert again.ids.tolist() == stored.ids.tolist()
    assert again.ids.tolist() == features.ids[features.split == "test"].tolist()
    for head in HEADS:
        np.testing.assert_allclose(getattr(again, head), getattr(stored, head), atol=1e-6)
    assert (stored.predicted == stored.labels).mean() == loaded.scores["test"]["accuracy"]
    assert loaded.scores["test"]["clips"] == len(stored)
    assert len(loaded.predict(features, split="dev")) == (features.split == "dev").sum()


def test_predictions_can_be_read_without_bmla(run: Run) -> None:
    table = pq.read_table(run.path / "predictions.parquet")
    assert set(table.column_names) == {"id", "group", "label", "audio_present", "visual_present", *HEADS}
    assert np.array(table["result"].to_pylist()).shape == (60, 4)


def test_the_same_run_gives_the_same_bytes(config: RunConfig, features: Features, run: Run, tmp_path: Path) -> None:
    again = run_sweep([config], features, tmp_path / "elsewhere")[0]
    assert again.name == run.name
    for name in ("clips.parquet", *FILES[1:]):  # config.json tells seconds and command
        assert (again.path / name).read_bytes() == (run.path / name).read_bytes(), name


def test_a_run_that_dies_while_it_is_written_leaves_nothing_that_looks_whole(
    config: RunConfig, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise KeyboardInterrupt

    for owner, step in ((module, "write_predictions"), (module, "save_file"), (Path, "rename")):
        monkeypatch.setattr(owner, step, die)
        with pytest.raises(KeyboardInterrupt):
            run_sweep([config], features, tmp_path)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.undo()
    assert run_sweep([config], features, tmp_path)[0].scores["test"]["clips"] == 60


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    config: RunConfig, features: Features, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write a run here"):
        run_sweep([config], features, tmp_path / "file")


def test_a_setting_that_a_later_version_adds_leaves_the_digest_as_it_was(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plain = run.digest(), RunConfig.to_dict
    monkeypatch.setattr(RunConfig, "to_dict", lambda self: {**plain(self), "added_later": 0})
    assert run.digest() == before
    assert replace(run, config=replace(run.config, lambda_audio=0.5)).digest() != before


def test_other_features_are_refused(run: Run, make_features: Make, features: Features) -> None:
    audio = features.stream("audio")
    other = replace(features, audio=replace(audio, digest="0" * 64))
    with pytest.raises(
        UsageError, match=r"not the audio features that it was trained on: got audio.arrays 000000000000, expected"
    ):
        run.predict(other)
    with pytest.raises(UsageError, match="it was trained on 4 other classes: ABOUT, AFTER"):
        run.predict(replace(features, classes=("a", "b", "c", "d")))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(run: Run, name: str, features: Features) -> None:
    (run.path / name).unlink()
    if name == "config.json":
        with pytest.raises(UsageError, match="no run here: expected a folder that `bmla fuse` wrote"):
            load_run(run.path)
        return
    with pytest.raises(RunDamaged, match=name.replace(".", r"\.") if name != "metrics.jsonl" else "damaged"):
        use(run.path)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_damage(run: Run, name: str) -> None:
    path = run.path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunDamaged):
        use(run.path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"config": {"model": "balancemla", "layers": 10**9}},
        {"config": {"model": "other"}},
        {"config": None},
        {"classes": "ABOUT"},
        {"classes": [1, 2]},
        {
            "features": {
                "streams": {"audio": {"length": 10**12, "rate_hz": 50.0}, "visual": {"length": 8, "rate_hz": 25.0}}
            }
        },
        {"features": {"streams": {"audio": {"length": 12, "rate_hz": 0}, "visual": {"length": 8, "rate_hz": 25.0}}}},
        {"features": {"streams": {}}},
    ],
)
def test_a_strangers_config_is_checked_before_it_is_built(run: Run, change: dict) -> None:
    path = run.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunDamaged):
        use(run.path)


def test_weights_of_another_shape_are_damage(run: Run) -> None:
    path = run.path / "config.json"
    document = json.loads(path.read_text())
    document["config"]["width"] = 32
    path.write_text(json.dumps(document))
    with pytest.raises(RunDamaged, match=r"model.safetensors: can't be used"):
        load_run(run.path).model()


def use(path: Path) -> None:
    loaded = load_run(path)
    loaded.model()
    assert len(loaded.predictions) > 0


def test_names_tell_settings_apart(tiny: Tiny, features: Features) -> None:
    configs = [
        tiny("balancemla"),
        tiny("balancemla", seed=1),
        tiny("balancemla", ratio="1:2"),
        tiny("balancemla", clw=False),
        tiny("balancemla", lr=1e-3),
        tiny("balancemla-ao"),
    ]
    names = [run_name(c, features) for c in configs] + [run_name(configs[0], replace(features, digest="0" * 64))]
    assert len(set(names)) == len(names)
    assert names[2].startswith("balancemla_1-2_seed0_")
    assert names[3].startswith("balancemla_without-clw_1-1_seed0_")
    assert names[5].startswith("balancemla-ao_seed0_")


def test_loading_does_not_run_what_is_in_the_weights(run: Run) -> None:
    torch.save({"x": torch.zeros(1)}, run.path / "model.safetensors")
    with pytest.raises(RunDamaged, match="can't be used"):
        load_run(run.path).model()
