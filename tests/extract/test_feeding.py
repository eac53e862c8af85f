"""A device's process that is fed by others gives what one process gives alone; clips that failed are tried again."""

import json
import multiprocessing
import os
import pickle
import signal
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bmla.extract.arena import KEPT_BYTES, LOCKED_BYTES, Arena
from bmla.extract.encoders.device import laid_on
from bmla.extract.executors import portable, run_here, run_on_gpus
from bmla.extract.extraction import extract
from bmla.extract.faces.finding import FaceFinding
from bmla.extract.failures import attempt
from bmla.extract.feeding import run_fed
from bmla.extract.finishing import Ready, finish
from bmla.extract.pipeline import Done, Task, decode
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.times import Times, busy_share, time_of_device
from bmla.extract.tools import ToolConfig, Tools
from bmla.store import open_store
from bmla.store.errors import StoreError, UnknownName, UsageError, WorkerDied
from bmla.store.ledger import Failure
from bmla.store.verify import verify

JOINT = "av.avhubert@white=10,blur=4"
STREAMS = (
    *("audio.logspec", "audio.hubert", "mouth.dct", "face.vggface2", "mouth.roi@blur=4", "audio.logspec@white=0"),
    JOINT,
)
RANDOM = {
    "audio.hubert": "random:hubert-tiny",
    "face.vggface2": "random:vggface2",
    "av.avhubert": "random:avhubert-tiny",
}
CONFIG = ToolConfig(STREAMS, models=RANDOM, parameters={"av.avhubert": {"crop_px": 32}})


@pytest.fixture(scope="module")
def plan(tree, tmp_path_factory):
    store = tmp_path_factory.mktemp("fed") / "lrw.zarr"
    return make_plan(ExtractConfig("lrw", tree, store, CONFIG, shard_size=4))


@pytest.fixture(scope="module")
def tasks(plan):
    clips = plan.clips.rows(range(len(plan.clips)))
    broken = replace(clips[1], id="broken", video="nothing.mp4", audio=None)
    return [
        Task(0, (*clips[:2], broken), STREAMS),
        Task(1, tuple(clips[2:4]), STREAMS[1:]),
        Task(2, tuple(clips[4:]), STREAMS),
    ]


@pytest.fixture(scope="module")
def alone(plan, tasks):
    return list(run_here(tasks, CONFIG, plan.dataset.root, lambda n: None))


def same(found: list[Done], expected: list[Done]) -> None:
    assert [d.task.shard for d in found] == [d.task.shard for d in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.results.keys() == theirs.results.keys()
        for stream, clips in mine.results.items():
            for a, b in zip(clips, theirs.results[stream], strict=True):
                assert a.failure == b.failure, stream
                assert a.quality == b.quality
                if b.values is not None:
                    np.testing.assert_array_equal(a.values, b.values, err_msg=stream)
                    np.testing.assert_array_equal(a.valid, b.valid)


def test_a_fed_process_gives_what_one_gives_alone(plan, tasks, alone):
    advanced: list[int] = []
    found = list(run_fed(tasks, Tools(CONFIG), plan.dataset.root, advanced.append, 1))
    same(found, alone)
    assert sum(advanced) == sum(len(t.clips) for t in tasks)
    assert {"decode", "detect", "landmarks", "noise", "wait: decode", "encode: audio.hubert"} <= found[
        0
    ].times.seconds.keys()


def test_every_second_of_a_device_s_process_is_work_waiting_or_handing_over_and_counted_once(plan, tasks):
    pause_s, ends, total = 0.3, [], Times()
    tools = Tools(CONFIG)
    began = time.perf_counter()
    for done in run_fed(tasks, tools, plan.dataset.root, lambda n: None, 1):
        ends.append(time.perf_counter())
        total.join(done.times)
        time.sleep(pause_s)  # whoever takes the results keeps the device waiting
    seconds, wall_s = total.seconds, ends[-1] - began
    assert 0.9 * wall_s < time_of_device(seconds) <= wall_s
    assert seconds["wait: hand over"] > pause_s * (len(tasks) - 1)
    device_s = sum(s for name, s in seconds.items() if name == "detect" or name.startswith("encode: "))
    assert busy_share(seconds) == pytest.approx(device_s / time_of_device(seconds))
    assert busy_share(seconds) < 1 - pause_s * (len(tasks) - 1) / wall_s


def test_work_of_feeders_makes_no_device_busy():
    assert busy_share({"detect": 1.0, "encode: a": 2.0, "wait: decode": 1.0, "decode": 50.0, "write": 9.0}) == 0.75
    assert busy_share({"detect": 1.0, "decode": 50.0}) is None


def test_pictures_larger_than_a_slot_take_another_way_to_the_same_end(plan, tasks, alone):
    same(list(run_fed(tasks, Tools(CONFIG), plan.dataset.root, lambda n: None, 1, slot_bytes=4096)), alone)


def test_several_devices_share_the_shards(plan, tasks, alone):
    advanced: list[int] = []
    found = list(run_on_gpus(tasks, CONFIG, plan.dataset.root, advanced.append, ("cpu", "cpu"), 2))
    same(sorted(found, key=lambda d: d.task.shard), alone)
    assert sum(advanced) == sum(len(t.clips) for t in tasks)


def test_an_error_of_a_device_s_process_arrives(plan, tasks):
    unknown = replace(CONFIG, models={**RANDOM, "audio.hubert": "nobody/nothing"})
    with pytest.raises(Exception, match="nobody/nothing"):
        list(run_on_gpus(tasks, unknown, plan.dataset.root, lambda n: None, ("cpu", "cpu"), 2))


def test_a_killed_device_s_process_is_said_and_nothing_waits_for_it(plan, tasks):
    many = [replace(tasks[0], shard=i) for i in range(40)]
    runs = run_on_gpus(many, CONFIG, plan.dataset.root, lambda n: None, ("cpu", "cpu"), 2)
    next(runs)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="exit code -9"):
        list(runs)
    assert not multiprocessing.active_children()


class Broken:
    """An encoder whose device is lost, or that has a bug."""

    takes, frame_law = "sound", ""

    def __init__(self, error):
        self.error = error

    def finish(self, prepared):
        raise self.error


def test_a_lost_device_is_no_clip_s_fault_and_a_bug_in_one_clip_is(plan):
    clip = plan.clips[0]
    ready = [Ready(clip, {"audio.x": np.zeros(4)}, {})]
    with pytest.raises(torch.AcceleratorError):
        finish(Broken(torch.AcceleratorError("CUDA error: unspecified launch failure")), "audio.x", ready)
    (result,) = finish(Broken(ValueError("odd")), "audio.x", ready)
    assert result.failure == Failure(clip.id, "encode", "ValueError", "odd")


def test_a_record_names_no_folder_of_this_machine(plan, tmp_path):
    found = attempt(plan.clips[0], "video", (tmp_path / "secret" / "a.mp4").read_bytes)
    assert (found.error, found.message) == ("FileNotFoundError", "a.mp4: No such file or directory")


def test_a_data_folder_that_is_gone_stops_the_extraction(plan, tmp_path):
    with pytest.raises(StoreError, match="the data set's folder is gone"):
        decode(plan.clips[0], ("audio.logspec",), Tools(ToolConfig(("audio.logspec",))).kit, tmp_path / "gone")


def test_given_faces_that_are_none_are_refused_before_the_first_clip(tree, tmp_path):
    (tmp_path / "faces.csv").write_text("x,y,w,h\n1,2,3,4\n")
    finding = FaceFinding(policy="given", given=tmp_path / "faces.csv")
    config = ExtractConfig("lrw", tree, tmp_path / "s.zarr", ToolConfig(("mouth.roi",), finding=finding))
    with pytest.raises(UsageError, match="clip, frame, x0, y0, x1, y1"):
        make_plan(config)


def test_errors_come_back_from_other_processes():
    error = UnknownName("stream", "x", ("a", "b"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), str(again)) == (UnknownName, str(error))
    assert portable(error) is error
    assert "ZeroDivisionError" in str(portable(ZeroDivisionError("no")))


def test_slots_do_not_overlap_and_give_large_clips_memory_back():
    arena = Arena(3, 2 * KEPT_BYTES)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (7, 5, 3), np.uint8) for _ in range(3)]
    stored = [arena.put(slot, 11, array) for slot, array in enumerate(arrays)]
    for place, array in zip(stored, arrays, strict=True):
        assert place is not None
        np.testing.assert_array_equal(arena.view(place), array)
    large = arena.put(1, 0, np.full(KEPT_BYTES + 4096, 9, np.uint8))
    assert large is not None
    assert arena.put(1, 1, np.zeros(2 * KEPT_BYTES, np.uint8)) is None
    arena.release(1)
    assert not arena.view(large)[KEPT_BYTES:].any()
    np.testing.assert_array_equal(arena.view(stored[2]), arrays[2])


def test_no_array_lies_across_the_end_of_what_a_gpu_may_read_by_itself():
    arena = Arena(2, 4 * LOCKED_BYTES)
    small, large = np.arange(99, dtype=np.uint8), np.full(LOCKED_BYTES + 5, 7, np.uint8)
    first = arena.put(1, 0, small)
    behind = arena.put(1, first.stop, large)
    last = arena.put(1, behind.stop, small)
    assert (first.start, behind.start, last.start) == (0, LOCKED_BYTES, 2 * LOCKED_BYTES + 5)
    for place, array in ((first, small), (behind, large), (last, small)):
        np.testing.assert_array_equal(arena.view(place), array)
    filled = arena.put(0, 0, np.zeros(LOCKED_BYTES, np.uint8))
    assert (filled.start, filled.stop) == (0, LOCKED_BYTES)
    assert Arena(1, 4096).put(0, 4000, small) is None


@pytest.mark.gpu
def test_a_gpu_reads_what_is_locked_and_what_is_not():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device, arena = torch.device("cuda"), Arena(2, 4 * LOCKED_BYTES)
    assert arena.lock(device)
    rng = np.random.default_rng(0)
    for size in (1000, LOCKED_BYTES, LOCKED_BYTES + 1):
        array = rng.integers(0, 256, size, np.uint8)
        views = [arena.view(arena.put(slot, 0, array)) for slot in range(2)]
        assert torch.from_numpy(views[1]).is_pinned() == (size <= LOCKED_BYTES)
        np.testing.assert_array_equal(laid_on(views, device).cpu().numpy(), np.concatenate(views))


def test_clips_that_failed_are_tried_again_and_nothing_else(make_tree, tmp_path):
    root = make_tree(tmp_path / "retry")
    video = sorted(root.rglob("*.mp4"))[0]
    whole = video.read_bytes()
    video.write_bytes(b"no video")
    config = ExtractConfig("lrw", root, tmp_path / "s.zarr", ToolConfig(("audio.logspec", "mouth.roi")), shard_size=2)
    run = lambda **changes: extract(make_plan(replace(config, **changes)), lambda *a: None, lambda n: None)  # noqa: E731
    first = run()
    assert [s.failed for s in first.streams] == [1, 1]
    store = open_store(config.store)
    before = {s: [e.digest for e in store.entries(s)] for s in store.streams()}
    again = run(retry_failed=True)
    assert (again.shards_written, [s.failed for s in again.streams]) == (0, [1, 1])
    assert {s: [e.digest for e in store.entries(s)] for s in store.streams()} == before
    video.write_bytes(whole)
    assert run().shards_written == 0
    healed = run(retry_failed=True)
    assert (healed.shards_written, [s.failed for s in healed.streams]) == (1, [0, 0])
    assert verify(store, deep=True) == []
    other = extract(make_plan(replace(config, store=tmp_path / "t.zarr")), lambda *a: None, lambda n: None)
    assert open_store(other.store).digest(store.streams()) == store.digest(store.streams())


def test_babble_is_made_of_the_clips_that_are_extracted(tree, tmp_path):
    config = ExtractConfig("lrw", tree, tmp_path / "s.zarr", ToolConfig(("audio.logspec", "audio.logspec@babble=0")))
    summary = extract(make_plan(config), lambda *a: None, lambda n: None)
    assert [s.failed for s in summary.streams] == [0, 0]
    store = open_store(config.store)
    clean, noisy = (store.load(s).values.astype(float) for s in store.streams())
    assert clean.shape == noisy.shape
    assert np.abs(clean - noisy).mean() > 0.1
    assert str(tree) not in json.dumps(store.spec("audio.logspec@babble=0").to_dict())


def test_sound_that_is_no_number_is_one_record(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for name, value in (("good", 0.1), ("bad", np.nan)):
        write_wav(root / f"{name}.wav", np.where(np.arange(8000) == 50, value, 0.1).astype(np.float32))
    (root / "clips.csv").write_text("id,audio,label,split\ngood,good.wav,a,train\nbad,bad.wav,b,test\n")
    config = ExtractConfig("manifest", root / "clips.csv", tmp_path / "s.zarr", ToolConfig(("audio.logspec",)))
    summary = extract(make_plan(config), lambda *a: None, lambda n: None)
    assert [(s.done, s.failed) for s in summary.streams] == [(1, 1)]
    store = open_store(config.store)
    (entry,) = store.entries("audio.logspec")
    level = dict(zip(store.clips.column("id"), entry.quality["sound_level_dbfs"], strict=True))
    assert "NaN" in entry.failures[0].message
    assert level["good"] == pytest.approx(-20, abs=0.01)
    assert level["bad"] is None


def write_wav(path: Path, samples: np.ndarray) -> None:
    """32-bit float, mono, 16 kHz."""
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
