"""A prefetch gives what direct calls give, and ends with its consumer: however that ends."""

import gc
import os
import threading
import time

import pytest

from bmla.store.errors import UsageError
from bmla.store.reading.prefetch import prefetch


def threads():
    return [t for t in threading.enumerate() if t.name == "bmla-prefetch"]


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_results_come_in_order(depth):
    assert list(prefetch(lambda x: x * x, range(20), depth)) == [x * x for x in range(20)]
    assert not threads()


def test_no_items_are_no_results():
    assert list(prefetch(str, [], 2)) == []


def test_it_works_ahead_by_its_depth_and_no_further():
    done = []
    results = prefetch(done.append, range(100), 3)
    next(results)
    time.sleep(0.3)
    assert 4 <= len(done) <= 5  # one given, three waiting, one in hand
    results.close()


def test_it_is_lazy():
    assert prefetch(str, [1], 2)
    assert not threads()


def test_an_early_stop_ends_the_thread():
    for _ in range(3):
        for result in prefetch(str, iter(int, 1), 2):  # without end
            assert result == "0"
            break
        gc.collect()
        assert not threads()


def test_an_error_of_the_work_is_raised_at_its_place():
    def work(x):
        if x == 3:
            raise OSError("the disk is gone")
        return x

    results = prefetch(work, range(10), 5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)
    assert not threads()


def test_an_error_of_the_items_is_raised():
    def items():
        yield 1
        raise KeyError("batch")

    results = prefetch(str, items(), 2)
    assert next(results) == "1"
    with pytest.raises(KeyError, match="batch"):
        next(results)


def test_an_error_of_the_consumer_ends_the_thread():
    def consume():
        for _ in prefetch(str, iter(int, 1), 2):
            raise RuntimeError("training broke")

    with pytest.raises(RuntimeError, match="training broke"):
        consume()
    gc.collect()
    assert not threads()


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(UsageError, match="depth 0"):
        prefetch(str, [1], 0)


def test_a_forked_child_is_told_instead_of_left_waiting():
    results = prefetch(str, range(100), 2)
    next(results)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            next(results)
        except UsageError:
            code = 42
        finally:
            os._exit(code)
    for _ in range(200):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child waits")
    assert os.waitstatus_to_exitcode(status) == 42
    results.close()
