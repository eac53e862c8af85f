"""Derived streams: by the training split alone, with failures and masks handed on, killed at any moment and gone on with."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bmla.cli import main
from bmla.extract.derive import DeriveConfig, derive, read_derivation
from bmla.extract.plan import streams_of
from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import StoreBusy, StoreError, StoreMismatch, StreamNotDone, StreamNotFound, UsageError
from bmla.store.ledger import Failure
from bmla.store.lock import writer_lock
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.store import Store
from bmla.store.verify import verify

STREAM, NOISY, PICTURES, LAYERS = "audio.made", "audio.made@white=10", "mouth.made", "audio.layers"
SPLITS = ("train", "dev", None, "train", "test", "train", "train")
STEPS, LENGTH = 9, 5
FAILED = 5  # a clip of the training split


def spec_of(name: str, **changes: Any) -> StreamSpec:
    values: dict[str, Any] = {"dtype": "float16", "feature_shape": (LENGTH,), "modality": "audio", **changes}
    return StreamSpec(name=name, encoder="made", rate_hz=50.0, frame_law="50 a second", **values)


def clips_of(seed: int, shape: tuple[int, ...] = (LENGTH,), dtype: str = "float16") -> list[ClipFeatures]:
    rng = np.random.default_rng(seed)
    made = []
    for row in range(len(SPLITS)):
        if row == FAILED:
            made.append(ClipFeatures(None, None, Failure(f"c{row}", "face", "NoFace", "none"), {"track_jump": 2.0}))
            continue
        n = 3 + row % (STEPS - 2)
        values = rng.normal(size=(n, *shape)) * (1 + np.arange(shape[-1])) + 10 * row  # clips differ much
        valid = rng.random(n) > 0.3
        valid[0] = True
        made.append(ClipFeatures(values.astype(dtype), valid, quality={"track_jump": float(row)}))
    return made


def put(store: Store, spec: StreamSpec, clips: list[ClipFeatures]) -> None:
    store.add_stream(spec, STEPS)
    for shard in range(store.shards):
        start, stop = store.extent(shard)
        store.write_shard(spec.name, shard, clips[start:stop])


def make(path: Path, splits: tuple[str | None, ...] = SPLITS) -> Store:
    table = ClipTable.from_clips(
        Clip(f"c{i}", 0.0, 1.0, label="a", split=split, audio="a.wav") for i, split in enumerate(splits)
    )
    store = create_store(path, dataset="made", task="lip reading", classes=["a"], clips=table, shard_size=2)
    put(store, spec_of(STREAM), clips_of(1))
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make(tmp_path / "s.zarr")


def run(store: Store, text: str, *streams: str) -> list[tuple[int, int] | int]:
    seen: list[Any] = []
    config = DeriveConfig(store.path, read_derivation(text), streams or (STREAM,))
    derive(config, lambda *a: seen.append(a), seen.append)
    return seen


def rows_of(store: Store, stream: str, rows: list[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    packed = store.load(stream)
    return {
        row: (packed.values[a:b], packed.valid[a:b])
        for row, a, b in zip(packed.clips.tolist(), packed.offsets, packed.offsets[1:], strict=False)
        if row in rows
    }


ALL = list(range(len(SPLITS)))
TRAIN = [row for row in ALL if SPLITS[row] == "train" and row != FAILED]


def training_steps(store: Store, stream: str = STREAM) -> np.ndarray:
    return np.concatenate([v[m] for v, m in rows_of(store, stream, TRAIN).values()]).astype(np.float64)


def test_standardised_by_the_valid_steps_of_the_training_split(store: Store) -> None:
    assert run(store, "standardise") == [(0, 7), 2, 2, 2, 1]
    steps = training_steps(store)
    mean, spread = steps.mean(0), steps.std(0)
    before, after = rows_of(store, STREAM, ALL), rows_of(store, f"{STREAM}.standardise", ALL)
    assert before.keys() == after.keys() == set(ALL) - {FAILED}
    for row, (values, valid) in after.items():
        np.testing.assert_allclose(values, (before[row][0].astype(float) - mean) / spread, rtol=2e-3, atol=2e-3)
        np.testing.assert_array_equal(valid, before[row][1])
    whole = np.concatenate([v for v, _ in before.values()]).astype(float)
    assert not np.allclose(whole.mean(0), mean, rtol=0.05)  # another answer, had all clips a part in it
    assert verify(store, deep=True) == []


def test_projected_on_the_principal_components_of_the_training_split(store: Store) -> None:
    run(store, "pca:3")
    steps = training_steps(store)
    _, _, directions = np.linalg.svd(steps - steps.mean(0), full_matrices=False)
    before, after = rows_of(store, STREAM, ALL), rows_of(store, f"{STREAM}.pca-3", ALL)
    for row, (values, valid) in after.items():
        expected = (before[row][0].astype(float) - steps.mean(0)) @ directions[:3].T
        np.testing.assert_allclose(np.abs(values), np.abs(expected), rtol=5e-3, atol=5e-3)
        np.testing.assert_array_equal(valid, before[row][1])
    trained = training_steps(store, f"{STREAM}.pca-3")
    spread = np.cov(trained.T)
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-2 * spread.max())
    assert (np.diff(np.diag(spread)) <= 0).all()


def test_every_second_step_is_kept_with_its_validity_and_needs_no_training_split(tmp_path: Path) -> None:
    store = make(tmp_path / "t.zarr", ("test",) * len(SPLITS))
    put(store, spec_of(PICTURES, dtype="uint8", feature_shape=(4, 3), modality="visual"), clips_of(2, (4, 3), "uint8"))
    run(store, "subsample:2", STREAM, PICTURES)
    for stream in (STREAM, PICTURES):
        before, after = rows_of(store, stream, ALL), rows_of(store, f"{stream}.subsample-2", ALL)
        assert before.keys() == after.keys()
        for row, (values, valid) in after.items():
            np.testing.assert_array_equal(values, before[row][0][::2])
            np.testing.assert_array_equal(valid, before[row][1][::2])
    spec = store.spec(f"{STREAM}.subsample-2")
    assert (spec.rate_hz, spec.parameters, spec.dtype) == (25.0, {"every": 2}, "float16")
    assert store.steps(spec.name) == 5
    assert store.spec(f"{PICTURES}.subsample-2").dtype == "uint8"


def test_failures_and_facts_are_handed_on_and_overflow_is_a_failure(store: Store) -> None:
    clips = clips_of(1)
    assert clips[2].values is not None
    clips[2].values[:] = 65_504  # of no split: far from what the statistics come from
    put(store, spec_of("audio.loud"), clips)
    run(store, "standardise", "audio.loud")
    run(store, "pca:5", "audio.loud")
    entries = list(store.entries("audio.loud.standardise"))
    failures = {f.clip: f for e in entries for f in e.failures}
    assert failures["c5"] == Failure("c5", "face", "NoFace", "none")
    assert [e.quality["track_jump"] for e in entries] == [e.quality["track_jump"] for e in store.entries("audio.loud")]
    failed = {f.clip: f for e in store.entries("audio.loud.pca-5") for f in e.failures}
    assert failed.keys() == {"c2", "c5"}
    assert (failed["c2"].step, failed["c2"].error) == ("derive", "MediaError")
    assert "beyond float16" in failed["c2"].message


def test_a_specification_holds_the_source_and_what_the_statistics_come_from(store: Store) -> None:
    run(store, "pca:2")
    spec = store.spec(f"{STREAM}.pca-2")
    assert (spec.encoder, spec.parameters, spec.feature_shape, spec.rate_hz) == ("pca", {"components": 2}, (2,), 50.0)
    assert spec.source is not None
    assert spec.source["stream"] == STREAM
    assert StreamSpec.from_dict(spec.source["specification"]) == store.spec(STREAM)
    about = spec.source["statistics"]
    assert (about["stream"], about["split"], about["clips"]) == (STREAM, "train", len(TRAIN))
    assert about["steps"] == len(training_steps(store))
    assert len(about["features"]) == 64
    run(store, "standardise", f"{STREAM}.pca-2")
    twice = store.spec(f"{STREAM}.pca-2.standardise")
    assert twice.source is not None
    assert twice.source["specification"]["source"]["stream"] == STREAM
    assert streams_of(store.path) == [STREAM]  # extraction goes on with what it made, not with these


def test_a_noise_variant_is_derived_with_the_clean_streams_statistics(store: Store) -> None:
    put(store, spec_of(NOISY, noise={"parts": []}), clips_of(9))
    run(store, "standardise", NOISY)
    steps = training_steps(store)
    before, after = rows_of(store, NOISY, ALL), rows_of(store, "audio.made.standardise@white=10", ALL)
    for row, (values, _) in after.items():
        expected = (before[row][0].astype(float) - steps.mean(0)) / steps.std(0)
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-3)
    spec = store.spec("audio.made.standardise@white=10")
    assert spec.noise == {"parts": []}
    assert spec.source is not None
    assert spec.source["statistics"]["stream"] == STREAM
    put(store, spec_of("audio.lonely@white=10"), clips_of(9))
    with pytest.raises(UsageError, match=r"takes its statistics from audio\.lonely, which .* has not: extract it too"):
        run(store, "standardise", "audio.lonely@white=10")


def snapshot(store: Store) -> dict[str, bytes]:
    """Every file but the lock, without the ledger's timings."""
    files = {p.relative_to(store.path).as_posix(): p.read_bytes() for p in sorted(store.path.rglob("*")) if p.is_file()}
    files.pop(".writer.lock", None)
    for key in [k for k in files if k.startswith("ledger/")]:
        entry = json.loads(files[key])
        files[key] = json.dumps({k: v for k, v in entry.items() if k not in ("seconds", "seal")}).encode()
    return files


@pytest.mark.parametrize("after", range(0, 24, 3))
def test_stopped_between_any_two_writes_it_goes_on_to_the_same_bytes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    shutil.copytree(store.path, tmp_path / "whole.zarr")
    whole = open_store(tmp_path / "whole.zarr", read_only=False)
    run(whole, "pca:3")
    left = [after]
    kept = {name: getattr(type(store.place), name) for name in ("write", "digest")}

    def stopping(name: str) -> Any:
        def call(self: Any, *args: Any) -> Any:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return kept[name](self, *args)

        return call

    for name in kept:
        monkeypatch.setattr(type(store.place), name, stopping(name))
    with pytest.raises(KeyboardInterrupt):
        run(store, "pca:3")
    monkeypatch.undo()
    run(store, "pca:3")
    assert run(store, "pca:3") == [(7, 7)]
    assert snapshot(store) == snapshot(whole)
    assert verify(store, deep=True) == []


def test_a_shard_whose_source_was_written_anew_is_derived_anew(store: Store) -> None:
    run(store, "subsample:2")
    clips = clips_of(1)
    values, valid = np.ones((4, LENGTH), np.float16), np.ones(4, bool)
    start, stop = store.extent(FAILED // 2)
    again = [*clips[start:FAILED], ClipFeatures(values, valid), *clips[FAILED + 1 : stop]]
    store.rewrite_shard(STREAM, FAILED // 2, again)
    assert run(store, "subsample:2") == [(5, 7), 2]
    np.testing.assert_array_equal(rows_of(store, f"{STREAM}.subsample-2", [FAILED])[FAILED][0], values[::2])
    assert run(store, "subsample:2") == [(7, 7)]


def test_other_statistics_are_another_stream(store: Store) -> None:
    run(store, "standardise")
    clips = clips_of(1)
    again = [ClipFeatures(np.ones((4, LENGTH), np.float16), np.ones(4, bool)), clips[1]]
    store.rewrite_shard(STREAM, 0, again)
    with pytest.raises(
        StoreMismatch, match=r"audio\.made\.standardise was made otherwise .*source\.statistics\.features"
    ):
        run(store, "standardise")


def test_what_can_not_be_is_one_line_and_leaves_the_store_as_it_was(store: Store, tmp_path: Path) -> None:
    put(store, spec_of(PICTURES, dtype="uint8", feature_shape=(4, 3), modality="visual"), clips_of(2, (4, 3), "uint8"))
    put(store, spec_of(LAYERS, feature_shape=(2, 3)), clips_of(3, (2, 3)))
    store.add_stream(spec_of("audio.begun"), STEPS)
    before = snapshot(store)
    for text, stream, error, words in (
        ("pca:6", STREAM, UsageError, r"pca:6 of audio\.made: a step has 5 numbers, expected at most as many"),
        ("pca:2", LAYERS, UsageError, r"pca-2 of audio\.layers: a step is 2 x 3, expected one vector"),
        ("standardise", PICTURES, UsageError, r"standardise of mouth\.made: it holds 4 x 3 pictures"),
        ("standardise", "audio.begun", StreamNotDone, r"stream audio\.begun is not done: 4 of 4 shards are missing"),
        ("standardise", "audio.none", StreamNotFound, r'no stream "audio\.none"; it has: audio\.begun'),
    ):
        with pytest.raises(error, match=words):
            run(store, text, STREAM, stream)
    assert snapshot(store) == before
    with writer_lock(store.path), pytest.raises(StoreBusy):
        run(store, "standardise")
    bare = make(tmp_path / "bare.zarr", ("dev", "test", None, "test", "test", "test", "dev"))
    with pytest.raises(UsageError, match=r"no clip is in the train split.*\(splits: - 1, dev 2, test 4\)"):
        run(bare, "pca:2")
    few = make(tmp_path / "few.zarr", ("train", *("test",) * 6))
    with pytest.raises(
        UsageError, match=r"pca:5 of audio\.made: the train split has \d valid steps, expected more than 5"
    ):
        run(few, "pca:5")
    lost = make(tmp_path / "lost.zarr", (*("test",) * FAILED, "train", "test"))
    with pytest.raises(UsageError, match=r"audio\.made has no valid step in the train split"):
        run(lost, "standardise")


@pytest.mark.parametrize(
    "text", ["", "pca", "pca:0", "pca:-1", "pca:x", "subsample:1", "standardise:2", "lda:3", "pca:3 "]
)
def test_only_known_derivations_are_read(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no derivation: expected pca:COMPONENTS, standardise or subsample:N"):
        read_derivation(text)


def test_standardising_several_layers_treats_each_number_alone(store: Store) -> None:
    put(store, spec_of(LAYERS, feature_shape=(2, 3)), clips_of(3, (2, 3)))
    run(store, "standardise", LAYERS)
    steps, made = training_steps(store, LAYERS), training_steps(store, f"{LAYERS}.standardise")
    np.testing.assert_allclose(made, (steps - steps.mean(0)) / steps.std(0), atol=5e-3)


def command(*words: Any) -> Any:
    return CliRunner().invoke(main, ["extract", *map(str, words)])


def test_the_command(store: Store) -> None:
    words = ("--store", store.path, "--max-failed", "20%", "--stream", STREAM)
    shown = command(*words, "--derive", "pca:2")
    assert shown.exit_code == 0, shown.output
    assert "components hold" in shown.output
    assert "audio.made.pca-2: 6 done, 1 failed" in shown.output
    shown = command(*words, "--derive", "standardise", "--json")
    assert json.loads(shown.output[shown.output.index("{") :])["streams"][0]["stream"] == "audio.made.standardise"
    assert (
        command("--store", store.path, "--quiet", "--stream", STREAM, "--derive", "pca:2").exit_code == 1
    )  # 1 of 7 failed
    for extra, says in (
        (("--gpu", 0), "--gpu: has nothing to do with --derive"),
        (("--dataset", "lrw"), "--dataset: has nothing to do with --derive"),
    ):
        refused = command(*words, "--derive", "pca:2", *extra)
        assert (refused.exit_code, says in refused.output) == (2, True)
    assert "name the store by --store" in command("--derive", "pca:2").output
    missing = command("--store", store.path)
    assert missing.exit_code == 2
    assert "Missing option --dataset" in missing.output


def test_a_store_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        derive(DeriveConfig(tmp_path / "no", read_derivation("pca:2"), (STREAM,)), lambda *a: None, lambda n: None)
