"""What processes are given when they are started."""

import subprocess
import sys
from multiprocessing import reduction
from pathlib import Path

import pytest

from bmla.store.processes import Parcel

SCRIPT = """
from multiprocessing import reduction
import numpy as np, torch
from bmla.store.processes import Parcel
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
    context = torch.multiprocessing.get_context("spawn")
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


def test_a_new_process_gets_the_content_itself(tmp_path: Path) -> None:
    """Also what may only travel to a process that is being started, such as shared memory; and little goes through the pipe."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert done.stdout == "well\n", done.stderr


def test_it_goes_nowhere_else() -> None:
    with pytest.raises(TypeError, match="when they are started"):
        reduction.ForkingPickler.dumps(Parcel(1))
