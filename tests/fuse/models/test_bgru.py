"""`bgru` and `stconv` on both modalities: how they join them, and that they learn from crops and cubes."""

from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input, Steps
from bmla.fuse.models.bgru import TwoFronts
from bmla.fuse.models.blocks import masked_mean
from bmla.fuse.models.table import build
from bmla.fuse.recipes import run_config
from bmla.fuse.training import train

SMALL: dict[str, Any] = dict(front_width=2, resnet_depth=18, gru_units=4)


def made(name: str, inputs: dict[str, Input]) -> TwoFronts:
    torch.manual_seed(0)
    model = build(RunConfig(name, **SMALL), inputs, 3)
    assert isinstance(model, TwoFronts)
    return model.eval()


def test_bgru_runs_one_gru_over_both_at_the_slower_rate() -> None:
    model = made("bgru", {"audio": Input(6, 50.0), "visual": Input(5, 25.0)})
    audio, visual = torch.randn(1, 6, 6), torch.randn(1, 3, 5)
    whole = [Steps(x, torch.ones(x.shape[:2], dtype=torch.bool)) for x in (audio, visual)]
    pairs = audio.view(1, 3, 2, 6).mean(2)
    assert model.gru is not None
    hidden = model.gru.gru(torch.cat([pairs, visual], -1))[0].mean(1)
    torch.testing.assert_close(model(*whole).result, model.head(hidden).log_softmax(-1))


def test_stconv_puts_the_means_over_time_side_by_side() -> None:
    inputs = {"audio": Input(24, 50.0, (3, 8)), "visual": Input(64, 25.0, (8, 8), pixels=True)}
    model = made("stconv", inputs)
    audio = Steps(torch.randn(2, 6, 3, 8), torch.tensor([[True] * 6, [False] * 6]))
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    visual = Steps(pixels, torch.tensor([[True, False, True], [True, True, False]]))
    output = model(audio, visual)
    means = [masked_mean(part(s), s.mask) for part, s in ((model.audio, audio), (model.visual, visual))]
    assert not means[0][1].any(), "a clip without sound adds nothing"
    torch.testing.assert_close(output.result, model.head(torch.cat(means, 1)).log_softmax(-1))
    assert {*model.parameter_groups()} == {"audio", "visual", "shared"}


@pytest.mark.parametrize("name", ["stconv", "bgru"])
def test_both_learn_from_crops_and_cubes_of_clips_that_may_lack_one(name: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    audio: list[Any] = [(rng.normal(size=(8, 3, 8)) + y).astype(np.float32) for y in labels]
    visual: list[Any] = [(100 + 60 * y + rng.normal(size=(4, 8, 8)) * 20).clip(0, 255).astype(np.uint8) for y in labels]
    audio[::7], visual[1::7] = [None] * len(audio[::7]), [None] * len(visual[1::7])
    features = features_from_arrays(labels, ["train"] * 40 + ["dev"] * 10 + ["test"] * 10, audio=audio, visual=visual)
    settings = dict(
        front_width=4, epochs=8, finetune_epochs=0, lr=3e-3, batch_size=10, audio="audio.arrays", visual="visual.arrays"
    )
    config = run_config(name, **{**SMALL, **settings})
    assert min(config.flip, config.time_mask, config.mixup, 1 - config.crop) > 0
    assert train(config, features).best["dev_accuracy"] >= 0.8
