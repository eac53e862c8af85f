"""Heads against sums that are written out."""

import math

import torch

from bmla.fuse.models.base import Input
from bmla.fuse.models.heads import Cosine
from bmla.fuse.models.single import SingleModality
from bmla.fuse.models.table import build
from bmla.fuse.recipes import run_config


def test_an_answer_is_the_scaled_cosine_between_z_and_each_class() -> None:
    torch.manual_seed(0)
    head, z = Cosine(5, 3, 7.0), torch.randn(4, 5)
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    for n in range(4):
        for c in range(3):
            w, x = head.weight[c].tolist(), z[n].tolist()
            product = sum(a * b for a, b in zip(w, x, strict=True))
            lengths = math.sqrt(sum(a * a for a in w)) * math.sqrt(sum(a * a for a in x))
            torch.testing.assert_close(head(z)[n, c].item(), 7.0 * product / lengths, rtol=1e-5, atol=1e-6)


def test_however_far_z_lies_no_answer_is_surer_than_the_scale_allows() -> None:
    torch.manual_seed(0)
    head, z = Cosine(5, 3, 2.0), torch.randn(50, 5)
    torch.testing.assert_close(head(1e6 * z), head(z))
    surest = head(z).softmax(1).max()
    assert surest <= math.exp(2) / (math.exp(2) + 2 * math.exp(-2))
    assert (head(torch.zeros(1, 5)) == 0).all()


def test_a_branch_of_balancemla_answers_by_cosines_when_it_is_told_to() -> None:
    def branch(**wishes: object) -> object:
        model = build(run_config("balancemla-ao", width=8, heads=2, layers=1, **wishes), {"audio": Input(6, 50.0)}, 3)
        assert isinstance(model, SingleModality)
        return model.audio.head

    told = branch(head="cosine", cosine_scale=4.0)
    assert isinstance(told, Cosine)
    assert told.scale == 4.0
    assert type(branch(head="linear")) is torch.nn.Linear
