"""Devices by name and exact convolutions."""

import pytest
import torch

from bmla.extract.encoders.device import full_precision, pick_device
from bmla.store.errors import UsageError


def test_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


def test_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match='unknown device "gpu": expected cpu, cuda or cuda:0'):
        pick_device("gpu")


def test_absent_gpu_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=f'device "cuda:99" is not there: torch sees {torch.cuda.device_count()}'):
        pick_device("cuda:99")


def test_full_precision_is_without_tf32_and_leaves_the_settings_as_they_were() -> None:
    flags = torch.backends.cudnn
    before = (flags.enabled, flags.allow_tf32, flags.deterministic, flags.benchmark)
    with full_precision():
        assert (flags.enabled, flags.allow_tf32, flags.deterministic) == (True, False, True)
    assert (flags.enabled, flags.allow_tf32, flags.deterministic, flags.benchmark) == before


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
