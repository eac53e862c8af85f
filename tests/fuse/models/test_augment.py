import pytest
import torch

from bmla.fuse.models.augment import Crop, HideTime


def pictures(clips: int = 3, steps: int = 2) -> torch.Tensor:
    """Each pixel tells its clip, step, row and column."""
    n = torch.cartesian_prod(*(torch.arange(k) for k in (clips, steps, 10, 8)))
    return (n * torch.tensor([100, 1000, 10, 1])).sum(1).view(clips, steps, 10, 8)


def test_evaluation_takes_the_middle() -> None:
    crop = Crop(0.8, 1.0).eval()
    x = pictures()
    torch.testing.assert_close(crop(x), x[:, :, 1:9, 1:7])
    torch.testing.assert_close(crop(x[..., None].repeat(1, 1, 1, 1, 3))[..., 2], x[:, :, 1:9, 1:7])


def test_training_takes_any_part_and_the_same_of_all_steps_of_a_clip() -> None:
    torch.manual_seed(0)
    crop, x = Crop(0.8, 0.5).train(), pictures(steps=2)
    corners, mirrored = set(), set()
    for _ in range(200):
        out = crop(x)
        assert out.shape == (3, 2, 8, 6)
        torch.testing.assert_close(out[:, 1] - out[:, 0], torch.full((3, 8, 6), 1000))
        for clip in range(3):
            row = out[clip, 0] - 100 * clip
            flipped = bool(row[0, 0] > row[0, 1])
            row = row.flip(1) if flipped else row
            top, left = divmod(int(row[0, 0]), 10)
            torch.testing.assert_close(row, x[0, 0, top : top + 8, left : left + 6])
            corners.add((top, left))
            mirrored.add(flipped)
    assert corners == {(i, j) for i in range(3) for j in range(3)}
    assert mirrored == {True, False}


def test_all_of_a_picture_is_kept_where_nothing_is_asked() -> None:
    x = pictures()
    torch.testing.assert_close(Crop(1.0, 0.0).train()(x), x)
    torch.testing.assert_close(Crop(1.0, 1.0).train()(x), x.flip(3))


def test_one_span_of_valid_steps_is_hidden_no_longer_than_its_share() -> None:
    torch.manual_seed(0)
    hide = HideTime(0.5)
    mask = torch.tensor([[1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 0]], dtype=torch.bool)
    lengths, starts = set(), set()
    for _ in range(300):
        out = hide(torch.ones(1, 11, 2), mask)[0, :, 0][mask[0]]
        gone = torch.nonzero(out == 0).flatten().tolist()
        lengths.add(len(gone))
        if gone:
            assert gone == list(range(gone[0], gone[-1] + 1))
            starts.add(gone[0])
    assert lengths == {0, 1, 2, 3, 4}
    assert starts == set(range(8))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_hidden_in_evaluation_or_where_the_share_is_zero(training: bool) -> None:
    x = torch.randn(2, 5, 3)
    hide = HideTime(0.0 if training else 0.9).train(training)
    assert hide(x, torch.ones(2, 5, dtype=torch.bool)) is x
