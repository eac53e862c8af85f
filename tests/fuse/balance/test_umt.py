from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bmla.fuse.balance.umt import UMT, build
from bmla.fuse.config import RunConfig
from bmla.store.errors import UsageError

CONFIG = RunConfig("balancemla", balance="umt", umt_weight=0.7, lambda_audio=0.0, lambda_visual=0.0)


def test_the_objective_written_out_and_the_teachers_frozen(late: Any, batch: Any, tools: Any) -> None:
    model, teacher = late(0), late(1)
    umt = UMT(
        CONFIG, {"audio": Blind(teacher), "visual": Blind(teacher)}, {m: nn.Identity() for m in ("audio", "visual")}
    )
    clips = batch()
    step, taught = tools.step_of(model, clips), tools.step_of(teacher, clips)
    apart = []
    for m, there in (("audio", [0, 2, 3, 4, 5, 6, 7]), ("visual", [1, 2, 3, 4, 5, 6, 7])):
        z, t = (getattr(s.output, f"pooled_{m}").detach().numpy()[there] for s in (step, taught))
        apart.append(np.mean((z - t) ** 2))
    assert umt.objective(step).item() == pytest.approx(step.losses.result.item() + 0.7 * sum(apart), rel=1e-5)
    before = [p.clone() for p in teacher.parameters()]
    optimiser = tools.adamw(model, umt)
    tools.one_step(model, umt, optimiser, clips)
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert not teacher.training


class Blind(nn.Module):
    """A teacher that is asked with one modality: the stub needs both, so that it is shown nothing in place of the other."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, audio: Any, visual: Any) -> Any:
        given = audio or visual
        blank = type(given)(
            torch.zeros(len(given.values), 1, 6 if audio else 5), torch.zeros(len(given.values), 1, dtype=torch.bool)
        )
        return self.model(audio or blank, visual or blank)


def test_features_of_another_length_are_compared_through_a_map_that_is_trained(
    late: Any, batch: Any, tools: Any
) -> None:
    model, wide = late(0), late(1)
    wide.audio = nn.Linear(5, 9)
    wide.shared, wide.head = True, nn.Linear(9, 3)
    teachers = {"audio": Widened(wide), "visual": Blind(late(2))}
    umt = build(CONFIG, model, 3, teachers)
    assert isinstance(umt.maps["visual"], nn.Identity)
    before = umt.maps["audio"].weight.clone()
    optimiser = tools.adamw(model, umt)
    tools.one_step(model, umt, optimiser, batch())
    assert not torch.equal(before, umt.maps["audio"].weight)
    assert {p.shape for p in umt.parameters() if p.requires_grad} == {(9, 4), (9,)}


class Widened(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, audio: Any, visual: Any) -> Any:
        from bmla.fuse.models.base import Output

        return Output(torch.zeros(1), pooled_audio=self.model.pool("audio", audio))


def test_without_teachers_it_is_refused(late: Any) -> None:
    with pytest.raises(UsageError, match="balance umt: no teacher for visual"):
        build(CONFIG, late(), 3, {"audio": Blind(late())})
