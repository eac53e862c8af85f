"""VGG-16 with 1024 outputs: a seeded state dict with torchvision's keys, loaded by the real path."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from bmla.extract.encoders.base import Sight, encode
from bmla.extract.encoders.table import build
from bmla.extract.encoders.vgg16 import Vgg16Encoder, random_vgg16
from bmla.extract.faces.crops import FaceCrop, face_crop
from bmla.extract.weights import sha256_of
from bmla.store.errors import BmlaError, UnknownName, UsageError, WeightsNotFound

FILE = "vgg16-face-1024.pth"
# Simonyan and Zisserman 2015, table 1, column D: numbers of channels, M for the pooling.
COLUMN_D = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_vgg16().model.state_dict()


@pytest.fixture(scope="module")
def weights(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / FILE)
    return folder


def written_out(state: dict[str, torch.Tensor], crops: np.ndarray) -> np.ndarray:
    """(T, 1024): the network's layers one by one."""
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).double() / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    place = 0
    for width in COLUMN_D:
        if width == "M":
            x, place = functional.max_pool2d(x, 2), place + 1
            continue
        weight, bias = (state[f"features.{place}.{part}"].double() for part in ("weight", "bias"))
        assert len(bias) == width
        x, place = functional.conv2d(x, weight, bias, padding=1).relu(), place + 2
    x = functional.adaptive_avg_pool2d(x, 7).flatten(1)
    for place in (0, 3, 6):
        x = functional.linear(x, *(state[f"classifier.{place}.{part}"].double() for part in ("weight", "bias")))
        x = x.relu() if place < 6 else x
    return x.numpy()


@pytest.mark.parametrize("px", [128, 48])
def test_features_are_the_written_out_network(
    state: dict[str, torch.Tensor], weights: Path, make_sight: Callable[[float, int], Sight], px: int
) -> None:
    encoder = build("face.vgg16", weights=[weights], parameters={"crop_px": px})
    assert isinstance(encoder, Vgg16Encoder)
    clip = make_sight(0.08, 0)
    crops = face_crop(clip.frames, clip.boxes, FaceCrop(size_px=px))
    expected = written_out(state, crops)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    np.testing.assert_allclose(encoder._embed(torch.from_numpy(crops), "fp32"), expected, atol=1e-4, rtol=1e-4)
    values = encode(encoder, [clip])[0].values
    assert values.shape == (2, 1024)
    np.testing.assert_allclose(values, expected, atol=2e-3, rtol=2e-3)


def test_description_says_weights_widths_and_scale(weights: Path) -> None:
    described = build("face.vgg16", weights=[weights]).describe()
    assert described["weights"] == {"source": FILE, "sha256": sha256_of(weights / FILE)}
    assert described["parameters"] == {
        "scale": "(x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]",
        "widths": [64, 64, 1024],
    }
    assert described["crop"]["size_px"] == 128


def test_weight_file_may_be_named(weights: Path) -> None:
    assert build("face.vgg16", model=str(weights / FILE)).describe()["weights"]["source"] == FILE
    with pytest.raises(UnknownName, match='unknown VGG-16 "vgg19"; known: random:vgg16-small, or a weight file'):
        build("face.vgg16", model="vgg19")


def test_missing_weights_say_what_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound) as caught:
        build("face.vgg16", weights=[tmp_path])
    for part in (FILE, str(tmp_path), f"torchvision's vgg16(num_classes=1024) into WEIGHTS/{FILE}"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("classifier.0.bias"), r"is no VGG-16: it lacks 'classifier\.0\.bias'"),
        (lambda s: s.pop("features.28.weight"), r"with 1024 outputs .*Missing key.*features\.28\.weight"),
        (lambda s: s.update({"classifier.6.weight": torch.zeros(1000, 64)}), r"with 1024 outputs .*size mismatch"),
        (lambda s: s.update(extra=torch.zeros(1)), r"Unexpected key.*extra"),
    ],
)
def test_file_of_another_network_is_an_error(
    state: dict[str, torch.Tensor], tmp_path: Path, change: Callable, message: str
) -> None:
    changed = dict(state)
    change(changed)
    torch.save(changed, tmp_path / FILE)
    with pytest.raises(BmlaError, match=message) as caught:
        build("face.vgg16", weights=[tmp_path])
    assert "\n" not in str(caught.value)


def test_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"x": Evil()}, tmp_path / FILE)
    with pytest.raises(BmlaError, match=r"can't be loaded as VGG-16 .*holds more than tensors\)"):
        build("face.vgg16", weights=[tmp_path])
    assert not (tmp_path / "owned").exists()


def test_crop_too_small_for_five_halvings_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"face\.vgg16: crop_px 31; expected at least 32"):
        build("face.vgg16", model="random:vgg16-small", parameters={"crop_px": 31})
