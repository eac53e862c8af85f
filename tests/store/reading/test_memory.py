"""Free memory is what the machine has and the job's limit leaves; shared memory goes to starting processes only."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from bmla.store.errors import StoreError
from bmla.store.reading.memory import SharedBlock, available_bytes, unnamed_file, zeros


def machine(tmp_path, available_kb=1000, group="/job/step", limits=(("job/step", "max"), ("job", "600000"))):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9999 kB\nMemAvailable: {available_kb} kB\n")
    (tmp_path / "proc/self/cgroup").write_text(f"0::{group}\n")
    for name, limit in limits:
        folder = tmp_path / "cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.stat").write_text("anon 100000\nfile 400000\nshmem 50000\n")
    return available_bytes(tmp_path / "proc", tmp_path / "cgroup")


def test_the_machine_s_free_memory_counts_without_a_limit(tmp_path):
    assert machine(tmp_path, limits=(("job/step", "max"),)) == 1000 * 1024


def test_the_smallest_limit_above_the_process_counts_and_its_page_cache_does_not(tmp_path):
    assert machine(tmp_path) == 450_000


def test_a_limit_that_is_used_up_leaves_nothing(tmp_path):
    assert machine(tmp_path, limits=(("job/step", "1000"),)) == 0


def test_a_system_without_these_files_gives_half_of_its_memory(tmp_path):
    assert available_bytes(tmp_path, tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def test_this_machine_has_some():
    assert 0 < available_bytes() < 1 << 50


@pytest.mark.parametrize("shape", [(1 << 50,), (1 << 62, 1 << 20)])
def test_more_than_there_is_is_refused(shape):
    with pytest.raises(StoreError, match=r"^here: .* GB in memory, but .* GB are free"):
        zeros(shape, "float16", "here")


def test_nothing_is_an_array_too():
    assert zeros((0, 3), "float16", "here").shape == (0, 3)
    assert SharedBlock(0).array.shape == (0,)


def test_a_block_is_not_pickled_outside_the_start_of_a_process():
    block = SharedBlock(10)
    with pytest.raises(TypeError, match="open the store there instead"):
        pickle.dumps(block)
    with pytest.raises(TypeError, match="open the store there instead"):
        SharedBlock.of(np.zeros(3, np.uint8))


def test_a_block_frees_its_file_with_its_last_owner():
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        pytest.skip("no /proc/self/fd on this system to count open files")
    before = len(list(opened.iterdir()))
    block = SharedBlock(1 << 20)
    block.array[:] = 7
    again = SharedBlock(1 << 20, os.dup(block.fd))
    assert (again.array == 7).all()
    del block, again
    assert len(list(opened.iterdir())) == before


def test_without_files_in_memory_a_temporary_one_serves(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    fd = unnamed_file(100)
    assert os.fstat(fd).st_size == 100
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)
