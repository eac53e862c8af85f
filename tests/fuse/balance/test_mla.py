from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.balance.mla import MLA, build, narrowed
from bmla.fuse.config import RunConfig
from bmla.store.errors import UsageError


def method(alpha: float = 0.1) -> MLA:
    # not tied to a model of the table: the stub has the shared head
    return MLA(RunConfig("balancemla", mla_alpha=alpha), 4)


def test_the_projection_is_recursive_least_squares() -> None:
    rng, alpha = np.random.default_rng(0), 0.3
    projection, inputs = torch.eye(4), []
    for _ in range(5):
        h = rng.normal(size=4)
        inputs.append(h)
        projection = narrowed(projection, torch.from_numpy(h).float(), alpha)
        batch_form = np.linalg.inv(np.eye(4) + sum(np.outer(x, x) for x in inputs) / alpha)
        np.testing.assert_allclose(projection.numpy(), batch_form, atol=1e-5)


def test_modalities_take_turns_on_each_batch_and_only_one_moves(late: Any, batch: Any, tools: Any) -> None:
    model, mla = late(shared=True), method()
    optimiser, clips = tools.adamw(model), batch()
    assert mla.turns == 2
    for moving, still in (("audio", "visual"), ("visual", "audio"), ("audio", "visual")):
        before = {n: p.clone() for n, p in model.named_parameters()}
        step = tools.one_step(model, mla, optimiser, clips)
        assert torch.equal(model.get_parameter(f"{still}.weight"), before[f"{still}.weight"])
        assert not torch.equal(model.get_parameter(f"{moving}.weight"), before[f"{moving}.weight"])
        assert not torch.equal(model.head.weight, before["head.weight"])
        assert step is not None


def test_the_head_does_not_change_what_it_says_about_the_other_modalitys_mean(
    late: Any, batch: Any, tools: Any
) -> None:
    model, mla = late(shared=True), method(alpha=1e-6)
    optimiser, clips = tools.adamw(model), batch()
    step = tools.one_step(model, mla, optimiser, clips)
    mean = step.output.pooled_audio[[0, 2, 3, 4, 5, 6, 7]].mean(0).detach()  # clip 1 has no sound
    before = model.head.weight.detach().clone()
    tools.one_step(model, mla, optimiser, clips)
    change = model.head.weight.detach() - before
    assert change.norm() > 1e-3
    assert (change @ mean).norm() < 1e-4 * change.norm() * mean.norm()


def test_the_first_update_is_adamws_own(late: Any, batch: Any, tools: Any) -> None:
    model, mla, plain = late(shared=True), method(), late(shared=True)
    tools.one_step(model, mla, tools.adamw(model), batch())
    optimiser = tools.adamw(plain)
    tools.step_of(plain, batch()).losses.audio.backward()
    optimiser.step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_batch_without_the_modality_teaches_the_projection_nothing(late: Any, batch: Any, tools: Any) -> None:
    model, mla = late(shared=True), method()
    optimiser = tools.adamw(model)
    tools.one_step(model, mla, optimiser, batch(none=True))
    before = mla.projection_audio.clone()
    tools.one_step(model, mla, optimiser, batch(none=True))  # the turn of sight, which no clip has
    assert torch.equal(mla.projection_audio, before)
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_model_without_a_shared_head_is_refused(late: Any) -> None:
    model = late()
    model.head = torch.nn.Identity()
    with pytest.raises(UsageError, match="no linear head that both modalities share"):
        build(RunConfig("balancemla"), model, 3, {})
