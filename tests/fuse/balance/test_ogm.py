import math
from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.balance.base import Balance, true_class_scores
from bmla.fuse.balance.ogm import OGM, modulation
from bmla.fuse.config import RunConfig


def config(**settings: Any) -> RunConfig:
    return RunConfig("balancemla", balance="ogm", ogm_alpha=0.3, lambda_audio=0.0, lambda_visual=0.0, **settings)


def test_k_is_the_published_formula() -> None:
    k = modulation(torch.tensor([2.5, 0.4]), 0.3)
    assert k.tolist() == pytest.approx([1 - math.tanh(0.3 * 2.5), 1.0])
    assert modulation(torch.ones(2), 0.3).tolist() == [1.0, 1.0]


def test_scores_are_of_the_clips_that_have_both(late: Any, batch: Any, tools: Any) -> None:
    step = tools.step_of(late(), batch())
    answers = [a.detach().numpy() for a in (step.output.audio, step.output.visual)]
    expected = [sum(np.exp(a[i, y]) for i, y in enumerate(step.labels.tolist()) if i > 1) for a in answers]
    assert true_class_scores(step, step.unimodal()).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_update_of_the_leader_shrinks_by_k_under_adamw_and_all_others_are_untouched(
    late: Any, batch: Any, tools: Any
) -> None:
    changes = []
    for method in (Balance(config()), OGM(config(), noise=False)):
        model = late()
        with torch.no_grad():
            model.head.weight[:, :4] *= 20  # sound decides
        batches = [batch(seed=s) for s in range(3)]
        labels = [model(a, v).audio.argmax(1) for a, v, _ in batches]  # and is right
        optimiser = tools.adamw(model)
        before = {n: p.clone() for n, p in model.named_parameters()}
        step = tools.one_step(model, method, optimiser, (*batches[0][:2], labels[0]))
        changes.append({n: (p - before[n]).detach() for n, p in model.named_parameters()})
    p_audio, p_visual = true_class_scores(step, step.unimodal()).tolist()
    k = 1 - math.tanh(0.3 * p_audio / p_visual)
    assert k < 0.9
    plain, shrunk = changes
    torch.testing.assert_close(shrunk["audio.weight"], k * plain["audio.weight"], rtol=1e-4, atol=1e-7)
    for name in ("visual.weight", "head.weight", "head.bias"):
        assert torch.equal(shrunk[name], plain[name]), name


def test_a_batch_without_a_clip_that_has_both_changes_nothing(late: Any, batch: Any, tools: Any) -> None:
    step = tools.step_of(late(), batch(none=True))
    assert [float(k) for k in OGM(config(), noise=False).scales(step).values()] == [1.0, 1.0]


def test_a_model_without_answers_of_its_modalities_is_shown_each_alone(late: Any, batch: Any, tools: Any) -> None:
    model, clips = late(answers=False), batch(whole=True)
    audio, visual, labels = clips
    step = tools.step_of(model, clips)
    expected = model(audio, visual.absent()).result.exp()[torch.arange(8), labels].sum()
    assert float(true_class_scores(step, step.unimodal())[0]) == pytest.approx(float(expected.detach()))


def test_ge_adds_noise_of_each_gradients_own_size_to_the_modalities_parameters(
    late: Any, batch: Any, tools: Any
) -> None:
    noises = []
    for seed in range(200):
        gradients = []
        for noise in (False, True):
            model = late()
            torch.manual_seed(seed)
            ogm, step = OGM(config(), noise), tools.step_of(model, batch())
            ogm.backward(step)
            ogm.gradients(step)
            gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
        clean, noisy = gradients
        noises.append(noisy["audio.weight"] - clean["audio.weight"])
        assert torch.equal(clean["head.weight"], noisy["head.weight"])
        assert not torch.equal(clean["visual.weight"], noisy["visual.weight"])
    assert float(torch.stack(noises).std()) == pytest.approx(float(clean["audio.weight"].std(correction=0)), rel=0.05)
    assert abs(float(torch.stack(noises).mean())) < 0.05 * float(clean["audio.weight"].std())
