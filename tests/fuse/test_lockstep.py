"""Whatever happens to a training, it leaves nothing behind in the process that drives it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.models.single import SingleModality
from bmla.fuse.training import train


@pytest.mark.parametrize("error", [KeyboardInterrupt, StopIteration])
def test_an_error_between_two_requests_is_raised_and_generators_are_put_back(
    features: Features, tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(self: SingleModality, *steps: Any) -> None:
        raise error

    monkeypatch.setattr(SingleModality, "forward", fail)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(error):
        train(tiny("transformer-ao"), features)
    assert torch.equal(torch.get_rng_state(), before)
