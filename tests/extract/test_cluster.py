"""Shards on a Dask cluster: the bytes of a local extraction, whatever happens to workers; what can't work says why."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import LocalCluster

from bmla.extract import cluster
from bmla.extract.cluster import everywhere, run_on_cluster
from bmla.extract.cluster_worker import device_of, versions_here
from bmla.extract.extraction import extract
from bmla.extract.pipeline import Task, run_shard
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.tools import ToolConfig, Tools
from bmla.store import cluster as connection
from bmla.store import open_store
from bmla.store.clips import Clip
from bmla.store.cluster import ClusterError, find_place, unlike
from bmla.store.errors import BmlaError, UsageError

STREAM = "audio.logspec"
CONFIG = ToolConfig((STREAM,))
TONES, SHARD = 6, 2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sounds(write, tmp_path_factory):
    """Six short clips in one folder, and the shards of two clips each."""
    root = tmp_path_factory.mktemp("sounds")
    for number in range(TONES):
        write(root / f"{number}.mp4", np.zeros((10, 16, 16, 3), np.uint8), number)
    return root


def shards(count=TONES):
    clips = [Clip(str(n), 0.0, 0.4, video=f"{n}.mp4", audio=f"{n}.mp4") for n in range(count)]
    return [Task(n // SHARD, tuple(clips[n : n + SHARD]), (STREAM,)) for n in range(0, count, SHARD)]


@pytest.fixture(scope="module")
def scheduler():
    """A running cluster that belongs to somebody else: two workers, of which none offers a GPU."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as running:
        yield running.scheduler_address


def values(done):
    """What a store would be given, by shard."""
    return {d.task.shard: [r.values.tobytes() for r in d.results[STREAM]] for d in done}


def expected(root, tasks):
    tools = Tools(CONFIG)
    return values([run_shard(task, tools, root, lambda n: None) for task in tasks])


@contextmanager
def stuck(path, kills):
    """A pipe in the place of a sound: whoever opens it waits. Its first `kills` readers are killed; then it is the sound again."""
    whole, readers = path.read_bytes(), []
    path.unlink()
    os.mkfifo(path)

    def watch():
        while len(readers) < kills:
            holder = reader_of(path)
            if holder is None or holder in readers:
                time.sleep(0.02)
                continue
            if len(readers) + 1 == kills:
                other = path.with_suffix(".whole")
                other.write_bytes(whole)
                other.replace(path)
            time.sleep(0.3)  # its word that it began is on the way
            os.kill(holder, signal.SIGKILL)
            readers.append(holder)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield readers
    finally:
        thread.join(20)
        path.unlink()
        path.write_bytes(whole)


def reader_of(path):
    """The process that waits for somebody to write into the pipe; None where there is none."""
    try:
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        for process in psutil.Process().children(recursive=True):
            for link in Path(f"/proc/{process.pid}/fd").glob("*"):
                if link.exists() and link.resolve() == path:
                    return process.pid
        return None
    finally:
        _writers.append(writer)  # held open, so that the reader goes on waiting


_writers: list[int] = []


@pytest.fixture(autouse=True)
def no_writer_left():
    yield
    while _writers:
        os.close(_writers.pop())


def test_a_store_filled_by_a_cluster_is_that_of_one_process(tree, tmp_path):
    def fill(store, clips, **changes):
        plan = make_plan(ExtractConfig("lrw", tree, store, CONFIG, shard_size=2, **changes))
        extract(plan, lambda *a: None, clips.append, told.append)
        return open_store(store).digest([STREAM])

    told, here, there = [], [], []
    alone = fill(tmp_path / "here.zarr", here)
    assert told == []
    assert fill(tmp_path / "there.zarr", there, cluster="local:2") == alone
    assert sum(there) == sum(here) == 6
    assert told[0].startswith("Dask dashboard: http://127.0.0.1:")


def test_a_shard_that_comes_twice_with_other_clips_gives_both_results(sounds, scheduler):
    whole, clips = shards()[0], []
    parts = [replace(whole, clips=whole.clips[:1]), replace(whole, clips=whole.clips[1:])]
    done = list(run_on_cluster(parts, CONFIG, sounds, clips.append, scheduler))
    assert {d.task for d in done} == set(parts)
    alone = expected(sounds, [whole])[0]
    by_clip = {d.task.clips[0].id: d.results[STREAM][0].values.tobytes() for d in done}
    assert [by_clip["0"], by_clip["1"]] == alone
    assert sum(clips) == 2


def test_shards_are_taken_as_workers_get_free_and_the_scheduler_stays(sounds, scheduler, monkeypatch):
    taken, yielded = [], 0

    def lazily():
        for number in range(20):
            taken.append(number)
            yield replace(shards()[number % 3], shard=number)

    for _ in run_on_cluster(lazily(), CONFIG, sounds, lambda n: None, scheduler):
        yielded += 1
        assert len(taken) - yielded <= 2 * cluster.AHEAD
    assert (yielded, len(taken)) == (20, 20)
    assert values(run_on_cluster(shards(), CONFIG, sounds, lambda n: None, scheduler)) == expected(sounds, shards())


def test_a_killed_workers_shard_is_done_again_and_counted_once(sounds):
    wanted, clips = expected(sounds, shards()), []
    with stuck(sounds / "3.mp4", kills=1) as killed:
        done = list(run_on_cluster(shards(), CONFIG, sounds, clips.append, "local:2"))
    assert len(killed) == 1
    assert sorted(d.task.shard for d in done) == [0, 1, 2]
    assert values(done) == wanted
    assert sum(clips) == TONES


def test_a_shard_that_kills_three_workers_is_named(sounds):
    with (
        stuck(sounds / "3.mp4", kills=3) as killed,
        pytest.raises(
            ClusterError, match=r"shard 1 \(clips 2 to 3\): 3 workers died while working on it, the last was"
        ),
    ):
        list(run_on_cluster(shards(), CONFIG, sounds, lambda n: None, "local:1"))
    assert len(set(killed)) == 3


def test_another_version_a_missing_root_and_other_models_are_refused_naming_the_worker(
    sounds, scheduler, monkeypatch, tmp_path
):
    with pytest.raises(ClusterError, match=r"worker tcp://127\.0\.0\.1:\d+: .*nowhere is not there"):
        list(run_on_cluster(shards(), CONFIG, tmp_path / "nowhere", lambda n: None, scheduler))
    spec = Tools(CONFIG).specification(STREAM)
    other = {STREAM: replace(spec, parameters={**spec.parameters, "bands": -1})}
    with pytest.raises(
        ClusterError, match=r"worker tcp://.*shard \d: its models make another audio\.logspec .*bands: -1"
    ):
        list(run_on_cluster(shards(), CONFIG, sounds, lambda n: None, scheduler, specs=other))
    monkeypatch.setattr(cluster, "versions_here", lambda: {**versions_here(), "torch": "1.0"})
    with pytest.raises(ClusterError, match=r"worker tcp://\S+ has other versions: torch: 1\.0 on the client, \d"):
        list(run_on_cluster(shards(), CONFIG, sounds, lambda n: None, scheduler))
    monkeypatch.setattr(cluster, "check_workers", lambda client, extraction: None)  # as for one that joins later
    with pytest.raises(ClusterError, match=r"worker tcp://\S+: torch: 1\.0 on the client"):
        list(run_on_cluster(shards(), CONFIG, sounds, lambda n: None, scheduler))


def test_missing_weights_arrive_as_one_line_with_the_worker(sounds, scheduler):
    config = ToolConfig(("audio.hubert",), weights=(sounds,))
    tasks = [replace(task, streams=config.streams) for task in shards()]
    with pytest.raises(ClusterError, match=r"^worker tcp://\S+: shard \d: .*hubert") as raised:
        list(run_on_cluster(tasks, config, sounds, lambda n: None, scheduler))
    assert "\n" not in str(raised.value)


def test_without_a_worker_that_offers_a_gpu_nobody_waits(sounds, scheduler, monkeypatch):
    monkeypatch.setattr(connection, "START_S", 0.5)
    config = ToolConfig((STREAM,), device="cuda:0")
    with pytest.raises(ClusterError, match=r"none of its 2 workers offers the resource GPU; .*--resources GPU=1"):
        list(run_on_cluster(shards(), config, sounds, lambda n: None, scheduler))


def test_a_scheduler_that_does_not_answer_is_one_line_soon(sounds, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_S", 1.0)
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        list(run_on_cluster(shards(), CONFIG, sounds, lambda n: None, "tcp://127.0.0.1:9"))
    assert time.monotonic() - began < 5


def test_a_scheduler_that_goes_away_is_one_line(sounds):
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as running:
        runs = run_on_cluster(
            (replace(shards()[0], shard=n) for n in range(1000)),
            CONFIG,
            sounds,
            lambda n: None,
            running.scheduler_address,
        )
        next(runs)
        running.close()
        with pytest.raises(ClusterError, match=r"the scheduler is gone|all workers have gone"):
            list(runs)


def test_an_encrypted_scheduler_without_certificates_is_one_line(sounds):
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tls://127\.0\.0\.1:9: .*(TLS|ssl|security)"):
        list(run_on_cluster(shards(), CONFIG, sounds, lambda n: None, "tls://127.0.0.1:9"))


@pytest.mark.parametrize(
    "where", ["", "local", "local:0", "local:-1", "local:x", "tcp://", "tcp://host", "tcp://host:x", "http://host:1"]
)
def test_bad_places_are_usage_errors(where, sounds):
    with pytest.raises(UsageError, match="is no cluster: expected local:N, tcp://host:port or tls://host:port"):
        list(run_on_cluster(shards(), CONFIG, sounds, lambda n: None, where))


def test_places():
    assert find_place("local:4") == 4
    assert find_place("tls://node7:8786") == "tls://node7:8786"


def test_a_workers_gpu():
    assert device_of("cpu", 3, 0) == "cpu"
    assert [device_of("cuda:1", offset, 4) for offset in range(4)] == ["cuda:1", "cuda:2", "cuda:3", "cuda:0"]
    assert device_of("cuda", 0, 1) == "cuda:0"
    with pytest.raises(BmlaError, match="PyTorch sees no GPU"):
        device_of("cuda:0", 0, 0)


def test_a_configuration_means_the_same_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    config = ToolConfig((STREAM,), weights=(Path("w"),), models={"a": "model", "b": "microsoft/wavlm-base"})
    there = everywhere(replace(config, detector_weights=Path("d.pth")))
    assert there.weights == (tmp_path / "w",)
    assert there.detector_weights == tmp_path / "d.pth"
    assert there.models == {"a": str(tmp_path / "model"), "b": "microsoft/wavlm-base"}


def test_versions_are_compared_by_name():
    assert unlike({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == ["b: 2 on the client, 3 there"]
    assert unlike({"a": "1"}, {}) == ["a: 1 on the client, missing there"]


SCRIPT = """
import sys
from pathlib import Path
from bmla.extract.cluster import run_on_cluster
from bmla.extract.pipeline import Task
from bmla.extract.tools import ToolConfig
from bmla.store.clips import Clip
if __name__ == "__main__":
    tasks = [Task(n, (Clip(str(n), 0.0, 0.4, audio="pipe"),), ("audio.logspec",)) for n in range(2)]
    config = ToolConfig(("audio.logspec",))
    for _ in run_on_cluster(tasks, config, Path(sys.argv[1]), lambda n: print(n, flush=True), "local:2"):
        pass
"""


def test_local_workers_end_with_a_killed_client(tmp_path):
    (tmp_path / "work.py").write_text(SCRIPT)
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen([sys.executable, str(tmp_path / "work.py"), str(tmp_path)]) as process:
        while reader_of(tmp_path / "pipe") is None:
            assert process.poll() is None
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    _, alive = psutil.wait_procs(workers, 5)
    assert len(workers) >= 2
    assert alive == []
