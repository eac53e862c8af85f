"""Kill or fail the n-th file operation of an extraction, for every n: the store is whole, and the next run completes it.

The operations are seen by Python's audit hooks (open, mkdir, rename, remove, ...), so zarr's own are among them; a kill
ends the process as `kill -9` does, a failure is a full disk.
"""

import errno
import os
import signal
import sys
import traceback

import numpy as np
import pytest

from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import StoreError, StoreNotFound
from bmla.store.ledger import Failure
from bmla.store.lock import writer_lock
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.store import create_store, open_store
from bmla.store.verify import collect, verify

# Nothing here may use zarr before the fork: its event loop's thread does not survive one.
SPEC, STEPS = StreamSpec("audio.toy", "audio", "toy", "float16", (3,), 100.0, "T"), 5
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.unlink", "os.link", "os.truncate"}
OK, DAMAGED, CLEAN_ERROR = 0, 1, 3


def features(i):
    if i == 3:
        return ClipFeatures(None, None, Failure(f"c{i}", "decode", "MediaError", "it broke"))
    rng = np.random.default_rng(i)
    n = int(rng.integers(1, STEPS + 1))
    return ClipFeatures((rng.random((n, 3)) * 99 + 1).astype(np.float16), np.ones(n, bool))


def work(path):
    """What `bmla extract` does to a store, with made-up features."""
    clips = ClipTable.from_clips([Clip(f"c{i}", 0, 1, label="ab"[i % 2], split="train") for i in range(4)])
    store = create_store(path, dataset="toy", task="t", classes=("a", "b"), clips=clips, shard_size=2)
    with writer_lock(store.path):
        store.add_stream(SPEC, STEPS)
        for shard in store.pending(SPEC.name):
            store.write_shard(SPEC.name, shard, [features(i) for i in range(*store.extent(shard))])


def strike(path, at, how):
    """Counts the process's operations that change something below `path`; the `at`-th one kills or fails. Returns the counter."""
    seen = [0]
    below = os.fspath(path)

    def hook(event, arguments):
        target = arguments[0] if arguments else None
        if not isinstance(target, str | os.PathLike) or not os.fspath(target).startswith(below):
            return
        changes = event in WRITES or (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if not changes:
            return
        seen[0] += 1
        if seen[0] == at:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

    sys.addaudithook(hook)
    return seen


def in_child(function):
    """Runs in a forked process; gives its exit code, -9 for one that was killed."""
    child = os.fork()
    if child == 0:
        code = DAMAGED
        try:
            code = function()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def struck(path, at, how):
    def run():
        strike(path, at, how)
        try:
            work(path)
        except StoreError as error:
            return CLEAN_ERROR if "cannot write" in str(error) else DAMAGED
        return OK  # making a folder that is there already may fail unnoticed; `examine` proves that nothing is missing

    return in_child(run)


def count_operations(path):
    def run():
        seen = strike(path, 0, "none")
        work(path)
        (path.parent / "count").write_text(str(seen[0]))
        return OK

    assert in_child(run) == OK
    return int((path.parent / "count").read_text())


def examine(path, whole):
    """What the disk looks like to the next reader, and to the next run: OK if nothing is lost or wrong."""

    def run():
        try:
            store = open_store(path)
        except StoreNotFound:
            store = None  # it was never begun
        if store is not None:
            problems = [p for p in verify(store, deep=True) if not p.harmless]
            assert problems == [], problems
            collect(open_store(path, read_only=False))
            assert verify(store, deep=True) == []
        work(path)
        store = open_store(path, read_only=False)
        collect(store)
        assert verify(store, deep=True) == []
        assert store.digest(store.streams()) == open_store(whole).digest(store.streams())
        assert {p.relative_to(path) for p in path.rglob("*")} == {p.relative_to(whole) for p in whole.rglob("*")}
        return OK

    return in_child(run)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "fail"])
def test_whichever_operation_is_struck_nothing_is_lost(tmp_path, how):
    whole = tmp_path / "whole.zarr"
    operations = count_operations(whole)
    assert operations > 60
    outcomes = {}
    for at in range(1, operations + 1):
        path = tmp_path / f"{how}-{at}.zarr"
        code = struck(path, at, how)
        outcomes[code] = outcomes.get(code, 0) + 1
        assert examine(path, whole) == OK, f"operation {at} of {operations}"
    print(f"{how}: {operations} operations, outcomes {outcomes}, lost: 0")
    assert set(outcomes) == ({-signal.SIGKILL} if how == "kill" else {OK, CLEAN_ERROR})
    assert outcomes.get(OK, 0) < operations / 4
