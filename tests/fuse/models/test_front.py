"""The front end of pictures: its sizes, its sums, and that steps which are not valid stay out of every statistic."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input, Steps
from bmla.fuse.models.front import PictureFront, front
from bmla.fuse.recipes import run_config
from bmla.fuse.training import train

GREY = Input(64, 25.0, (8, 8), pixels=True)


def made(source: Input, **options: object) -> PictureFront:
    torch.manual_seed(0)
    part = front(source, RunConfig("stconv-vo", front_width=2, resnet_depth=18, **options))
    assert isinstance(part, PictureFront)
    return part


def clips(masks: list[list[int]], fill: int = 0) -> Steps:
    """Seeded noise where a step is valid, a constant elsewhere."""
    mask = torch.tensor(masks, dtype=torch.bool)
    values = torch.randint(0, 256, (*mask.shape, 8, 8), generator=torch.Generator().manual_seed(2))
    return Steps(values.where(mask[..., None, None], fill).to(torch.uint8), mask)


def test_the_default_sizes_are_the_papers() -> None:
    part = front(Input(6400, 25.0, (80, 80), pixels=True), RunConfig("stconv-vo"))
    assert isinstance(part, PictureFront)
    assert tuple(part.convolution.weight.shape) == (64, 1, 5, 7, 7)
    assert part.convolution.stride == (1, 2, 2)
    convolutions = [m for m in part.trunk.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 2 == 34, "ResNet-34 counts its first convolution and its last linear layer"
    assert part.length == 512


def test_the_convolution_sees_time_height_and_width() -> None:
    part = made(GREY).eval()
    steps = clips([[1, 1, 1, 1, 1, 1]])
    part.standardise.take(torch.tensor([100.0]), torch.tensor([50.0]))
    seen = []
    part.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    part(steps)
    x = torch.nn.functional.pad((steps.values[0].float() - 100) / 50, (3, 3, 3, 3, 2, 2))
    for t, i, j in ((0, 0, 0), (3, 2, 1), (5, 3, 3)):
        expected = (part.convolution.weight[1, 0] * x[t : t + 5, 2 * i : 2 * i + 7, 2 * j : 2 * j + 7]).sum()
        torch.testing.assert_close(seen[0][t, 1, i, j], expected, atol=1e-4, rtol=1e-4)


def test_the_cube_is_one_colour_over_time_bands_and_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    part = made(Input(24, 100.0, (3, 8))).eval()
    part.standardise.take(torch.arange(24.0).view(3, 8), torch.full((3, 8), 2.0))
    spread = (torch.arange(8.0).var(unbiased=False) + 4).sqrt()
    torch.testing.assert_close(part.standardise.mean, torch.tensor([[3.5], [11.5], [19.5]]))
    torch.testing.assert_close(part.standardise.std, spread.expand(3, 1))
    seen, plain = [], part.convolved
    monkeypatch.setattr(part, "convolved", lambda x, mask: (seen.append(x), plain(x, mask))[1])
    values = torch.randn(1, 5, 3, 8)
    part(Steps(values, torch.ones(1, 5, dtype=torch.bool)))
    assert seen[0].shape == (1, 1, 5, 8, 3)
    torch.testing.assert_close(seen[0][0, 0, 2, 6, 1], (values[0, 2, 1, 6] - 11.5) / spread)


@pytest.mark.parametrize("colours", [1, 3])
def test_convolved_where_a_step_is_valid_it_is_the_convolution_over_time(colours: int) -> None:
    part = made(Input(64 * colours, 25.0, (8, 8, 3) if colours == 3 else (8, 8), pixels=True))
    x = torch.randn(3, colours, 6, 8, 8)
    mask = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0] * 6], dtype=torch.bool)
    torch.testing.assert_close(part.convolved(x, mask), part.convolution(x).transpose(1, 2)[mask])


@pytest.mark.parametrize("fill", [0, 255])
def test_in_training_padding_and_lost_faces_enter_no_statistic(fill: int) -> None:
    padded, tight = made(GREY).train(), made(GREY).train()
    out = padded(clips([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], fill))
    other = tight(Steps(*(part[:1, :4] for part in clips([[1, 1, 0, 1, 0, 0], [0] * 6]))))
    torch.testing.assert_close(out[:1, :4], other)
    assert (out[1] == 0).all()
    for (name, a), (_, b) in zip(padded.named_buffers(), tight.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("mask", [[[0, 0]], [[1, 0]]])
def test_a_batch_of_one_frame_or_none_trains(mask: list[list[int]]) -> None:
    part = made(GREY).train()
    assert part(clips(mask)).isfinite().all()
    assert part.trunk[0].running_mean.eq(0).all()


def test_evaluation_takes_many_clips_a_few_at_a_time() -> None:
    part = made(GREY).eval()
    many = clips([[1, 1, 1]] * 20)
    torch.testing.assert_close(part(many)[17:18], part(Steps(many.values[17:18], many.mask[17:18])))


def pictures(rng: np.random.Generator, label: int, shape: tuple[int, ...], pixels: bool) -> np.ndarray:
    """Noise with a bright row or column, by class."""
    x = rng.normal(size=(5, *shape))
    if label:
        x[:, 1] += 3
    else:
        x[..., 1] += 3
    return (128 + 20 * x).clip(0, 255).astype(np.uint8) if pixels else x.astype(np.float32)


@pytest.mark.parametrize(
    ("model", "shape", "pixels"),
    [("stconv-vo", (8, 8), True), ("bgru-vo", (8, 8, 3), True), ("stconv-ao", (3, 8), False)],
)
def test_it_learns_with_all_augmentations_and_the_same_again(model: str, shape: tuple[int, ...], pixels: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    arrays = [pictures(rng, label, shape, pixels) for label in labels]
    modality = "audio" if model.endswith("ao") else "visual"
    split = ["train"] * 40 + ["dev"] * 10 + ["test"] * 10
    features = features_from_arrays(labels, split, **{modality: arrays})
    settings = dict(front_width=4, resnet_depth=18, gru_units=8, epochs=8, finetune_epochs=0, lr=3e-3, batch_size=10)
    config = run_config(model, **{modality: f"{modality}.arrays"}, **settings)
    assert min(config.flip, config.time_mask, config.mixup, 1 - config.crop) > 0
    trained = train(config, features)
    assert trained.best["dev_accuracy"] >= 0.9
    short = replace(config, epochs=1)
    once, again = (train(short, features).model.state_dict() for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)
