"""How long an extraction will take: of what is left, not of what is done."""

from dataclasses import replace

import pytest

from bmla.extract.estimate import Estimate, estimate, seconds_a_clip
from bmla.extract.executors import FEEDERS_PER_GPU
from bmla.extract.extraction import extract
from bmla.extract.pipeline import Done, Task
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.report import estimate_line
from bmla.extract.times import Times
from bmla.extract.tools import ToolConfig
from bmla.store import open_store
from bmla.store.errors import StoreMismatch

SOUND = ("audio.logspec",)


def plan_of(tree, store, streams=SOUND, **changes):
    return make_plan(ExtractConfig("lrw", tree, store, ToolConfig(streams), shard_size=2, **changes))


def run(plan):
    return extract(plan, lambda *a: None, lambda n: None)


def unfinish(store, shard):
    (store.path / f"ledger/audio.logspec/{shard:06d}.json").unlink()


def files(store):
    return {p: p.stat().st_mtime_ns for p in store.rglob("*")}


def test_all_clips_of_a_store_that_is_not_there_and_nothing_is_written(tree, tmp_path):
    plan = plan_of(tree, tmp_path / "s.zarr")
    found = estimate(plan)
    assert found.seconds > 0
    assert (found.left, found.clips, found.failed) == (6, 4, 0)
    assert "for 6 clips, by 4 tried here" in estimate_line(plan, found)
    many = estimate(replace(plan, config=replace(plan.config, workers=1000)))
    assert many.seconds < found.seconds / 10
    assert not (tmp_path / "s.zarr").exists()


def test_the_slower_of_feeders_and_gpus_decides_and_one_gpu_named_twice_is_one(tree, tmp_path):
    plan = plan_of(tree, tmp_path / "s.zarr")

    def seconds(devices, workers, device_s=8.0, feeding_s=40.0):
        times = Times({"detect": device_s / 4, "encode: x": 3 * device_s / 4, "decode": feeding_s})
        done = Done(Task(0, plan.clips.rows(range(4)), SOUND), {}, device_s + feeding_s, times)
        return seconds_a_clip(replace(plan, config=replace(plan.config, devices=devices, workers=workers)), done)

    assert seconds(("cuda:0",), 10) == pytest.approx(8.0 / 4)
    assert seconds(("cuda:0",), 2) == pytest.approx(40.0 / 2 / 4)
    assert seconds(("cuda:0", "cuda:1"), 10) == pytest.approx(4.0 / 4)
    assert seconds(("cuda:0", "cuda:0"), 10) == pytest.approx(8.0 / 4)
    assert seconds(("cuda:0", "cuda:0"), 30, 1.0, 60.0) == pytest.approx(60.0 / FEEDERS_PER_GPU / 4)


def test_only_what_is_left_counts(tree, tmp_path):
    plan = plan_of(tree, tmp_path / "s.zarr")
    run(plan)
    store = open_store(tmp_path / "s.zarr")
    before = files(store.path)
    assert estimate(plan) == Estimate(0.0, 0, 0, 0)
    assert estimate_line(plan, estimate(plan)).startswith("nothing is left to do: all 6 clips are in ")
    assert files(store.path) == before
    unfinish(store, 1)
    found = estimate(plan)
    assert (found.left, found.clips) == (2, 2)
    assert found.seconds > 0
    assert "for the 2 of 6 clips that are left" in estimate_line(plan, found)


def test_a_stream_that_is_new_counts_for_all_clips_and_one_that_is_begun_for_the_rest(tree, tmp_path):
    run(plan_of(tree, tmp_path / "s.zarr"))
    unfinish(open_store(tmp_path / "s.zarr"), 0)
    found = estimate(plan_of(tree, tmp_path / "s.zarr", (*SOUND, "audio.logspec@white=0")))
    assert found.left == 6
    assert found.clips == 2 + 2  # of shard 0 with both streams, of the others with the new one


def test_failed_clips_count_where_they_are_to_be_tried_again(make_tree, write, portrait, tmp_path):
    root = make_tree(tmp_path / "lrw")
    (root / "ABOUT/test/ABOUT_00001.mp4").write_bytes(b"nothing")
    run(plan_of(root, tmp_path / "s.zarr"))
    assert estimate(plan_of(root, tmp_path / "s.zarr")).left == 0
    again = estimate(plan_of(root, tmp_path / "s.zarr", retry_failed=True))
    assert (again.left, again.failed) == (1, 1)


def test_a_store_of_something_else_is_refused(tree, tmp_path):
    run(plan_of(tree, tmp_path / "s.zarr"))
    with pytest.raises(StoreMismatch, match="limit: 3 here"):
        estimate(plan_of(tree, tmp_path / "s.zarr", limit=3))
