"""Clips become features or failure records, each on its own; killed or not, the store's bytes are the same."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from bmla.extract.extraction import extract
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.tools import ToolConfig
from bmla.store import open_store
from bmla.store.errors import StoreBusy, StoreMismatch, UnknownName, UsageError
from bmla.store.lock import writer_lock
from bmla.store.verify import collect, verify

FRAMES, SIZE = 29, 256  # of the tree's clips
STREAMS = ("audio.logspec", "mouth.roi", "mouth.dct")


def config(root, store, streams=STREAMS, **changes):
    return ExtractConfig("lrw", root, store, ToolConfig(streams), shard_size=2, **changes)


def run(root, store, streams=STREAMS, **changes):
    seen = []
    summary = extract(
        make_plan(config(root, store, streams, **changes)), lambda *a: seen.append(a), lambda n: seen.append(n)
    )
    return summary, open_store(store), seen


def snapshot(store):
    """Bytes of everything that may not differ between two extractions: all files but the ledger's timings."""
    files = {p.relative_to(store.path).as_posix(): p.read_bytes() for p in sorted(store.path.rglob("*")) if p.is_file()}
    for key in [k for k in files if k.startswith("ledger/")]:
        entry = json.loads(files[key])
        files[key] = json.dumps({k: v for k, v in entry.items() if k not in ("seconds", "seal")}).encode()
    return files


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory):
    """The store of an uninterrupted extraction in one process."""
    return run(tree, tmp_path_factory.mktemp("whole") / "lrw.zarr")


def test_every_clip_gets_features_of_the_promised_shape(whole):
    summary, store, seen = whole
    assert seen[0] == (0, 6)
    assert sum(seen[1:]) == 6
    assert [(s.done, s.failed) for s in summary.streams] == [(6, 0)] * 3
    assert store.array("audio.logspec", "values").shape == (6, (18_560 - 400) // 160 + 1, 240)
    assert store.array("mouth.roi", "values").shape == (6, FRAMES, 80, 80)
    assert store.array("mouth.dct", "values").shape == (6, FRAMES, 128)
    assert verify(store, deep=True) == []
    for stream in STREAMS:
        values = store.load(stream).values
        assert values.astype(np.float64).std() > 0
        assert store.load(stream).valid.all()


def test_a_specification_names_weights_and_versions_and_no_path(whole):
    _, store, _ = whole
    text = json.dumps(store.spec("mouth.dct").to_dict())
    assert str(store.path.parent) not in text
    assert "/" not in text.replace("w/o", "")
    detector = store.spec("mouth.dct").detector
    assert len(detector["weights"]["sha256"]) == 64
    assert len(detector["landmarks"]["weights"]["sha256"]) == 64
    assert {"bmla", "torch", "dlib-bin"} <= store.spec("mouth.dct").versions.keys()


def test_two_processes_give_the_same_bytes_as_one(whole, tree, tmp_path):
    _, store, seen = run(tree, tmp_path / "lrw.zarr", workers=2)
    assert sum(seen[1:]) == 6
    assert snapshot(store) == snapshot(whole[1])


def test_a_stream_is_added_without_touching_the_others(whole, tree, tmp_path):
    _, store, _ = run(tree, tmp_path / "lrw.zarr", STREAMS[:1])
    before = snapshot(store)
    _, store, _ = run(tree, tmp_path / "lrw.zarr", STREAMS[1:])
    after = snapshot(store)
    assert {k: after[k] for k in before} == before
    assert after == snapshot(whole[1])


def test_running_again_does_nothing(whole, tree):
    before = snapshot(whole[1])
    summary, store, seen = run(tree, whole[1].path)
    assert summary.shards_written == 0
    assert seen == [(6, 6)]
    assert snapshot(store) == before


def broken_tree(make_tree, write, root, portrait):
    make_tree(root)
    faceless = np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8)
    still = np.stack([portrait[20:, 20:][:SIZE, :SIZE]] * FRAMES)
    whole = (root / "ABOUT/test/ABOUT_00001.mp4").read_bytes()
    (root / "ABOUT/test/ABOUT_00001.mp4").write_bytes(whole[: len(whole) // 2])
    write(root / "ABOUT/train/ABOUT_00001.mp4", still, 1, sound=False)
    write(root / "PEOPLE/train/PEOPLE_00001.mp4", faceless, 1)
    write(root / "PEOPLE/test/PEOPLE_00001.mp4", still[:10], 1)
    return root


def test_each_bad_clip_is_one_record_and_the_rest_is_done(make_tree, write, portrait, tmp_path):
    _, store, _ = run(broken_tree(make_tree, write, tmp_path / "lrw", portrait), tmp_path / "lrw.zarr")
    failures = {s: {f.clip: f for e in store.entries(s) for f in e.failures} for s in STREAMS}
    truncated, silent, faceless, short = (
        "test/ABOUT_00001",
        "train/ABOUT_00001",
        "train/PEOPLE_00001",
        "test/PEOPLE_00001",
    )
    assert failures["audio.logspec"].keys() == {truncated, silent, short}
    assert failures["audio.logspec"][silent].error == "NoSound"
    assert failures["mouth.roi"].keys() == failures["mouth.dct"].keys() == {truncated, faceless, short}
    assert failures["mouth.roi"][faceless].error == "NoFace"
    assert failures["mouth.roi"][faceless].step == "face"
    assert "video ends at 0.40 s" in failures["mouth.roi"][short].message
    assert not any(str(tmp_path) in f.message for by_clip in failures.values() for f in by_clip.values())
    packed = store.load("mouth.roi")
    ids = store.clips.column("id")
    assert set(ids) - set(ids[packed.clips]) == failures["mouth.roi"].keys()
    assert verify(store, deep=True) == []


def test_frames_without_a_face_are_marked_and_the_clip_is_kept(make_tree, write, portrait, tmp_path):
    root = make_tree(tmp_path / "lrw")
    images = np.stack([portrait[20:, 20:][:SIZE, :SIZE]] * FRAMES)
    images[10:14] = 0
    write(root / "ABOUT/train/ABOUT_00001.mp4", images, 1)
    _, store, _ = run(root, tmp_path / "lrw.zarr", ("mouth.dct",))
    row = list(store.clips.column("id")).index("train/ABOUT_00001")
    packed = store.load("mouth.dct")
    at = packed.clips.tolist().index(row)
    valid = packed.valid[packed.offsets[at] : packed.offsets[at + 1]]
    assert np.flatnonzero(~valid).tolist() == [10, 11, 12, 13]


def test_another_data_set_plan_or_specification_is_refused_by_name_and_leaves_the_store_as_it_was(
    whole, tree, make_tree, tmp_path
):
    before = snapshot(whole[1])
    other = make_tree(tmp_path / "lrw", 2)
    with pytest.raises(StoreMismatch, match="clips: 12 here, 6 there"):
        run(other, whole[1].path)
    with pytest.raises(StoreMismatch, match="limit: 3 here"):
        run(tree, whole[1].path, limit=3)
    plan = make_plan(config(tree, whole[1].path))
    streams = tuple(replace(s, spec=replace(s.spec, parameters={**s.spec.parameters, "x": 1})) for s in plan.streams)
    with pytest.raises(StoreMismatch, match=r"parameters\.x: 1 here, None there"):
        extract(replace(plan, streams=streams), lambda *a: None, lambda n: None)
    assert snapshot(whole[1]) == before


def test_a_second_extraction_into_the_same_store_is_refused(whole, tree):
    with writer_lock(whole[1].path), pytest.raises(StoreBusy, match="another bmla process"):
        run(tree, whole[1].path)


def test_a_limit_draws_evenly_and_always_the_same(tree, tmp_path):
    plans = [make_plan(config(tree, tmp_path / "x", limit=3)) for _ in range(2)]
    assert plans[0].clips.digest() == plans[1].clips.digest()
    assert len(plans[0].clips) == 3


def test_unknown_names_and_empty_roots_are_usage_errors(tree, tmp_path):
    with pytest.raises(UnknownName, match=r"audio\.x"):
        make_plan(config(tree, tmp_path / "x", ("audio.x",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        make_plan(config(tmp_path / "empty", tmp_path / "x"))
    with pytest.raises(UsageError):
        make_plan(config(tmp_path / "missing", tmp_path / "x"))


SCRIPT = """
import sys
from pathlib import Path
from bmla.extract.extraction import extract
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.tools import ToolConfig
if __name__ == "__main__":
    root, store, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    tools = ToolConfig(("audio.logspec", "mouth.roi", "mouth.dct"))
    plan = make_plan(ExtractConfig("lrw", root, store, tools, shard_size=2, workers=workers))
    extract(plan, lambda *a: print("begin", flush=True), lambda n: n and print("clips", flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 3), (2, 2)])
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(whole, tree, tmp_path, workers, kills):
    (tmp_path / "work.py").write_text(SCRIPT)
    store = tmp_path / "lrw.zarr"
    command = [sys.executable, str(tmp_path / "work.py"), str(tree), str(store), str(workers)]
    rng = np.random.default_rng(workers)
    done = 0
    for attempt in range(kills + 1):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            if attempt < kills:  # some lines of progress and a moment later
                for _ in range(attempt + 1):
                    process.stdout.readline()
                time.sleep(rng.uniform(0, 0.1))
                process.send_signal(signal.SIGKILL)
            process.communicate()
        left = open_store(store)
        assert [p for p in verify(left, deep=True) if not p.harmless] == []
        before, done = done, sum(len(left.finished(s)) for s in left.streams())
        assert done >= before
    assert process.returncode == 0
    assert left.digest(left.streams()) == whole[1].digest(whole[1].streams())
    collect(open_store(store, read_only=False))
    assert snapshot(left) == snapshot(whole[1])


def test_a_read_only_target_is_one_clear_line(tree, tmp_path):
    from bmla.store.errors import StoreError

    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write the store here"):
        run(tree, tmp_path / "file/lrw.zarr")


def test_a_full_disk_stops_cleanly_and_the_next_run_goes_on(whole, tree, tmp_path, monkeypatch):
    from bmla.store import ledger
    from bmla.store.errors import StoreError

    real, written = ledger.write_entry, []

    def full(*arguments):
        if len(written) == 2:
            raise StoreError("cannot write the store here: No space left on device")
        written.append(real(*arguments))

    monkeypatch.setattr(ledger, "write_entry", full)
    with pytest.raises(StoreError, match="No space left"):
        run(tree, tmp_path / "lrw.zarr")
    monkeypatch.undo()
    _, store, _ = run(tree, tmp_path / "lrw.zarr")
    assert snapshot(store) == snapshot(whole[1])
    shutil.rmtree(tmp_path / "lrw.zarr")
