"""Answers that are averaged, against sums that are written out; and that nothing is learnt from the average."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.models.average import entropy
from bmla.fuse.models.base import FusionModel, Input, Output, Steps
from bmla.fuse.models.table import build
from bmla.fuse.predictions import predict
from bmla.fuse.recipes import run_config
from bmla.fuse.sweep import run_sweep
from bmla.fuse.training import train
from bmla.store.errors import UsageError

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 25.0)}


def model(name: str) -> FusionModel:
    torch.manual_seed(0)
    return build(RunConfig(name, width=8, heads=2, layers=1), INPUTS, 3).eval()


def pair(clips: int = 2) -> tuple[Steps, Steps]:
    generator = torch.Generator().manual_seed(1)
    audio = Steps(3 * torch.randn(clips, 6, 6, generator=generator), torch.ones(clips, 6, dtype=torch.bool))
    return audio, Steps(torch.randn(clips, 3, 5, generator=generator), torch.ones(clips, 3, dtype=torch.bool))


def test_the_result_is_the_normalised_geometric_mean_of_both_answers() -> None:
    out = model("logit-average")(*pair())
    assert out.audio is not None
    assert out.visual is not None
    product = (out.audio.exp() * out.visual.exp()).sqrt()
    torch.testing.assert_close(out.result, (product / product.sum(1, keepdim=True)).log())
    assert out.alpha is not None
    assert (out.alpha == 0.5).all()


def test_the_shared_head_weighs_logits_by_the_certainty_of_each_clip() -> None:
    shared = model("shared-head")
    with torch.no_grad():
        shared.head.weight.mul_(4)
    out = shared(*pair(3))
    for n in range(3):
        e, logits = [], []
        for z in (out.pooled_audio, out.pooled_visual):
            raw = (shared.head.weight @ z[n] + shared.head.bias).tolist()
            p = [math.exp(x) / sum(map(math.exp, raw)) for x in raw]
            e.append(-sum(q * math.log(q) for q in p))
            logits.append(raw)
        worst = max(e)
        weights = [math.exp(worst - x) / sum(math.exp(worst - y) for y in e) for x in e]
        mixed = torch.tensor([weights[0] * a + weights[1] * v for a, v in zip(*logits, strict=True)])
        torch.testing.assert_close(out.result[n], mixed.log_softmax(0), atol=1e-5, rtol=1e-5)
        assert out.alpha[n].item() == pytest.approx(weights[0], abs=1e-5)
        assert (e[0] < e[1]) == (weights[0] > weights[1])


def test_entropy_is_log_c_where_nothing_is_known_and_zero_where_all_is() -> None:
    known = torch.tensor([[0.0, -200.0, -200.0]]).log_softmax(1)
    torch.testing.assert_close(entropy(torch.zeros(1, 3).log_softmax(1)), torch.tensor([math.log(3)]))
    torch.testing.assert_close(entropy(known), torch.zeros(1))


@pytest.mark.parametrize("name", ["logit-average", "shared-head"])
def test_no_gradient_comes_from_the_result(name: str) -> None:
    out: Output = model(name)(*pair())
    assert not out.result.requires_grad
    assert out.audio is not None
    assert out.audio.requires_grad


@pytest.mark.parametrize("name", ["logit-average", "shared-head"])
def test_a_clip_that_lacks_a_modality_is_answered_by_the_other(name: str) -> None:
    audio, visual = pair()
    out = model(name)(audio.absent(), visual)
    torch.testing.assert_close(out.result, out.visual)
    assert out.alpha is not None
    assert (out.alpha == 0).all()


def test_the_logit_average_is_what_both_trained_models_say_and_shares_their_runs(
    features: Features, tiny: Callable[..., RunConfig], tmp_path: Path
) -> None:
    settings = dict(epochs=2)
    average, audio, visual = (tiny(n, **settings) for n in ("logit-average", "balancemla-ao", "balancemla-vo"))
    assert (average.total_epochs, average.pretrain_epochs) == (0, 2)
    run, a, v = run_sweep([average, audio, visual], features, tmp_path)
    assert run.branches == {"audio": a.name, "visual": v.name}
    assert [epoch["phase"] for epoch in run.history] == ["start"]
    clips = features.clips("test", ("audio", "visual"))
    alone = (
        predict(a.model(), features, clips, ("audio",)).result + predict(v.model(), features, clips, ("visual",)).result
    )
    torch.testing.assert_close(
        torch.from_numpy(run.predictions.result), torch.from_numpy(alone / 2).log_softmax(1), atol=1e-5, rtol=1e-5
    )


def test_untrained_branches_are_not_averaged(features: Features, tiny: Callable[..., RunConfig]) -> None:
    with pytest.raises(UsageError, match="logit-average is not trained itself: it needs the trained branches"):
        train(tiny("logit-average"), features)


def test_only_what_is_complete_without_training_may_do_without() -> None:
    assert run_config("logit-average", finetune_epochs=3).total_epochs == 0
    with pytest.raises(UsageError, match="nothing would be trained"):
        run_config("balancemla", finetune_epochs=0)
