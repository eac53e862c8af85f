"""Laws of every model: what stands at masked steps, padding, order and company in a batch change nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import FusionModel, Input, Output, Steps
from bmla.fuse.models.table import MODELS, build, takes

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 20.0)}
PICTURES = {"audio": Input(24, 50.0, (3, 8)), "visual": Input(80, 20.0, (10, 8), pixels=True)}
COLOUR = {"audio": INPUTS["audio"], "visual": Input(192, 20.0, (8, 8, 3), pixels=True)}
LAYERS = {"audio": Input(12, 50.0, (2, 6)), "visual": Input(10, 20.0, (2, 5))}
CLASSES = 3
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {} for name in MODELS},
    "transformer 3:1": dict(ratio="3:1", norm="post"),
    "balancemla bilinear": dict(attention="bilinear", gate_input="encoder"),
    "balancemla post": dict(norm="post", mix="probabilities", ratio="1:3"),
    "balancemla base": dict(brff=False, adf=False, clw=False),
    "balancemla convolution": dict(convolution=5),
    "transformer convolution": dict(convolution=3, norm="post"),
    "balancemla cosine": dict(head="cosine"),
    "joint cosine": dict(head="cosine"),
    "single-res bilinear": dict(attention="bilinear"),
    "bgru-vo pictures": dict(crop=0.8),
    "bgru-vo colour": {},
    "bgru pictures": {},
    "concat pictures": {},
    "transformer pictures": {},
    "balancemla pictures": dict(crop=0.8, head="cosine", convolution=3),
    "logit-average layers": {},
    "joint-aux colour": {},
    "single-res pictures": {},
    "film pictures": {},
    "probe layers": dict(probe_mean="all"),
}
NAMED = {"pictures": PICTURES, "colour": COLOUR, "layers": LAYERS}
TIMELESS = {
    "probe-ao",
    "probe-vo",
    "probe",
    "probe layers",
}  # a linear map and a mean: the order of steps is nothing to them


def inputs_of(name: str) -> dict[str, Input]:
    """What the steps of a variant's streams are."""
    return PICTURES if name.startswith("stconv") else NAMED.get(name.split()[-1], INPUTS)


@pytest.fixture(scope="module")
def models() -> dict[str, FusionModel]:
    """Each with random weights everywhere: zeros at the start would hide what they multiply."""
    made = {}
    for name, options in VARIANTS.items():
        config = RunConfig(name.split()[0], width=8, heads=2, layers=2, brff_layers=2, gru_units=4, front_width=2,
                           resnet_depth=18, **options)  # fmt: skip
        torch.manual_seed(0)
        model = build(config, inputs_of(name), CLASSES)
        for part, parameter in model.named_parameters():
            if not any(word in part for word in ("front.", "convolution", "trunk")):
                # of so many layers, random weights make numbers without end
                torch.nn.init.normal_(parameter, std=0.4)
        for part in model.modules():
            if isinstance(
                part, torch.nn.BatchNorm2d
            ):  # without, a front end only scales its output as its input is scaled
                torch.nn.init.normal_(part.bias, std=0.1)
        model.inputs = inputs_of(name)
        for modality in takes(config.model):
            if model.inputs[modality].pixels:  # those of `laid_out`
                like = torch.ones_like(model.mean_of(modality))
                model.set_statistics(modality, 128 * like, 50 * like)
        made[name] = model.eval()
    return made


Clip = dict[str, tuple[np.ndarray, np.ndarray]]


@st.composite
def clips(draw: st.DrawFn) -> list[Clip]:
    """1 to 4 clips with 0 to 7 steps of each modality, any of them invalid; at least one valid step in all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    made = []
    for _ in range(draw(st.integers(1, 4))):
        masks = {m: np.array(draw(st.lists(st.booleans(), max_size=7)), bool) for m in INPUTS}
        if not masks["audio"].any() and not masks["visual"].any():
            masks["audio"] = np.array([True])
        made.append({m: (rng.normal(size=(len(k), INPUTS[m].length)).astype(np.float32), k) for m, k in masks.items()})
    return made


def laid_out(x: np.ndarray, source: Input) -> np.ndarray:
    """(t, l) noise as the steps that a model takes: repeated, and of pictures between black and white."""
    repeats = -(-source.length // x.shape[1])
    wide = np.concatenate([x * np.cos(k) for k in range(repeats)], 1)[:, : source.length]
    wide = np.clip(128 + 50 * wide, 0, 255).astype(np.uint8) if source.pixels else wide
    return wide.reshape(-1, *source.layout)


def pad(batch: list[Clip], modality: str, source: Input, more: int = 0, rubbish: float = 0.0) -> Steps:
    t = max(max(len(clip[modality][1]) for clip in batch), 1) + more
    kind = np.uint8 if source.pixels else np.float32
    values = np.full((len(batch), t, *source.layout), 255 if source.pixels and rubbish != 0 else rubbish, kind)
    mask = np.zeros((len(batch), t), bool)
    for i, clip in enumerate(batch):
        x, valid = clip[modality]
        values[i, : len(x)][valid] = laid_out(x, source)[valid]
        mask[i, : len(x)] = valid
    return Steps(torch.from_numpy(values), torch.from_numpy(mask))


def answer(model: FusionModel, batch: list[Clip], **options: Any) -> Output:
    with torch.inference_mode():
        return model(*(pad(batch, m, model.inputs[m], **options) for m in ("audio", "visual")))


def assert_same(a: Output, b: Output, rows: list[int] | slice, present: dict[str, list[bool]]) -> None:
    """Branch answers count only where their modality is present."""
    torch.testing.assert_close(a.result[rows], b.result, atol=2e-5, rtol=2e-5)
    for modality in ("audio", "visual"):
        x, y, there = getattr(a, modality), getattr(b, modality), present[modality]
        if x is not None:
            torch.testing.assert_close(x[rows][there], y[there], atol=2e-5, rtol=2e-5)
    if a.alpha is not None:
        torch.testing.assert_close(a.alpha[rows], b.alpha, atol=2e-5, rtol=2e-5)


def there(batch: list[Clip]) -> dict[str, list[bool]]:
    return {m: [bool(clip[m][1].any()) for clip in batch] for m in INPUTS}


@pytest.mark.parametrize("name", list(VARIANTS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=clips(), more=st.integers(1, 5), seed=st.integers(0, 1000))
def test_padding_order_and_company_change_nothing(
    models: dict[str, FusionModel], name: str, batch: list[Clip], more: int, seed: int
) -> None:
    model = models[name]
    batch = [clip for clip in batch if any(clip[m][1].any() for m in takes(name.split()[0]))]
    if not batch:
        return
    out = answer(model, batch)
    assert torch.isfinite(out.result).all()
    torch.testing.assert_close(out.result.exp().sum(1), torch.ones(len(batch)))
    for rubbish in (float("nan"), 1e20):
        assert_same(out, answer(model, batch, more=more, rubbish=rubbish), slice(None), there(batch))
    order = np.random.default_rng(seed).permutation(len(batch)).tolist()
    shuffled = [batch[i] for i in order]
    assert_same(out, answer(model, shuffled), order, there(shuffled))
    for i, clip in enumerate(batch):
        assert_same(out, answer(model, [clip]), [i], there([clip]))


@pytest.mark.parametrize("name", [n for n in VARIANTS if len(takes(n.split()[0])) == 2])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=clips(), missing=st.sampled_from(["audio", "visual"]))
def test_a_missing_modality_has_no_say(
    models: dict[str, FusionModel], name: str, batch: list[Clip], missing: str
) -> None:
    other = "visual" if missing == "audio" else "audio"
    batch = [clip for clip in batch if clip[other][1].any()]
    if not batch:
        return
    none: list[Clip] = [{**clip, missing: (clip[missing][0][:0], clip[missing][1][:0])} for clip in batch]
    masked: list[Clip] = [{**clip, missing: (clip[missing][0], np.zeros_like(clip[missing][1]))} for clip in batch]
    out = answer(models[name], none)
    torch.testing.assert_close(out.result, answer(models[name], masked, rubbish=7.0).result, atol=2e-5, rtol=2e-5)
    if out.alpha is not None:
        torch.testing.assert_close(out.result, getattr(out, other), atol=2e-5, rtol=2e-5)
        assert (out.alpha == (1.0 if other == "audio" else 0.0)).all()


@pytest.mark.parametrize("name", [n for n in VARIANTS if len(takes(n.split()[0])) == 2])
def test_every_valid_step_of_both_modalities_counts(models: dict[str, FusionModel], name: str) -> None:
    rng = np.random.default_rng(0)
    clip: Clip = {m: (rng.normal(size=(4, i.length)).astype(np.float32), np.ones(4, bool)) for m, i in INPUTS.items()}
    out = answer(models[name], [clip]).result
    for modality in INPUTS:
        for step in range(4):
            values = clip[modality][0].copy()
            values[step] += 3
            changed = answer(models[name], [{**clip, modality: (values, clip[modality][1])}]).result
            assert not torch.allclose(out, changed, atol=1e-4), (modality, step)


@pytest.mark.parametrize("name", [n for n in VARIANTS if n not in TIMELESS])
def test_the_order_of_steps_matters(models: dict[str, FusionModel], name: str) -> None:
    rng = np.random.default_rng(0)
    clip: Clip = {m: (rng.normal(size=(6, i.length)).astype(np.float32), np.ones(6, bool)) for m, i in INPUTS.items()}
    backwards: Clip = {m: (x[::-1].copy(), k) for m, (x, k) in clip.items()}
    assert not torch.allclose(answer(models[name], [clip]).result, answer(models[name], [backwards]).result, atol=1e-4)
