"""Image encoders: small seeded models in the hub's own format, loaded by the real path, against transformers' own use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    ConvNextConfig,
    ConvNextImageProcessor,
    Dinov2Config,
    ViTConfig,
    ViTImageProcessor,
    ViTMAEConfig,
)
from transformers.utils import logging

from bmla.extract.encoders.base import Sight, encode
from bmla.extract.encoders.image import ImageEncoder
from bmla.extract.encoders.table import build
from bmla.extract.faces.crops import FaceCrop, MouthCrop, face_crop, mouth_crop
from bmla.extract.weights import sha256_of
from bmla.store.errors import BmlaError, UnknownName, UsageError, WeightsNotFound

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIDE = {"height": 28, "width": 28}
FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "dinov2": lambda: (
        Dinov2Config(**SMALL, image_size=28, patch_size=14, layerscale_value=0.7),
        BitImageProcessor(
            size={"shortest_edge": 36}, crop_size=SIDE, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.2]
        ),
    ),
    "vit": lambda: (ViTConfig(**SMALL, image_size=28, patch_size=7), ViTImageProcessor(size=SIDE)),
    "convnext": lambda: (
        ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1]),
        ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    ),
}
OUTPUTS = [("dinov2", "cls"), ("dinov2", "pooled"), ("vit", "cls"), ("vit", "pooled"), ("convnext", "pooled")]


def save(folder: Path, config: Any, processor: Any) -> None:
    logging.disable_progress_bar()
    torch.manual_seed(1)
    model = AutoModel.from_config(config)
    with torch.no_grad():  # fresh norms and biases are ones and zeros: swapped ones would go unseen
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    logging.enable_progress_bar()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    for name, family in FAMILIES.items():
        save(root / name, *family())
    return root


def by_transformers(folder: Path, pictures: np.ndarray, output: str) -> np.ndarray:
    """(T, L) as transformers itself gives it, a picture at a time."""
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    rows = []
    for picture in pictures:
        with torch.no_grad():
            found = model(**processor(picture, return_tensors="pt", input_data_format="channels_last"))
        rows.append((found.last_hidden_state[:, 0] if output == "cls" else found.pooler_output).flatten())
    return torch.stack(rows).numpy()


@pytest.mark.parametrize(("name", "output"), OUTPUTS)
def test_features_are_those_of_transformers_own_use(
    models: Path, make_sight: Callable[[float, int], Sight], name: str, output: str
) -> None:
    encoder = build("face.image", weights=[models], model=f"someone/{name}", parameters={"output": output})
    assert isinstance(encoder, ImageEncoder)
    clip = make_sight(0.12, 0)
    crops = face_crop(clip.frames, clip.boxes, FaceCrop(size_px=224))
    expected = by_transformers(models / name, crops, output)
    assert np.abs(expected[0] - expected[-1]).max() > 1e-3  # it does see its input
    np.testing.assert_allclose(encoder._embed(torch.from_numpy(crops), "fp32"), expected, atol=1e-4)
    np.testing.assert_allclose(encode(encoder, [clip])[0].values, expected, atol=5e-3, rtol=1e-3)
    assert encoder.feature_shape == expected.shape[1:]


def test_mouths_are_given_in_colour_or_as_grey_in_three_channels(
    models: Path, make_sight: Callable[[float, int], Sight]
) -> None:
    clip = make_sight(0.08, 1)
    for colour in ("rgb", "grey"):
        parameters = {"colour": colour, "crop_px": 48, "width": 2.0, "align": "box"}
        encoder = build("mouth.image", model=str(models / "vit"), parameters=parameters)
        crops = mouth_crop(clip.frames, clip.landmarks, MouthCrop(48, 2.0, align="box", colour=colour))
        pictures = crops if colour == "rgb" else np.stack([crops] * 3, axis=3)
        expected = by_transformers(models / "vit", pictures, "cls")
        np.testing.assert_allclose(encode(encoder, [clip])[0].values, expected, atol=5e-3, rtol=1e-3)
        assert encoder.describe()["crop"]["colour"] == colour


def test_description_says_weights_output_and_processing(models: Path) -> None:
    described = build("face.image", weights=[models], model="someone/dinov2").describe()
    digest = sha256_of(models / "dinov2" / "model.safetensors")
    assert described["weights"] == {"source": "someone/dinov2", "sha256": digest}
    said = described["parameters"]
    assert (said["model_type"], said["output"]) == ("dinov2", "cls")
    assert said["processing"]["size"] == {"shortest_edge": 36}
    assert said["processing"]["crop_size"] == SIDE
    assert said["processing"]["image_std"] == [0.229, 0.224, 0.2]
    assert said["processing"]["resample"] == 3
    assert str(models) not in json.dumps(described)


def test_default_model_is_dinov2_small(models: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="hf download facebook/dinov2-small --local-dir WEIGHTS/dinov2-small"):
        build("mouth.image", weights=[tmp_path])
    (tmp_path / "dinov2-small").symlink_to(models / "dinov2")
    assert build("mouth.image", weights=[tmp_path]).describe()["weights"]["source"] == "facebook/dinov2-small"


def test_checkpoint_without_a_pooling_head_gives_cls_and_never_a_made_up_pooling(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "vit", tmp_path / "vit")
    state = {k: v for k, v in AutoModel.from_pretrained(folder).state_dict().items() if not k.startswith("pooler")}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    pictures = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
    encoder = build("face.image", model=str(folder))
    assert isinstance(encoder, ImageEncoder)
    expected = by_transformers(models / "vit", pictures, "cls")
    np.testing.assert_allclose(encoder._embed(torch.from_numpy(pictures), "fp32"), expected, atol=1e-4)
    with pytest.raises(BmlaError, match=r"lacks 2 weights of a vit model, such as pooler\.dense\.bias"):
        build("face.image", model=str(folder), parameters={"output": "pooled"})


def test_model_without_cls_token_is_a_usage_error(models: Path) -> None:
    with pytest.raises(UsageError, match=r"face\.image: convnext \(convnext\) has no CLS token: use output=pooled"):
        build("face.image", model=str(models / "convnext"))


def test_model_that_hides_random_patches_is_a_usage_error(tmp_path: Path) -> None:
    config = ViTMAEConfig(**SMALL, image_size=28, patch_size=7, decoder_hidden_size=16, decoder_num_attention_heads=2)
    save(tmp_path / "mae", config, ViTImageProcessor(size=SIDE))
    with pytest.raises(UsageError, match="mae masks 75% of every picture at random"):
        build("face.image", model=str(tmp_path / "mae"))


def test_model_that_wants_text_too_is_a_usage_error(tmp_path: Path) -> None:
    text = {**SMALL, "vocab_size": 50, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    config = CLIPConfig(text_config=text, vision_config={**SMALL, "image_size": 28, "patch_size": 7})
    save(tmp_path / "clip", config, CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=SIDE))
    with pytest.raises(UsageError, match="clip gives no pooled output"):
        build("face.image", model=str(tmp_path / "clip"), parameters={"output": "pooled"})


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_and_recorded(
    models: Path, make_sight: Callable[[float, int], Sight], precision: str
) -> None:
    full, half = (
        build("face.image", model=str(models / "dinov2"), parameters={"precision": p}) for p in ("fp32", precision)
    )
    clip = make_sight(0.08, 0)
    a, b = (encode(e, [clip])[0].values.astype(float) for e in (full, half))
    assert 0 < np.abs(a - b).max() < 0.2
    assert half.describe()["parameters"]["precision"] == precision


def test_clip_that_overflows_in_half_precision_is_encoded_in_full(
    models: Path, make_sight: Callable[[float, int], Sight], monkeypatch: pytest.MonkeyPatch
) -> None:
    full, half = (
        build("face.image", model=str(models / "dinov2"), parameters={"precision": p}) for p in ("fp32", "fp16")
    )
    clips = [make_sight(0.08, 0), make_sight(0.12, 1)]
    near = encode(half, clips)
    embed = ImageEncoder._embed

    def overflowing(self: ImageEncoder, crops: np.ndarray, precision: str) -> np.ndarray:
        values = embed(self, crops, precision)
        if precision == "fp16":
            values[2] = np.nan  # the first frame of the second clip
        return values

    monkeypatch.setattr(ImageEncoder, "_embed", overflowing)
    found = encode(half, clips)
    np.testing.assert_array_equal(found[0].values, near[0].values)
    np.testing.assert_array_equal(found[1].values, encode(full, [clips[1]])[0].values)


def test_random_model_comes_only_by_name_and_says_so() -> None:
    before = torch.random.get_rng_state()
    described = build("face.image", model="random:dinov2-tiny").describe()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert described["weights"] == {"source": "random:dinov2-tiny", "random_seed": 0}
    with pytest.raises(UnknownName, match='unknown random model "random:vit"; known: random:dinov2-tiny'):
        build("face.image", model="random:vit")
