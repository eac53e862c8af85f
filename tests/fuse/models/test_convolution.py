"""The convolution of an encoder's layer against its sums written out, and where the configuration puts it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bmla.fuse.canonical import canonical
from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input
from bmla.fuse.models.convolution import ConvolutionModule
from bmla.fuse.models.table import MODELS, build, takes
from bmla.store.errors import UsageError

WITH_ENCODERS = tuple(name for name in MODELS if "convolution" in MODELS[name].reads)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def norm(x: np.ndarray, gain: Tensor, shift: Tensor) -> np.ndarray:
    even = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return even * gain.numpy() + shift.numpy()


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_it_is_the_written_out_sum_over_valid_neighbours(steps: int) -> None:
    torch.manual_seed(0)
    module = ConvolutionModule(4, steps, 0.0).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    p = {name: value.detach() for name, value in module.named_parameters()}
    mask = torch.tensor([True, True, False, True, True, True, False])
    x = torch.randn(7, 4)
    gated = np.zeros((7, 4))
    for t in range(7):
        if mask[t]:
            both = p["widen.weight"].numpy() @ norm(x[t].numpy(), p["norm_in.weight"], p["norm_in.bias"])
            left, right = np.split(both + p["widen.bias"].numpy(), 2)
            gated[t] = left * sigmoid(right)
    kernel = p["depthwise.weight"].numpy()  # (d, 1, k)
    found = module(x[None], mask[None])[0].detach().numpy()
    for t in range(7):
        summed = p["depthwise.bias"].numpy().astype(float)
        for k in range(steps):
            at = t + k - steps // 2
            if 0 <= at < 7:
                summed = summed + kernel[:, 0, k] * gated[at]
        y = norm(summed, p["norm_out.weight"], p["norm_out.bias"])
        expected = x[t].numpy() + p["narrow.weight"].numpy() @ (y * sigmoid(y)) + p["narrow.bias"].numpy()
        np.testing.assert_allclose(found[t], expected, atol=1e-5)


@pytest.mark.parametrize("name", WITH_ENCODERS)
def test_every_layer_of_every_encoder_has_one_where_it_is_asked_for(name: str) -> None:
    inputs = {m: Input(6, 50.0) for m in takes(name)}
    config = RunConfig(name, width=8, heads=2, layers=3, pretrain_epochs=1)
    plain = build(config, inputs, 3)
    found = [
        part
        for part in build(replace(config, convolution=5), inputs, 3).modules()
        if isinstance(part, ConvolutionModule)
    ]
    assert not [part for part in plain.modules() if isinstance(part, ConvolutionModule)]
    encoders = sum(type(part).__name__ == "Encoder" for part in plain.modules())
    assert len(found) == 3 * encoders > 0
    assert {part.depthwise.kernel_size for part in found} == {(5,)}


def test_models_with_encoders_are_those_of_the_transformers_settings() -> None:
    assert [name for name in MODELS if "layers" in MODELS[name].reads] == list(WITH_ENCODERS)
    assert canonical(RunConfig("concat", audio="a", visual="v", convolution=3)).convolution == 0


@pytest.mark.parametrize("steps", [2, 6, -1, 257])
def test_an_even_number_or_one_out_of_range_is_refused(steps: int) -> None:
    with pytest.raises(UsageError, match=f"convolution is {steps}"):
        RunConfig("balancemla", convolution=steps)
