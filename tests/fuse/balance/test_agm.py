import math
from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.balance.agm import AGM, lead_of, modulation
from bmla.fuse.config import RunConfig

CONFIG = RunConfig("balancemla", balance="agm", agm_alpha=0.5)


def test_leads_and_factors_written_out() -> None:
    lead = lead_of(torch.tensor([0.2, 1.1]))
    assert lead.tolist() == pytest.approx([math.exp(0.9), math.exp(-0.9)])
    k = modulation(torch.tensor([1.5, 9.0]), torch.tensor([2.0, 1.0]), 0.5)
    assert k.tolist() == pytest.approx([math.exp(0.5 * -0.5), math.exp(0.5 * 7)])  # capped at 7, not 8


def test_shares_of_the_answer_by_counterfactual_forwards(late: Any, batch: Any, tools: Any) -> None:
    model, method = late(), AGM(CONFIG)
    leads = []
    for seed in range(3):
        audio, visual, labels = clips = batch(seed=seed)
        with torch.no_grad():
            whole, sound, sight = (
                model(a, v).result.double().numpy()
                for a, v in ((audio, visual), (audio, visual.absent()), (audio.absent(), visual))
            )
        costs = []
        for phi in ((whole - sight + sound) / 2, (whole - sound + sight) / 2):
            logs = phi - np.log(np.exp(phi).sum(1, keepdims=True))
            costs.append(-np.mean([logs[i, y] for i, y in enumerate(labels.tolist()) if i > 1]))
        leads.append([math.exp(costs[1] - costs[0]), math.exp(costs[0] - costs[1])])
        k = [float(v) for v in method.scales(tools.step_of(model, clips)).values()]
        expected = [1.0, 1.0]
        if seed > 0:
            expected = [math.exp(0.5 * (np.mean([r[m] for r in leads[:-1]]) - leads[-1][m])) for m in (0, 1)]
        assert k == pytest.approx(expected, rel=1e-4)
    assert method.mean.tolist() == pytest.approx(np.mean(leads, 0).tolist(), rel=1e-4)


def test_batches_without_a_clip_that_has_both_count_for_nothing(late: Any, batch: Any, tools: Any) -> None:
    model, method = late(), AGM(CONFIG)
    method.scales(tools.step_of(model, batch()))
    before = method.mean.clone(), method.steps.clone()
    k = method.scales(tools.step_of(model, batch(none=True)))
    assert [float(v) for v in k.values()] == [1.0, 1.0]
    assert torch.equal(method.mean, before[0])
    assert torch.equal(method.steps, before[1])
