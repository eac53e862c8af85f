import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmla.fuse.splits import DEV_SHARE, fold_splits, session_of, usable_splits
from bmla.store.errors import UsageError


def clips(train: int, test: int, per_group: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    split = np.array(["train"] * train + ["test"] * test, object)
    groups = np.array([f"g{i // per_group}" for i in range(train + test)], object)
    return split, groups, np.ones(train + test, bool)


def test_given_splits_stay_as_they_are() -> None:
    split = np.array(["train", "dev", "test", None], object)
    result, notes = usable_splits(split, np.array(list("abcd"), object), np.ones(4, bool), "here")
    assert result.tolist() == ["train", "dev", "test", None]
    assert notes == ()


def test_a_missing_dev_split_is_carved_out_of_train_by_whole_groups() -> None:
    split, groups, usable = clips(200, 50, per_group=4)
    result, notes = usable_splits(split, groups, usable, "here")
    dev = result == "dev"
    assert DEV_SHARE * 200 <= dev.sum() < DEV_SHARE * 200 + 4
    assert (result[200:] == "test").all()
    assert not set(groups[dev]) & set(groups[result == "train"])
    assert f"{dev.sum()} of the training clips choose the epoch instead" in notes[0]


def test_the_carved_split_is_stable_under_reordering_and_new_test_clips() -> None:
    split, groups, usable = clips(200, 50, per_group=4)
    chosen = set(groups[usable_splits(split, groups, usable, "here")[0] == "dev"])
    order = np.random.default_rng(0).permutation(250)
    assert set(groups[order][usable_splits(split[order], groups[order], usable, "here")[0] == "dev"]) == chosen
    more = clips(200, 80, per_group=4)
    assert set(more[1][usable_splits(*more, "here")[0] == "dev"]) == chosen


def test_one_group_cannot_be_split() -> None:
    split, groups, usable = clips(10, 5, per_group=100)
    with pytest.raises(UsageError, match="all training clips are of one group \\(g0\\)"):
        usable_splits(split, groups, usable, "here")


def test_two_groups_give_one_each() -> None:
    split, groups, usable = clips(10, 5, per_group=5)
    result, _ = usable_splits(split, groups, usable, "here")
    assert (result == "dev").sum() == (result == "train").sum() == 5


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split_is_an_error(missing: str) -> None:
    split, groups, usable = clips(10, 10)
    with pytest.raises(UsageError, match=f"here: no usable clip in the {missing} split"):
        usable_splits(split, groups, usable & (split != missing), "here")


def test_clips_that_cannot_be_used_are_counted() -> None:
    split, groups, usable = clips(100, 10)
    split[5] = "dev"
    usable[:3] = False
    result, notes = usable_splits(split, groups, usable, "here")
    assert result[:3].tolist() == [None] * 3
    assert notes[0].startswith("3 clips are left out")


def test_an_unknown_split_is_refused() -> None:
    split, groups, usable = clips(3, 3)
    split[0] = "val"
    with pytest.raises(UsageError, match="unknown split val; expected train, dev, test"):
        usable_splits(split, groups, usable, "here")


@settings(max_examples=60, deadline=None)
@given(units=st.lists(st.sampled_from("abcdefgh"), min_size=12, max_size=60), folds=st.integers(3, 5))
def test_over_all_folds_every_clip_is_tested_once_and_no_unit_is_split(units: list[str], folds: int) -> None:
    names = np.array(units, object)
    if len(set(units)) < folds:
        with pytest.raises(UsageError, match=f"{folds} folds of {len(set(units))} units"):
            fold_splits(names, folds, 0)
        return
    splits = [fold_splits(names, folds, fold) for fold in range(folds)]
    assert (np.sum([s == "test" for s in splits], axis=0) == 1).all()
    assert (np.sum([s == "dev" for s in splits], axis=0) == 1).all()
    for split in splits:
        assert all(len({s for s, u in zip(split, units, strict=True) if u == unit}) == 1 for unit in set(units))
        assert set(split) == {"train", "dev", "test"}


def test_folds_are_of_about_one_size_and_depend_on_the_names_alone() -> None:
    units = np.array([f"g{i % 50}" for i in range(500)], object)
    split = fold_splits(units, 5, 2)
    assert [(split == s).sum() for s in ("train", "dev", "test")] == [300, 100, 100]
    order = np.random.default_rng(0).permutation(500)
    assert (fold_splits(units[order], 5, 2) == split[order]).all()


def test_a_session_is_read_from_iemocaps_speakers_alone() -> None:
    assert session_of("Ses03F") == session_of("Ses03M") == "Ses03"
    assert session_of("s1") is session_of(None) is session_of("Ses06M") is session_of("Ses03F_impro") is None
