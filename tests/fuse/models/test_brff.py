import numpy as np
import torch

from bmla.fuse.models.brff import BilinearBRFF, CrossBRFF


def test_bilinear_equals_equations_1_and_2_written_out() -> None:
    torch.manual_seed(0)
    brff = BilinearBRFF(6)
    basic, auxiliary = torch.randn(2, 3, 6), torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    out = brff(basic, auxiliary, mask).detach().numpy()
    weight = brff.weight.weight.detach().numpy().astype(float)
    for b in range(2):
        valid = np.flatnonzero(mask[b].numpy())
        for j in range(3):
            f = basic[b, j].numpy().astype(float)
            scores = np.array([auxiliary[b, i].numpy().astype(float) @ weight @ f for i in valid])
            beta = np.exp(scores) / np.exp(scores).sum()
            residual = sum(beta[n] * auxiliary[b, i].numpy() for n, i in enumerate(valid))
            np.testing.assert_allclose(out[b, j], f + residual, atol=1e-5)


def test_cross_attention_begins_at_the_basic_feature_exactly() -> None:
    torch.manual_seed(0)
    basic, auxiliary = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert torch.equal(CrossBRFF(8, 2, 3, 0.1).eval()(basic, auxiliary, mask), basic)


def test_every_block_learns_from_the_first_step() -> None:
    torch.manual_seed(0)
    brff = CrossBRFF(8, 2, 3, 0.0)
    brff(torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).square().sum().backward()
    for block in brff.blocks:
        assert block.attention.out.weight.grad.abs().sum() > 0


def test_nothing_comes_from_a_missing_modality() -> None:
    torch.manual_seed(0)
    cross = CrossBRFF(8, 2, 3, 0.0)
    for block in cross.blocks:
        torch.nn.init.normal_(block.attention.out.weight)
    basic, auxiliary = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [False] * 5])
    for brff in (cross, BilinearBRFF(8)):
        out = brff(basic, auxiliary, mask)
        assert torch.equal(out[1], basic[1])
        assert not torch.allclose(out[0], basic[0], atol=1e-3)


def test_the_result_has_the_basic_modalitys_length() -> None:
    out = CrossBRFF(8, 2, 1, 0.0)(torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool))
    assert out.shape == (2, 3, 8)
