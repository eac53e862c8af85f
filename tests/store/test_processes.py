"""How worker processes start, what they are given, and when they end."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import reduction
from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from bmla.store.processes import Parcel, open_files, worker_context
from bmla.store.reading.memory import SharedBlock

SCRIPT = """
import sys
from multiprocessing import reduction
import numpy as np, torch, torch.multiprocessing
from bmla.store.processes import Parcel, worker_context
from bmla.store.reading.memory import SharedBlock

def answer(pipe, content):
    block, array, tensor = content
    pipe.send((bytes(block.array), array.sum(), tensor.sum().item()))

if __name__ == "__main__":
    sent, dump = [], reduction.dump
    def counted(obj, file, *rest):
        dump(obj, file, *rest)
        sent.append(file.tell())
    reduction.dump = counted
    context = worker_context() if sys.argv[1] == "forked" else torch.multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    block = SharedBlock(3)
    block.array[:] = 1, 2, 3
    parcel = Parcel((block, np.arange(1e5), torch.ones(5)))
    for _ in range(2):
        process = context.Process(target=answer, args=(there, parcel))
        process.start()
        assert here.poll(60)
        assert here.recv() == (b"\\x01\\x02\\x03", np.arange(1e5).sum(), 5.0)
        process.join()
        assert process.exitcode == 0
    assert max(sent) < 1 << 16, sent
    print("well")
"""


@pytest.mark.parametrize("how", ["forked", "anew"])
def test_a_new_process_gets_the_content_itself(how: str, tmp_path: Path) -> None:
    """Also what may only travel to a process that is being started, such as shared memory; and little goes through the pipe."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py", how], capture_output=True, text=True, timeout=120)
    assert done.stdout == "well\n", done.stderr


def test_it_goes_nowhere_else() -> None:
    with pytest.raises(TypeError, match="when they are started"):
        reduction.ForkingPickler.dumps(Parcel(1))


WORKERS = """
import os, sys, time
from bmla.store.processes import begin, worker_context

def look(pipe, environment):
    known = "bmla.store.processes" in sys.modules and "fractions" in sys.modules
    begin(environment)
    pipe.send((os.getpid(), os.getppid(), known, os.environ.get("LATE"), os.environ.get("EARLY")))
    time.sleep(600)

if __name__ == "__main__":
    context = worker_context("fractions")
    here, there = context.Pipe()
    os.environ["EARLY"] = "1"
    for _ in range(2):
        process = context.Process(target=look, args=(there, dict(os.environ)))
        process.start()
        assert here.poll(60)
        print(context.get_start_method(), os.getpid(), *here.recv(), flush=True)
        os.environ["LATE"] = "2"
        os.environ.pop("EARLY", None)
    time.sleep(600)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")


def started(
    folder: Path, cwd: Path | None = None, **environment: str
) -> tuple["subprocess.Popen[str]", list[list[str]]]:
    """A process with two workers, and what it told of each."""
    (folder / "script.py").write_text(WORKERS)
    process = subprocess.Popen(
        [sys.executable, folder / "script.py"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    with process.stdout as told:
        return process, [told.readline().split() for _ in range(2)]


def ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"  # nobody has asked for its exit code yet


@linux
def test_workers_are_forked_from_one_process_with_the_environment_of_their_start(tmp_path: Path) -> None:
    process, (first, second) = started(tmp_path)
    process.kill()
    process.wait()
    method, main, worker, parent, known, late, early = first
    assert (method, known, late, early) == ("forkserver", "True", "None", "1")
    assert parent != main
    assert second[3] == parent
    assert second[2] != worker
    assert second[4:] == ["True", "2", "None"]


@linux
def test_workers_import_what_their_parent_does_and_not_what_lies_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "fractions.py").write_text("raise SystemExit('of the working directory')")
    process, workers = started(tmp_path, tmp_path / "here")
    process.kill()
    process.wait()
    assert [(w[0], w[4]) for w in workers] == [("forkserver", "True")] * 2


@linux
def test_workers_that_are_given_more_files_than_a_fork_can_be_start_anew() -> None:
    def methods(count: int) -> tuple[int, str]:
        given = [SharedBlock(1) for _ in range(count)]
        return open_files(given), worker_context(given=given).get_start_method()

    assert methods(200) == (200, "forkserver")
    assert methods(300) == (300, "spawn")
    tensors = [torch.ones(2) for _ in range(3)]
    assert open_files(tensors) == 3


@linux
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    process, workers = started(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 60
    while not all(ended(int(worker[2])) for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


@linux
def test_where_no_socket_can_be_made_each_starts_anew(tmp_path: Path) -> None:
    """The name of a socket has 107 bytes at most; some clusters' folders for temporary files alone are longer."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    process, workers = started(tmp_path, TMPDIR=str(folder))
    process.kill()
    process.wait()
    assert [(w[0], w[3] == w[1]) for w in workers] == [("spawn", True)] * 2
