"""AV-HuBERT's checkpoints: every published key and shape, converted and loaded by the real path; what does not fit is named."""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bmla.cli import main
from bmla.extract.encoders.table import build
from bmla.extract.upstreams import loading
from bmla.extract.upstreams.checkpoint import Checkpoint
from bmla.extract.upstreams.convert import convert
from bmla.extract.upstreams.loading import load, open_upstream
from bmla.extract.upstreams.match import match
from bmla.extract.upstreams.table import UPSTREAMS, avhubert
from bmla.extract.weights import sha256_of
from bmla.store.errors import BmlaError, UnknownName, UsageError, WeightsNotFound

SIZES = {  # of the published models: conf/pretrain/base_lrs3_iter5.yaml, large_vox_iter5.yaml
    "avhubert-base": (12, 768, 3072, 128, 16, (64, 128, 256, 512)),
    "avhubert-large": (24, 1024, 4096, 128, 16, (64, 128, 256, 512)),
}
TINY = (2, 16, 24, 8, 4, (4, 4, 6, 8))
SETTINGS = {
    "model": {
        "encoder_attention_heads": 4,
        "layer_norm_first": True,
        "modality_fuse": "concat",
        "resnet_relu_type": "prelu",
        "activation_fn": "gelu",
    },
    "task": {"stack_order_audio": 4, "normalize": True},
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published structure in small, under the published name."""
    layers, width, inner, conv_pos, groups, trunk = TINY
    config = {"layers": layers, "width": width, "inner": inner, "conv_pos": conv_pos, "conv_pos_groups": groups}
    monkeypatch.setitem(UPSTREAMS, "avhubert-base", avhubert({**config, "trunk": trunk}, heads=4))


@pytest.fixture
def state(shapes_of_avhubert: Callable, seeded_tensors: Callable) -> dict[str, torch.Tensor]:
    return seeded_tensors(shapes_of_avhubert(*TINY))


def told(path: Path, out: Path) -> list[str]:
    lines: list[str] = []
    convert(path, "avhubert-base", out, lines.append)
    return lines


@pytest.mark.parametrize("name", SIZES)
def test_every_published_key_and_shape_is_known(name: str, shapes_of_avhubert: Callable) -> None:
    shapes = shapes_of_avhubert(*SIZES[name])
    meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    found = match(Checkpoint("a.pt", "", meta, None), UPSTREAMS[name])
    assert found.fits
    training = {"mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"}
    assert {key for key, _ in found.unused} == training | {k for k in shapes if k.endswith("num_batches_tracked")}
    assert found.tensors.keys() == shapes.keys() - {key for key, _ in found.unused}


def test_the_other_size_is_not_taken_for_this_one(shapes_of_avhubert: Callable) -> None:
    shapes = shapes_of_avhubert(*SIZES["avhubert-large"])
    meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    found = match(Checkpoint("a.pt", "", meta, None), UPSTREAMS["avhubert-base"])
    assert not found.fits
    assert ("encoder.layer_norm.bias", (1024,), (768,)) in found.wrong
    assert "encoder.layers.12.fc1.bias" in {key for key, _ in found.strange}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("prefix", ["", "encoder.w2v_model."])
def test_a_checkpoint_is_converted_and_loaded(
    tmp_path: Path, state: dict[str, torch.Tensor], omega: Any, save: Any, prefix: str
) -> None:
    tensors = {prefix + key: value for key, value in state.items()}
    settings = SETTINGS
    if prefix:  # fine-tuned: a decoder beside it, and the settings of the model that it began with inside its own
        tensors |= {"decoder.embed_tokens.weight": torch.zeros(5, 16), "decoder.layer_norm.bias": torch.zeros(16)}
        settings = {"model": {"w2v_args": SETTINGS, "layer_norm_first": False}, "task": {"normalize": True}}
    path = save({"model": tensors, "cfg": omega(settings)}, tmp_path / "published.pt")
    lines = told(path, tmp_path / "avhubert-base.safetensors")
    assert "  model.encoder_attention_heads: 4" in lines
    assert "  model.sub_encoder_layers: not in the checkpoint, taken to be 0" in lines
    assert any("mask_emb" in line for line in lines)
    assert ("  decoder.*  2 keys" in lines) == bool(prefix)

    loaded = open_upstream(None, "avhubert", [tmp_path])
    assert loaded.weights == {
        "source": "published.pt",
        "model": "avhubert-base",
        "sha256": sha256_of(path),
        "safetensors_sha256": sha256_of(tmp_path / "avhubert-base.safetensors"),
    }
    kept = {k: v for k, v in loaded.model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert kept.keys() < state.keys()
    assert all(torch.equal(value, state[key]) for key, value in kept.items())
    assert not loaded.model.training
    assert not any(p.is_meta for p in [*loaded.model.parameters(), *loaded.model.buffers()])
    assert not {"fairseq", "omegaconf"} & sys.modules.keys()


@pytest.mark.usefixtures("tiny")
def test_half_precision_comes_out_whole_and_the_same_checkpoint_gives_the_same_bytes(
    tmp_path: Path, state: dict[str, torch.Tensor], save: Any
) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    path = save({"model": half}, tmp_path / "a.pt")
    for name in ("one", "two"):
        told(path, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    tensors = load_file(tmp_path / "one.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    assert all(torch.equal(value, half[key].float()) for key, value in tensors.items())
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert json.loads(file.metadata()["bmla"])["config"]["heads"] == 4


@pytest.mark.usefixtures("tiny")
def test_what_does_not_fit_is_named_key_by_key_and_nothing_is_written(
    tmp_path: Path, state: dict[str, torch.Tensor], save: Any
) -> None:
    del state["encoder.layers.1.fc1.bias"]
    state["layer_norm.weight"] = torch.ones(5)
    state["feature_extractor_audio.encoder.layers.0.fc1.bias"] = torch.ones(3)
    state["odd.weight"] = torch.ones(2)
    path = save({"model": state}, tmp_path / "a.pt")
    shown = CliRunner().invoke(main, ["weights", "convert", str(path), "--as", "avhubert-base"])
    assert shown.exit_code == 1
    for line in (
        "missing: 1\n  encoder.layers.1.fc1.bias  expected (24,)\n",
        "wrong shape: 1\n  layer_norm.weight  (5,), expected (32,)\n",
        "not known: 1\n  feature_extractor_audio.encoder.layers.0.fc1.bias  (3,)\n",
        "  odd.weight  (2,)\n",
        "a.pt: is not avhubert-base as published: 1 keys missing, 1 of another shape, 1 not known; nothing was written",
    ):
        assert line in shown.output
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.usefixtures("tiny")
def test_another_setting_than_the_published_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor], omega: Any, save: Any
) -> None:
    settings = {**SETTINGS, "task": {"normalize": False}}
    path = save({"model": state, "cfg": omega(settings)}, tmp_path / "a.pt")
    lines: list[str] = []
    with pytest.raises(BmlaError, match=r"1 settings unlike; nothing was written"):
        convert(path, "avhubert-base", tmp_path / "out", lines.append)
    assert "  task.normalize: False, expected True" in lines


@pytest.mark.usefixtures("tiny")
def test_numbers_that_are_none_another_family_and_a_file_in_the_way_are_one_line(
    tmp_path: Path, state: dict[str, torch.Tensor], save: Any
) -> None:
    state["encoder.layer_norm.bias"][3] = float("nan")
    path = save({"model": state}, tmp_path / "a.pt")
    with pytest.raises(BmlaError, match=r"a\.pt: encoder\.layer_norm\.bias holds numbers that are none"):
        told(path, tmp_path / "out")
    with pytest.raises(
        UsageError, match=r"b\.pt: is no checkpoint of avhubert: expected the key feature_extractor_video"
    ):
        told(save({"x": torch.ones(1)}, tmp_path / "b.pt"), tmp_path / "out")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match=r"out: there is something already"):
        told(path, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.usefixtures("tiny")
def test_whole_numbers_are_no_weights(tmp_path: Path, state: dict[str, torch.Tensor], save: Any) -> None:
    state["layer_norm.bias"] = state["layer_norm.bias"].to(torch.int32)
    lines: list[str] = []
    with pytest.raises(BmlaError, match=r"published: 1 contradictions; nothing was written"):
        convert(save({"model": state}, tmp_path / "a.pt"), "avhubert-base", tmp_path / "out", lines.append)
    assert "  layer_norm.bias is torch.int32, where weights are floating-point numbers" in lines


@pytest.mark.usefixtures("tiny")
def test_what_lies_outside_the_prefix_is_not_the_models(
    tmp_path: Path, state: dict[str, torch.Tensor], save: Any
) -> None:
    tuned = {f"encoder.w2v_model.{key}": value for key, value in state.items()}
    tuned["layer_norm.bias"] = tuned.pop("encoder.w2v_model.layer_norm.bias")  # a decoder's, say
    lines: list[str] = []
    with pytest.raises(BmlaError, match=r"published: 1 keys missing; nothing was written"):
        convert(save({"model": tuned}, tmp_path / "a.pt"), "avhubert-base", tmp_path / "out", lines.append)


@pytest.mark.usefixtures("tiny")
def test_streams_of_one_model_share_it_until_the_last_is_gone(
    tmp_path: Path, state: dict[str, torch.Tensor], save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(save({"model": state}, tmp_path / "a.pt"), tmp_path / "avhubert-base.safetensors")
    read: list[Path] = []
    monkeypatch.setattr(loading, "load", lambda path, family: (read.append(path), load(path, family))[1])
    names = ("audio.avhubert", "mouth.avhubert", "av.avhubert")
    encoders: list[Any] = [build(name, weights=[tmp_path]) for name in names]
    assert len(read) == 1
    assert len({id(encoder.loaded.model) for encoder in encoders}) == 1
    assert open_upstream(None, "avhubert", [tmp_path], "meta") is not encoders[0].loaded  # another device: another copy
    assert len(read) == 2
    del encoders
    gc.collect()
    build("audio.avhubert", weights=[tmp_path])
    assert len(read) == 3


@pytest.mark.usefixtures("tiny")
def test_a_file_that_is_not_the_converters_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor], save: Any
) -> None:
    told(save({"model": state}, tmp_path / "a.pt"), tmp_path / "good.safetensors")
    with safe_open(tmp_path / "good.safetensors", "pt") as file:
        about = json.loads(file.metadata()["bmla"])
    tensors = load_file(tmp_path / "good.safetensors")
    less = {key: value for key, value in tensors.items() if key != "layer_norm.bias"}
    odd = (None, {"bmla": "{"}, {"bmla": "[1]"}, {"bmla": json.dumps({**about, "model": "mavil"})})
    for number, words in enumerate(odd):
        save_file(tensors, tmp_path / f"{number}.safetensors", words)
        with pytest.raises(UsageError, match=rf"{number}\.safetensors: holds (something else|mavil), expected one of"):
            load(tmp_path / f"{number}.safetensors", "avhubert")
    save_file(less, tmp_path / "less.safetensors", {"bmla": json.dumps(about)})
    with pytest.raises(
        BmlaError, match=r"less\.safetensors: does not hold avhubert-base: 1 tensors differ, such as layer_norm\.bias"
    ):
        load(tmp_path / "less.safetensors", "avhubert")
    save_file(
        {**tensors, "layer_norm.bias": tensors["layer_norm.bias"].int()},
        tmp_path / "i.safetensors",
        {"bmla": json.dumps(about)},
    )
    with pytest.raises(BmlaError, match=r"i\.safetensors: layer_norm\.bias is torch\.int32, expected float32"):
        load(tmp_path / "i.safetensors", "avhubert")
    with pytest.raises(BmlaError, match=r"a\.pt: can't be read as safetensors .*bmla weights convert a\.pt"):
        load(tmp_path / "a.pt", "avhubert")


def test_models_that_are_not_here_or_not_known(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsNotFound, match=r"base_lrs3_iter5\.pt .*bmla weights convert base_lrs3_iter5\.pt --as avhubert-base"
    ):
        open_upstream(None, "avhubert", [tmp_path])
    with pytest.raises(
        UnknownName, match=r'unknown avhubert model "avhubert-huge"; known: avhubert-base, avhubert-large, '
    ):
        open_upstream("avhubert-huge", "avhubert", [tmp_path])
    with pytest.raises(UnknownName, match=r'unknown random model "random:x"; known: random:avhubert-tiny'):
        open_upstream("random:x", "avhubert", [])


@pytest.mark.usefixtures("tiny")
def test_the_command_writes_the_file_and_the_report(tmp_path: Path, state: dict[str, torch.Tensor], save: Any) -> None:
    path = save({"model": state}, tmp_path / "a.pt")
    out = tmp_path / "w.safetensors"
    shown = CliRunner().invoke(main, ["weights", "convert", str(path), "--as", "avhubert-base", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert f"{len(load_file(out))} keys are the model's\n" in shown.output
    assert shown.output.endswith(f"wrote {out}\n")
    again = ["weights", "convert", str(path), "--as", "avhubert-base", "--out", str(tmp_path / "v")]
    every = CliRunner().invoke(main, [*again, "--every-key"])
    assert all(f"  {key} " in every.output for key in state if key not in load_file(out))
    assert "keys\n" not in every.output
    program = json.loads(CliRunner().invoke(main, [*again[:-1], str(tmp_path / "w"), "--json"]).stdout)
    assert (program["weights"], program["report"][0] in shown.output) == (str(tmp_path / "w"), True)
    missing = CliRunner().invoke(main, ["weights", "convert", str(tmp_path / "no.pt"), "--as", "avhubert-base"])
    assert (missing.exit_code, missing.output.count("\n")) == (1, 1)
