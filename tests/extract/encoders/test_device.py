"""Devices by name, exact convolutions, and batches that shrink to what the memory holds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmla.extract.encoders.device import (
    Compiled,
    DeviceBatch,
    called,
    computing,
    device_batch,
    fits,
    full_precision,
    in_batches,
    laid_on,
)
from bmla.extract.encoders.pictures import between


def test_full_precision_is_without_tf32_and_leaves_the_settings_as_they_were() -> None:
    flags = torch.backends.cudnn
    before = (flags.enabled, flags.allow_tf32, flags.deterministic, flags.benchmark)
    with full_precision():
        assert (flags.enabled, flags.allow_tf32, flags.deterministic) == (True, False, True)
    assert (flags.enabled, flags.allow_tf32, flags.deterministic, flags.benchmark) == before


class Fake:
    """Work that doubles its items and runs out of memory above a size."""

    def __init__(self, holds: int):
        self.holds = holds
        self.tried: list[int] = []

    def __call__(self, items: list[int]) -> np.ndarray:
        self.tried.append(len(items))
        if len(items) > self.holds:
            raise torch.OutOfMemoryError("too much")
        return np.array([[2 * item] for item in items])


def test_batches_are_bounded_and_in_order() -> None:
    work, batch = Fake(99), DeviceBatch(4)
    done = in_batches(work, list(range(10)), batch)
    assert [int(row[0]) for row in done] == list(range(0, 20, 2))
    assert work.tried == [4, 4, 2]
    assert batch.size == 4
    assert in_batches(work, [], batch) == []


def test_a_gpu_gets_more_at_once() -> None:
    assert device_batch(torch.device("cpu"), 64) == DeviceBatch(64)
    assert device_batch(torch.device("cuda"), 64) == DeviceBatch(512)


def test_batch_is_halved_until_it_fits_and_stays_so() -> None:
    work, batch = Fake(3), DeviceBatch(16)
    done = in_batches(work, list(range(10)), batch)
    assert [int(row[0]) for row in done] == list(range(0, 20, 2))
    assert work.tried == [10, 5, 2, 2, 2, 2, 2]
    work.tried.clear()
    in_batches(work, list(range(5)), batch)
    assert work.tried == [2, 2, 1]


def test_memory_that_runs_out_later_halves_only_what_is_left() -> None:
    work, batch = Fake(4), DeviceBatch(4)
    first = iter([4])  # the first batch fits, then another process takes half of the memory

    def shrinking(items: list[int]) -> np.ndarray:
        work.holds = next(first, 2)
        return work(items)

    assert [int(row[0]) for row in in_batches(shrinking, list(range(8)), batch)] == list(range(0, 16, 2))
    assert work.tried == [4, 4, 2, 2]


def test_one_item_that_does_not_fit_is_out_of_memory() -> None:
    work = Fake(0)
    with pytest.raises(torch.OutOfMemoryError):
        in_batches(work, [1, 2, 3], DeviceBatch(2))
    assert work.tried == [2, 1]


def test_items_of_another_cost_share_the_same_memory() -> None:
    work, batch = Fake(2), DeviceBatch(100)
    in_batches(work, [1, 2, 3, 4], batch, cost=25)
    assert work.tried == [4, 2, 2]
    assert batch.size == 50
    work.tried.clear()
    in_batches(work, [1, 2, 3], batch, cost=1000)  # dearer than the batch: one at a time
    assert work.tried == [1, 1, 1]


def test_other_errors_pass_through() -> None:
    def broken(items: list[int]) -> list[int]:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        in_batches(broken, [1, 2], DeviceBatch(2))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_precision_is_that_of_the_products_and_without_gradients(precision: str, dtype: str) -> None:
    layer = torch.nn.Linear(4, 4)
    with computing(precision, torch.device("cpu")):
        product = layer(torch.ones(2, 4))
    assert product.dtype == getattr(torch, dtype)
    assert not product.requires_grad
    assert layer(torch.ones(2, 4)).dtype == torch.float32


def test_only_half_precision_is_tried_again() -> None:
    assert fits(np.array([1.0, np.inf]), "fp32")
    assert not fits(np.array([1.0, np.inf]), "fp16")
    assert not fits(np.array([np.nan]), "bf16")
    assert fits(np.array([1.0]), "bf16")


def test_a_compiled_network_is_called_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, **how: asked.append(how) or (lambda x: 10 * network(x)))
    assert called(abs, False) is abs
    assert called(abs, True)(-1) == 10
    assert asked == [{"dynamic": True}]


def test_ways_into_a_network_are_compiled_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda way, **how: lambda x: 10 * way(x))
    layer = torch.nn.Module()
    layer.seen, layer.heard, layer.other = abs, float, str
    assert (called(layer, True, "seen", "heard").seen(-1), called(layer, True, "seen", "heard").heard("2")) == (10, 20)
    assert called(layer, False, "seen").seen is abs


def test_compiling_that_fails_is_one_line_and_the_network_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(x: int) -> int:
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", lambda network, **how: broken)
    network = Compiled(abs)
    assert [network(-1), network(-2)] == [1, 2]
    assert [r.getMessage() for r in caplog.records] == ["torch.compile failed, going on without it: no compiler"]


def test_memory_that_runs_out_in_a_compiled_network_is_no_fault_of_the_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(x: int) -> int:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(torch, "compile", lambda network, **how: full)
    with pytest.raises(torch.OutOfMemoryError):
        Compiled(abs)(-1)


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_pictures_are_laid_end_to_end_on_the_device(name: str) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    parts = [np.full((n, 2, 2, 3), n, np.uint8) for n in (1, 3)]
    parts[1].setflags(write=False)
    laid = laid_on([parts[0], parts[1][::-1]], torch.device(name))
    assert laid.device.type == name
    np.testing.assert_array_equal(laid.cpu().numpy(), np.concatenate(parts))


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 4), max_size=6), cuts=st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_any_stretch_of_arrays_put_end_to_end(lengths: list[int], cuts: tuple[int, int]) -> None:
    start, stop = sorted(cuts)
    numbers = np.arange(sum(lengths))
    parts = between(np.split(numbers, np.cumsum(lengths)[:-1]) if lengths else [], start, stop)
    assert all(len(part) for part in parts)
    assert [n for part in parts for n in part] == numbers[start:stop].tolist()


@pytest.mark.gpu
def test_gpu_and_cpu_agree_to_the_rounding_of_float16() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    convolution = torch.nn.Conv1d(512, 512, 3)
    sound = torch.randn(4, 512, 1000)
    with torch.inference_mode(), full_precision():
        here, there = convolution(sound), convolution.cuda()(sound.cuda()).cpu()
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)
