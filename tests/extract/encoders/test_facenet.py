"""The face network: a seeded one in the published format, loaded by the real path, against facenet-pytorch's own use."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch import InceptionResnetV1, extract_face, fixed_image_standardization
from PIL import Image
from torch import nn

from bmla.extract.encoders.base import Sight, encode
from bmla.extract.encoders.facenet import FaceNetEncoder, resized
from bmla.extract.encoders.pictures import three_channels
from bmla.extract.encoders.table import build
from bmla.extract.faces.crops import FaceCrop, aligned_face_crop, cropped, face_crop
from bmla.extract.weights import sha256_of
from bmla.store.errors import BmlaError, UnknownName, UsageError, WeightsNotFound

PUBLISHED = "20180402-114759-vggface2.pt"


@pytest.fixture(autouse=True)
def empty_torch_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def network() -> InceptionResnetV1:
    """Seeded, with a classifier of 8631 people as published, and with statistics as if it had been trained."""
    torch.manual_seed(3)
    model = InceptionResnetV1(pretrained=None, classify=True, num_classes=8631)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
    with torch.no_grad():  # one look at coarse noise: without statistics of its own, every face looks alike to it
        model.train()(nn.functional.interpolate(torch.randn(8, 3, 10, 10), 160, mode="bilinear"))
    model.eval()
    return model


@pytest.fixture(scope="module")
def weights(network: InceptionResnetV1, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(network.state_dict(), folder / PUBLISHED)
    return folder


@pytest.fixture(scope="module")
def encoder(weights: Path) -> FaceNetEncoder:
    built = build("face.vggface2", weights=[weights])
    assert isinstance(built, FaceNetEncoder)
    return built


def by_facenet(network: InceptionResnetV1, crops: np.ndarray) -> np.ndarray:
    """(T, 512) by facenet-pytorch's own resizing, standardisation and network."""
    px = crops.shape[1]
    faces = [fixed_image_standardization(extract_face(Image.fromarray(c), [0, 0, px, px], 160)) for c in crops]
    plain = InceptionResnetV1(pretrained=None, classify=False).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("logits")})
    with torch.no_grad():
        return plain(torch.stack(faces)).numpy()


def test_features_are_those_of_facenets_own_use(
    network: InceptionResnetV1, encoder: FaceNetEncoder, make_sight: Callable[[float, int], Sight]
) -> None:
    clip = make_sight(0.2, 0)
    crops = face_crop(clip.frames, clip.boxes, FaceCrop(size_px=128))
    assert crops.shape == (5, 128, 128, 3)
    expected = by_facenet(network, crops)
    assert np.abs(expected[0] - expected[-1]).max() > 0.02  # it does see its input
    inner = encoder._embed(torch.from_numpy(resized(crops, encoder.options.input_px)), "fp32")  # before float16
    np.testing.assert_allclose(inner, expected, atol=1e-5)
    np.testing.assert_allclose(encode(encoder, [clip])[0].values, expected, atol=2e-4)


@pytest.mark.parametrize("px", [96, 128, 160])
def test_resizing_equals_pillows(px: int) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, px, px, 3), np.uint8)
    expected = [np.asarray(Image.fromarray(c).resize((160, 160), Image.Resampling.BILINEAR)) for c in crops]
    np.testing.assert_array_equal(resized(crops, 160), np.stack(expected))


def test_resizing_ahead_of_the_device_is_the_same(
    encoder: FaceNetEncoder, make_sight: Callable[[float, int], Sight]
) -> None:
    clip = make_sight(0.2, 0)
    for options in ({}, {"colour": "grey"}, {"crop_px": 200, "colour": "grey"}):
        other = build("face.vggface2", model="random:vggface2", parameters=options)
        crops = cropped(clip, other.options.crop())  # type: ignore[attr-defined]
        prepared = other.preparer.prepare(clip).images
        assert prepared.shape[1:3] == (160, 160)
        assert prepared.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(three_channels(prepared), resized(three_channels(crops), 160))


def test_embeddings_have_unit_length(encoder: FaceNetEncoder, make_sight: Callable[[float, int], Sight]) -> None:
    values = encode(encoder, [make_sight(0.12, 1)])[0].values.astype(float)
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("size", [3, 64])
def test_batches_of_faces_do_not_change_a_face(
    encoder: FaceNetEncoder, make_sight: Callable[[float, int], Sight], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    clips = [make_sight(0.12, 1), make_sight(0.2, 2)]
    expected = [encode(encoder, [clip])[0].values for clip in clips]
    assert np.abs(expected[0][0] - expected[1][0]).max() > 0.02
    monkeypatch.setattr(encoder.batch, "size", size)
    for alone, together in zip(expected, encode(encoder, clips), strict=True):
        np.testing.assert_allclose(together.values.astype(float), alone.astype(float), atol=2e-4)


def test_sizes_of_crop_and_input_are_two_parameters(weights: Path, make_sight: Callable[[float, int], Sight]) -> None:
    encoder = build("face.vggface2", weights=[weights], parameters={"crop_px": 100, "input_px": 120})
    described = encoder.describe()
    assert described["crop"]["size_px"] == 100
    assert described["parameters"]["input_px"] == 120
    assert encode(encoder, [make_sight(0.04, 0)])[0].values.shape == (1, 512)
    with pytest.raises(UsageError, match=r"face\.vggface2: input 79 px; expected at least 80"):
        build("face.vggface2", weights=[weights], parameters={"input_px": 79})


def test_smallest_input_goes_through_the_network(weights: Path, make_sight: Callable[[float, int], Sight]) -> None:
    encoder = build("face.vggface2", weights=[weights], parameters={"input_px": 80})
    assert encode(encoder, [make_sight(0.04, 0)])[0].values.shape == (1, 512)


def test_description_says_where_the_weights_came_from(encoder: FaceNetEncoder, weights: Path) -> None:
    assert encoder.describe()["weights"] == {"source": PUBLISHED, "sha256": sha256_of(weights / PUBLISHED)}


def test_weight_file_may_be_named(network: InceptionResnetV1, weights: Path, tmp_path: Path) -> None:
    file = (weights / PUBLISHED).rename(weights / "mine.pt")
    try:
        assert build("face.vggface2", model=str(file)).describe()["weights"]["source"] == "mine.pt"
    finally:
        file.rename(weights / PUBLISHED)


def test_missing_weights_say_what_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound) as caught:
        build("face.vggface2", weights=[tmp_path])
    url = f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{PUBLISHED}"
    for part in (PUBLISHED, str(tmp_path), f"curl -L --create-dirs -o WEIGHTS/{PUBLISHED} {url}"):
        assert part in str(caught.value)
    with pytest.raises(WeightsNotFound, match=r"20180408-102900-casia-webface\.pt"):
        build("face.vggface2", weights=[tmp_path], model="casia-webface")


def test_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownName, match=r'unknown face network "vgg16"; known: vggface2, casia-webface, random:vggface2'
    ):
        build("face.vggface2", model="vgg16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("conv2d_1a.conv.weight"),
            r"1 weights missing, 0 unknown; for one, it lacks conv2d_1a\.conv\.weight",
        ),
        (lambda s: s.update(extra=torch.zeros(1)), "0 weights missing, 1 unknown; for one, it has extra"),
        (lambda s: s.update({"last_linear.weight": torch.zeros(2, 2)}), "can't be loaded as InceptionResnetV1"),
    ],
)
def test_file_of_another_network_is_an_error(
    network: InceptionResnetV1, tmp_path: Path, change: Callable, message: str
) -> None:
    state = network.state_dict()
    change(state)
    torch.save(state, tmp_path / PUBLISHED)
    with pytest.raises(BmlaError, match=message) as caught:
        build("face.vggface2", weights=[tmp_path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"])
def test_unreadable_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PUBLISHED).write_bytes(content)
    with pytest.raises(BmlaError, match=f"{PUBLISHED}: can't be loaded as InceptionResnetV1") as caught:
        build("face.vggface2", weights=[tmp_path])
    assert "\n" not in str(caught.value)


def test_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"x": Evil()}, tmp_path / PUBLISHED)
    with pytest.raises(BmlaError, match="can't be loaded"):
        build("face.vggface2", weights=[tmp_path])
    assert not (tmp_path / "owned").exists()


def test_casia_is_the_same_network_with_its_own_file(
    network: InceptionResnetV1, weights: Path, make_sight: Callable[[float, int], Sight]
) -> None:
    with pytest.raises(WeightsNotFound, match=r"20180408-102900-casia-webface\.pt"):
        build("face.casia", weights=[weights])
    (weights / "20180408-102900-casia-webface.pt").symlink_to(weights / PUBLISHED)
    casia = build("face.casia", weights=[weights])
    assert casia.describe()["weights"]["source"] == "20180408-102900-casia-webface.pt"
    clip = make_sight(0.08, 0)
    expected = by_facenet(network, face_crop(clip.frames, clip.boxes, FaceCrop(size_px=128)))
    np.testing.assert_allclose(encode(casia, [clip])[0].values, expected, atol=2e-4)


def test_default_description_is_that_of_earlier_stores(encoder: FaceNetEncoder) -> None:
    described = encoder.describe()
    assert described["parameters"] == {
        "input_px": 160,
        "resize": "bilinear, antialiased",
        "scale": "(x - 127.5) / 128",
    }
    assert described["crop"] == {
        "policy": "square around the face box",
        "size_px": 128,
        "margin": 0.05,
        "sigma_frames": 2.0,
        "resampling": "bilinear; block mean where it shrinks",
    }


def test_crop_policy_reaches_the_network(
    network: InceptionResnetV1, weights: Path, make_sight: Callable[[float, int], Sight]
) -> None:
    parameters = {"align": "similarity", "colour": "grey", "margin": 0.2, "crop_px": 160, "sigma_frames": 0}
    encoder = build("face.vggface2", weights=[weights], parameters=parameters)
    clip = make_sight(0.08, 0)
    policy = FaceCrop(size_px=160, margin=0.2, sigma_frames=0, align="similarity", colour="grey")
    grey = aligned_face_crop(clip.frames, clip.landmarks, policy)
    expected = by_facenet(network, np.stack([grey] * 3, axis=3))
    np.testing.assert_allclose(encode(encoder, [clip])[0].values, expected, atol=2e-4)
    assert encoder.describe()["crop"] == policy.describe()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_and_recorded(
    weights: Path, encoder: FaceNetEncoder, make_sight: Callable[[float, int], Sight], precision: str
) -> None:
    half = build("face.vggface2", weights=[weights], parameters={"precision": precision})
    clip = make_sight(0.08, 0)
    full, near = (encode(e, [clip])[0].values.astype(float) for e in (encoder, half))
    assert 0 < np.abs(full - near).max() < 0.03
    said = {"precision": precision, "not_finite": "again in fp32"}
    assert half.describe()["parameters"] == encoder.describe()["parameters"] | said


def test_random_network_comes_only_by_name_and_says_so() -> None:
    before = torch.random.get_rng_state()
    described = build("face.vggface2", model="random:vggface2").describe()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert described["weights"] == {"source": "random:vggface2", "random_seed": 0}
