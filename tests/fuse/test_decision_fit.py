"""Weights fitted on held-out clips: they fall with the modality that noise has spoilt, and the test split has no part in them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.decision_fit import fit_decision, objective
from bmla.fuse.models.balancemla import BalanceMLA
from bmla.fuse.models.reliability import Reliability
from bmla.fuse.models.single import SingleModality
from bmla.fuse.predictions import predict
from bmla.fuse.prerequisites import starting_points
from bmla.fuse.training import train

Tiny = Callable[..., RunConfig]
BOTH = ("audio", "visual")
NOISES = {"audio.arrays@weak": 1.0, "audio.arrays@strong": 6.0, "visual.arrays@strong": 6.0}


@pytest.fixture(scope="module")
def noisy(make_features: Callable[..., Features]) -> Features:
    return make_features(audio=0.45, visual=0.45, clips=600, noises=NOISES)


def trained(config: RunConfig, features: Features) -> BalanceMLA:
    branches = {}
    for modality, start in starting_points(config).items():
        branch = train(start, features).model
        assert isinstance(branch, SingleModality)
        branches[modality] = branch
    model = train(config, features, branches=branches).model
    assert isinstance(model, BalanceMLA)
    return model


@pytest.fixture(scope="module", params=["linear", "cosine"])
def config(tiny: Tiny, request: pytest.FixtureRequest) -> RunConfig:
    return replace(tiny("balancemla", epochs=12, head=request.param), gate_augment=tuple(sorted(NOISES)))


@pytest.fixture(scope="module")
def model(config: RunConfig, noisy: Features) -> BalanceMLA:
    return trained(config, noisy)


def mean_alpha(model: BalanceMLA, features: Features, *variants: str) -> float:
    alpha = predict(model, features.under(variants), features.clips("test", BOTH), BOTH).alpha
    assert alpha is not None
    return float(alpha.mean())


def accuracy(model: BalanceMLA, features: Features, *variants: str) -> float:
    answers = predict(model, features.under(variants), features.clips("test", BOTH), BOTH)
    return float((answers.predicted == answers.labels).mean())


def test_alpha_falls_as_sound_degrades_and_rises_as_sight_does(model: BalanceMLA, noisy: Features) -> None:
    clean = mean_alpha(model, noisy)
    assert accuracy(model, noisy) > 0.6
    assert mean_alpha(model, noisy, "audio.arrays@strong") < clean - 0.1
    assert mean_alpha(model, noisy, "visual.arrays@strong") > clean + 0.1


def gains(model: BalanceMLA, features: Features) -> list[float]:
    """In accuracy, over the plain mean of both answers: with noisy sound, with noisy sight."""
    found = []
    for variant in ("audio.arrays@strong", "visual.arrays@strong"):
        answers = predict(model, features.under([variant]), features.clips("test", BOTH), BOTH)
        assert answers.audio is not None
        mean = ((answers.audio + answers.visual).argmax(1) == answers.labels).mean()
        found.append(accuracy(model, features, variant) - float(mean))
    return found


def test_under_noise_it_beats_the_plain_mean_of_its_branches(
    config: RunConfig, model: BalanceMLA, noisy: Features
) -> None:
    found = gains(model, noisy)
    assert sum(found) > 0
    if config.head == "linear":  # cosines have less to tell a gate about which answer is nonsense: docs/research.md
        assert min(found) >= 0


def test_only_the_decision_is_fitted_and_only_on_the_clips_given(model: BalanceMLA, noisy: Features) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = noisy.labels.clone()
    other[np.flatnonzero(noisy.split == "test")] = 0
    clips = noisy.clips("dev", BOTH)
    fit_decision(model, replace(noisy, labels=other), clips, tuple(sorted(NOISES)))
    for name, value in model.state_dict().items():  # a second fit begins at the first one's end: the same minimum
        torch.testing.assert_close(value, before[name], atol=5e-3 if name.startswith("decision") else 0.0, rtol=0.0)


def test_the_fit_is_at_a_minimum_of_the_written_out_objective() -> None:
    generator = torch.Generator().manual_seed(0)
    n, c, d = 60, 4, 2
    audio, visual = (torch.randn(n, c, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    x = torch.randn(n, 2 * (3 + d), generator=generator, dtype=torch.float64)
    labels = torch.randint(c, (n,), generator=generator)
    decision = Reliability(d, c, True, True).double().requires_grad_(True)
    w, b, s = (torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in decision.parameters())
    with torch.no_grad():
        for parameter, value in zip(decision.parameters(), (w, b, s), strict=True):
            parameter.copy_(value)
    total = 0.0
    for i in range(n):
        alpha = 1 / (1 + np.exp(-(x[i].numpy() @ w.numpy() + b.numpy())))
        mixed = np.exp(float(s)) * (alpha * audio[i].numpy() + (1 - alpha) * visual[i].numpy())
        # the mixture is normalised, raised to a power and normalised again: the first changes nothing
        total -= (mixed[labels[i]] - np.log(np.exp(mixed).sum())) / n
    total += (
        3e-3 * float(b.square().sum())
        + 3e-3 * float(s.square())
        + 3e-3 * float(w[:6].square().sum())
        + 0.1 * float(w[6:].square().sum())
    )
    assert float(objective(decision, audio, visual, x, labels).detach()) == pytest.approx(total, rel=1e-9)


def test_where_every_held_out_clip_is_answered_rightly_the_answers_do_not_grow_without_end() -> None:
    labels = torch.arange(40) % 4
    logs = (4.0 * torch.nn.functional.one_hot(labels, 4)).double().log_softmax(-1)
    decision = Reliability(2, 4, True, True).double().requires_grad_(True)
    assert decision.sharpness is not None
    x = torch.zeros(40, 2 * (3 + 2), dtype=torch.float64)
    best = min(
        (float(objective(fixed(decision, s), logs, logs, x, labels).detach()), s) for s in np.linspace(0, 10, 101)
    )[1]
    assert 0 < best < 3


def fixed(decision: Reliability, sharpness: float) -> Reliability:
    assert decision.sharpness is not None
    with torch.no_grad():
        decision.sharpness.fill_(sharpness)
    return decision


def test_without_noise_how_sure_the_answers_are_decides(config: RunConfig, noisy: Features) -> None:
    """Nothing about noise can be learnt from clean clips; a weight fitted on them fails where noise comes unseen."""
    model = trained(replace(config, gate_augment=()), noisy)
    answers = predict(model, noisy, noisy.clips("test", BOTH), BOTH)
    assert isinstance(model.decision, Reliability)
    assert model.decision.bias is not None
    bias = model.decision.bias.numpy()
    assert np.abs(bias).max() > 1e-3  # of the classes: fitted
    for i in range(20):
        audio, visual = answers.audio[i].astype(float), answers.visual[i].astype(float)
        entropies = [-float((np.exp(logs) * logs).sum()) for logs in (audio, visual)]
        alpha = 1 / (1 + np.exp(-(entropies[1] - entropies[0] + bias)))
        mixed = np.exp(float(model.decision.sharpness)) * (alpha * audio + (1 - alpha) * visual)
        np.testing.assert_allclose(answers.result[i], mixed - np.log(np.exp(mixed).sum()), atol=1e-4)
    if config.head == "linear":
        assert min(gains(model, noisy)) >= 0


def test_without_adf_and_clw_nothing_is_fitted(config: RunConfig, noisy: Features) -> None:
    model = trained(replace(config, adf=False, clw=False), noisy)
    assert not [name for name in model.state_dict() if name in ("decision.weight", "decision.bias")]
    assert mean_alpha(model, noisy, "audio.arrays@strong") == 0.5
