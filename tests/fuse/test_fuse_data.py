from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.choice import choose_streams
from bmla.fuse.data import Draw, Features, features_from_store
from bmla.fuse.models.base import Input, Steps
from bmla.fuse.stream import Resident
from bmla.store import open_store
from bmla.store.errors import StreamNotFound, UsageError

SPLIT = ["train", "dev", "test", "train"]


def arrays(lengths: list[int | None], l: int = 3, seed: int = 0, dtype: type = np.float32) -> list[np.ndarray | None]:  # noqa: E741
    rng = np.random.default_rng(seed)
    return [None if t is None else rng.normal(size=(t, l)).astype(dtype) for t in lengths]


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_batch_holds_just_the_clips_values_and_masks(data: st.DataObject) -> None:
    n = data.draw(st.integers(3, 6))
    lengths = [data.draw(st.integers(1, 6))] + [data.draw(st.none() | st.integers(0, 6)) for _ in range(n - 1)]
    given_arrays = arrays(lengths, dtype=np.float16)
    masks = [
        None if t is None else np.array(data.draw(st.lists(st.booleans(), min_size=t, max_size=t)), bool)
        for t in lengths
    ]
    visual = arrays([2] * n, 2)
    features = features_from_arrays(
        [0, 1] + [0] * (n - 2),
        ["train", "dev", *["test"] * (n - 2)],
        audio=given_arrays,
        audio_valid=masks,
        visual=visual,
    )
    chosen = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    audio = features.batch(torch.tensor(chosen), ("audio", "visual")).audio
    assert audio is not None
    assert audio.values.dtype == torch.float16
    assert audio.values.shape == (len(chosen), max(1, *[lengths[i] or 0 for i in chosen]), 3)
    for row, i in enumerate(chosen):
        t = lengths[i] or 0
        assert not audio.mask[row, t:].any()
        if t:
            assert audio.mask[row, :t].tolist() == masks[i].tolist()
            np.testing.assert_array_equal(audio.values[row, :t].numpy(), given_arrays[i])


def test_a_modality_that_is_not_asked_for_is_none() -> None:
    features = features_from_arrays([0, 1, 0, 1], SPLIT, audio=arrays([2] * 4), visual=arrays([2] * 4))
    assert features.batch(torch.tensor([0]), ("audio",)).visual is None
    assert features.batch(torch.tensor([0]), ("visual",)).audio is None


def test_a_clip_with_only_invalid_steps_lacks_the_modality() -> None:
    valid = [np.ones(2, bool), np.zeros(2, bool), np.ones(2, bool), None]
    features = features_from_arrays(
        [0, 1, 0, 1], SPLIT, audio=arrays([2, 2, None, 2]), audio_valid=valid, visual=arrays([1] * 4)
    )
    assert features.stream("audio").present.tolist() == [True, False, False, True]
    assert features.clips("train", ("audio",)).tolist() == [0, 3]
    assert features.clips("dev", ("audio",)).tolist() == []
    assert features.clips("dev", ("audio", "visual")).tolist() == [1]


def test_statistics_are_those_of_the_valid_steps_of_the_given_clips() -> None:
    x = arrays([4, 3, 5, 6], 2, seed=3)
    x[0][:, 1] = x[2][:, 1] = 7.0  # constant among the training clips
    x[2][0] = 1e4
    valid = [None, None, np.array([False] + [True] * 4), None]
    features = features_from_arrays([0, 1, 0, 1], ["train", "dev", "train", "test"], audio=x, audio_valid=valid)
    mean, std = features.stream("audio").statistics(np.array([0, 2]))
    steps = np.concatenate([x[0], x[2][1:]])[:, 0].astype(float)
    assert float(mean[0]) == pytest.approx(steps.mean(), rel=1e-5)
    assert float(std[0]) == pytest.approx(steps.std(), rel=1e-5)
    assert (float(mean[1]), float(std[1])) == (pytest.approx(7.0), 1.0)


def test_statistics_of_the_same_clips_are_computed_once(
    make_features: Callable[..., Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_features().stream("audio")
    seen: list[int] = []
    plain = Resident.batch
    monkeypatch.setattr(Resident, "batch", lambda self, clips: (seen.append(len(clips)), plain(self, clips))[1])
    first, other = stream.statistics(np.arange(60)), stream.statistics(np.arange(1, 61))
    again = replace(stream).statistics(np.arange(60))
    assert seen == [60, 60, 60]
    assert stream.statistics(np.arange(60)) is first
    assert seen == [60, 60, 60]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_statistics_of_half_precision_do_not_overflow() -> None:
    x = [np.full((500, 1), 60000, np.float16) - np.arange(500, dtype=np.float16)[:, None] * 32 for _ in range(4)]
    features = features_from_arrays([0, 1, 0, 1], SPLIT, audio=x)
    mean, std = features.stream("audio").statistics(np.array([0, 3]))
    assert float(mean[0]) == pytest.approx(np.mean(x[0].astype(float)), rel=1e-6)
    assert float(std[0]) == pytest.approx(np.std(x[0].astype(float)), rel=1e-5)


def test_unlabelled_clips_are_left_out_and_counted() -> None:
    features = features_from_arrays([0, 1, 0, -1], SPLIT, audio=arrays([2] * 4))
    assert len(features) == 3
    assert features.ids.tolist() == ["0", "1", "2"]
    assert "1 clips are left out" in features.notes[0]


def test_the_digest_depends_on_everything_that_shapes_a_run() -> None:
    def digest(**change: object) -> str:
        options = dict(labels=[0, 1, 0, 1], split=SPLIT, audio=arrays([2] * 4), audio_rate_hz=50.0)
        return features_from_arrays(**{**options, **change}).digest

    x = arrays([2] * 4)
    x[3][1, 2] += 1e-3
    same = digest()
    assert digest() == same
    changes = dict(
        labels=[1, 1, 0, 1], split=["train", "dev", "test", "test"], audio=x, audio_rate_hz=49.0, groups=list("aabb")
    )
    for name, value in changes.items():
        assert digest(**{name: value}) != same, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": arrays([2] * 3)}, "audio has 3 entries, expected one for each of the 4 labels"),
        ({"audio": [np.zeros((2, 3, 4, 5), np.float32)] * 4}, "audio of clip 0: float32 \\(2, 3, 4, 5\\)"),
        (
            {"audio": [*arrays([2] * 3), np.zeros((2, 4), np.float32)]},
            "audio of clip 3: float32 \\(2, 4\\), expected .* \\(T, 3\\)",
        ),
        ({"audio": [np.zeros((2, 3), np.int64)] * 4}, "int64"),
        ({"audio": [np.full((2, 3), np.nan, np.float32)] * 4}, "audio of clip 0: valid steps hold NaN"),
        ({"audio": [None] * 4}, "no clip has audio features"),
        ({"audio_valid": [np.ones(3, bool)] * 4}, "validity \\(3,\\), expected \\(2,\\)"),
        ({"labels": [0, 1, 2, 5], "classes": ("a", "b", "c")}, "labels reach from 0 to 5, expected -1 to 2"),
        ({"labels": [0, 0, 0, 0]}, "1 class\\(es\\), expected at least 2"),
        ({"audio": None}, "neither audio nor visual"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    options = dict(labels=[0, 1, 0, 1], split=SPLIT, audio=arrays([2] * 4))
    with pytest.raises(UsageError, match=message):
        features_from_arrays(**{**options, **change})


def test_nan_at_an_invalid_step_is_no_fault() -> None:
    x = arrays([2] * 4)
    x[0][1] = np.nan
    valid = [np.array([True, False]), None, None, None]
    features = features_from_arrays([0, 1, 0, 1], SPLIT, audio=x, audio_valid=valid)
    assert torch.isfinite(features.stream("audio").statistics(np.array([0, 3]))[0]).all()


def test_a_store_gives_the_union_of_its_streams_clips(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    features = features_from_store(store, "audio.logspec", "mouth.dct")
    audio, visual = features.stream("audio"), features.stream("visual")
    assert len(features) == 80
    assert np.flatnonzero(~audio.present).tolist() == [0]  # failed
    assert np.flatnonzero(~visual.present).tolist() == [1]  # no valid frame
    assert audio.values.dtype == torch.float16
    assert (audio.rate_hz, visual.rate_hz) == (50.0, 25.0)
    assert features.digest == store.digest(["audio.logspec", "mouth.dct"])
    assert audio.digest == store.spec("audio.logspec").digest()
    packed = store.load("audio.logspec")
    i = 7
    at = int(np.flatnonzero(packed.clips == i)[0])
    steps = audio.batch(torch.tensor([i]))
    np.testing.assert_array_equal(steps.values[0].numpy(), packed.values[packed.offsets[at] : packed.offsets[at + 1]])
    alone = features_from_store(store, "audio.logspec", None)
    assert len(alone) == 79
    assert alone.visual is None


@pytest.mark.parametrize("tier", ["ram", "mmap", "shard"])
def test_every_tier_gives_the_same_batches_and_statistics(tiny_store: Path, tier: str) -> None:
    store = open_store(tiny_store)
    told: list[str] = []
    there = features_from_store(store, "audio.logspec", "mouth.dct")
    read = features_from_store(store, "audio.logspec", "mouth.dct", tier=tier, tell=told.append)
    assert [f"tier {tier} (as asked for)" in line for line in told] == [True, True]
    chosen = torch.tensor([5, 0, 1, 79, 5, 33])  # 0 has no sound, 1 no valid frame; one comes twice
    for modality in ("audio", "visual"):
        a, b = there.stream(modality), read.stream(modality)
        np.testing.assert_array_equal(a.present, b.present)
        for x, y in ((a, b), (a.select(chosen), b.select(chosen))):
            for clips in (chosen, torch.tensor([0]), torch.tensor([1])):
                one, other = x.batch(clips % len(x.lengths)), y.batch(clips % len(y.lengths))
                torch.testing.assert_close(one.mask, other.mask, rtol=0, atol=0)
                torch.testing.assert_close(masked(one), masked(other), rtol=0, atol=0)
        for one, other in zip(a.statistics(np.arange(60)), b.statistics(np.arange(60)), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def masked(steps: Steps) -> torch.Tensor:
    return steps.values.masked_fill(~steps.mask[..., None], 0)


def test_the_budget_holds_for_both_streams_together(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    sizes = [store.choose_tier(name, None, "auto", None, None).bytes for name in ("audio.logspec", "mouth.dct")]
    for budget, expected in ((sum(sizes), ["ram", "ram"]), (sum(sizes) - 1, ["ram", "mmap"]), (0, ["mmap", "mmap"])):
        told: list[str] = []
        features_from_store(store, "audio.logspec", "mouth.dct", budget_bytes=budget, tell=told.append)
        assert [line.split("tier ")[1].split(" ")[0] for line in told] == expected


def test_without_a_budget_both_streams_share_half_of_what_is_free(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tiny_store)
    sizes = [store.choose_tier(name, None, "auto", None, None).bytes for name in ("audio.logspec", "mouth.dct")]
    monkeypatch.setattr("bmla.fuse.data.available_bytes", lambda: 2 * sum(sizes) - 2)
    told: list[str] = []
    features_from_store(store, "audio.logspec", "mouth.dct", tell=told.append)
    assert ["tier ram" in line for line in told] == [True, False]


def test_a_stream_without_any_step_gives_masks_of_nothing() -> None:
    empty = Resident("a", 50.0, (3,), False, torch.zeros(2, dtype=torch.int64), np.zeros(2, bool), "", torch.zeros(0, 3),
                     torch.zeros(0, dtype=torch.bool), torch.zeros(2, dtype=torch.int64))  # fmt: skip
    steps = empty.batch(torch.tensor([0, 1]))
    assert (tuple(steps.values.shape), steps.mask.any().item()) == ((2, 1, 3), False)
    assert [part.tolist() for part in empty.statistics(np.array([0, 1]))] == [[0.0] * 3, [1.0] * 3]


def test_streams_of_pictures_are_refused_with_those_that_fit(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    with pytest.raises(UsageError, match=r"mouth\.roi holds 4 x 4 uint8 pictures.*visual streams that fit: mouth.dct"):
        features_from_store(store, None, "mouth.roi")
    with pytest.raises(UsageError, match=r"mouth\.dct is visual, not audio; audio streams that fit: audio.logspec"):
        features_from_store(store, "mouth.dct", None)
    with pytest.raises(StreamNotFound, match=r"audio\.hubert"):
        features_from_store(store, "audio.hubert", None)


def test_the_best_known_streams_are_chosen(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    both = ("audio", "visual")
    assert choose_streams(store, both, None, None) == {"audio": "audio.logspec", "visual": "mouth.dct"}
    assert choose_streams(store, both, "audio.mine", None)["audio"] == "audio.mine"
    assert choose_streams(store, ("visual",), None, None) == {"visual": "mouth.dct"}


class Shelf:
    """As much of a store as the choice of streams looks at."""

    path = "shelf"

    def __init__(self, task: str, *names: str):
        self.task, self.names = task, names

    def streams(self) -> list[str]:
        return sorted(self.names)

    def spec(self, name: str) -> object:
        shape = (80, 80) if name.endswith("roi") else (10,)
        kind = type("Spec", (), {"feature_shape": shape, "dtype": "float16", "name": name})
        kind.modality = "audio" if name.startswith("audio") else "visual"
        return kind


@pytest.mark.parametrize(
    ("task", "streams", "expected"),
    [
        ("emotion", ["audio.logspec", "audio.hubert", "mouth.dct", "face.vggface2"], ["audio.hubert", "face.vggface2"]),
        ("lip reading", ["audio.logspec", "mouth.dct", "face.vggface2", "mouth.roi"], ["audio.logspec", "mouth.dct"]),
        ("other", ["audio.zeta", "audio.alpha@snr=0", "face.own"], ["audio.zeta", "face.own"]),
        ("other", ["audio.alpha@snr=0", "face.own"], ["audio.alpha@snr=0", "face.own"]),
    ],
)
def test_preferences_by_task(task: str, streams: list[str], expected: list[str]) -> None:
    shelf = Shelf(task, *streams)
    assert list(choose_streams(shelf, ("audio", "visual"), None, None).values()) == expected


def test_a_store_without_a_fitting_stream_is_an_error() -> None:
    with pytest.raises(
        UsageError, match=r"shelf: no visual stream of one vector a step to train on; streams: audio.hubert, mouth.roi"
    ):
        choose_streams(Shelf("emotion", "audio.hubert", "mouth.roi"), ("audio", "visual"), None, None)


def test_a_model_without_its_modality_is_an_error(make_features: Callable[..., Features]) -> None:
    features = features_from_arrays([0, 1, 0, 1], SPLIT, audio=arrays([2] * 4))
    with pytest.raises(UsageError, match="no visual stream was loaded"):
        features.stream("visual")


NOISES = {"audio.arrays@a": 1.0, "audio.arrays@b": 5.0, "visual.arrays@c": 2.0}


def test_each_clip_of_a_draw_is_of_its_own_version(make_features: Callable[..., Features]) -> None:
    features = make_features(noises=NOISES)
    clips = torch.tensor([4, 0, 9, 7])
    versions = {"audio": torch.tensor([2, 0, 1, 2]), "visual": torch.tensor([0, 1, 1, 0])}
    (batch,) = features.batches([Draw(clips, versions)], ("audio", "visual"), tuple(NOISES))
    names = {"audio": [None, "audio.arrays@a", "audio.arrays@b"], "visual": [None, "visual.arrays@c"]}
    for modality, steps in (("audio", batch.audio), ("visual", batch.visual)):
        assert steps is not None
        for row, (clip, version) in enumerate(zip(clips.tolist(), versions[modality].tolist(), strict=True)):
            name = names[modality][version]
            stream = features.stream(modality) if name is None else features.variant(name)
            alone = stream.batch(torch.tensor([clip]))
            t = alone.mask.shape[1]
            assert torch.equal(steps.values[row, :t], alone.values[0])
            assert steps.mask[row].tolist() == alone.mask[0].tolist() + [False] * (steps.mask.shape[1] - t)


def test_under_noise_only_that_stream_changes(make_features: Callable[..., Features]) -> None:
    features = make_features(noises=NOISES)
    noisy = features.under(["audio.arrays@b"])
    assert noisy.audio is features.variant("audio.arrays@b")
    assert noisy.visual is features.visual
    with pytest.raises(UsageError, match=r"audio.arrays@a and audio.arrays@b are both audio"):
        features.under(["audio.arrays@a", "audio.arrays@b"])
    with pytest.raises(UsageError, match=r"no features audio.arrays@z were loaded; variants: audio.arrays@a, "):
        features.under(["audio.arrays@z"])
    with pytest.raises(UsageError, match=r'variants: "audio@a" names no version of audio.arrays'):
        features_from_arrays([0, 1, 0, 1], SPLIT, audio=arrays([2] * 4), variants={"audio@a": arrays([2] * 4)})


def test_folds_change_the_splits_alone(make_features: Callable[..., Features]) -> None:
    features = make_features()
    assert features.folded(0, 0, "group") is features
    folded = features.folded(4, 1, "group")
    assert set(folded.split) == {"train", "dev", "test"}
    assert folded.digest == features.digest
    with pytest.raises(UsageError, match="no speaker is known of these clips"):
        features.folded(4, 1, "speaker")


def test_noise_variants_come_from_the_store_with_their_own_digests(noisy_store: Path) -> None:
    store = open_store(noisy_store)
    name = "audio.logspec@white=0"
    features = features_from_store(store, "audio.logspec", "mouth.dct", variants=[name])
    assert features.variant_digests == {name: store.digest([name])}
    assert features.digest == features_from_store(store, "audio.logspec", "mouth.dct").digest
    assert set(features.units) == {"speaker"}
    with pytest.raises(
        UsageError, match=r"mouth.roi@blur=1 is no noise variant of audio.logspec or mouth.dct; the store has"
    ):
        features_from_store(store, "audio.logspec", "mouth.dct", variants=["mouth.roi@blur=1"])


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_statistics_of_pictures_are_those_of_all_valid_pixels_of_a_colour(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 256, (t, *shape), np.uint8) for t in (3, 1, 4, 2)]
    valid = [np.arange(len(c)) != 1 for c in clips]
    features = features_from_arrays([0, 1, 0, 1], SPLIT, visual=clips, visual_valid=valid)
    stream = features.stream("visual")
    assert stream.input == Input(int(np.prod(shape)), 25.0, shape, pixels=True)
    mean, std = stream.statistics(np.array([0, 2, 3]))
    pixels = np.concatenate([clips[i][valid[i]].reshape(-1, 3 if len(shape) == 3 else 1) for i in (0, 2, 3)])
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-6)
    batch = stream.batch(torch.tensor([1, 2]))
    assert (batch.values.dtype, tuple(batch.values.shape)) == (torch.uint8, (2, 4, *shape))


def test_statistics_of_stacks_are_those_of_each_number() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(t, 3, 2)).astype(np.float32) for t in (3, 1, 4, 2)]
    features = features_from_arrays([0, 1, 0, 1], SPLIT, audio=clips)
    mean, std = features.stream("audio").statistics(np.arange(4))
    every = np.concatenate(clips)
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, every.std(0), rtol=1e-5)


def test_pictures_stay_bytes_wherever_they_are_kept(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    for tier in ("ram", "mmap"):
        features = features_from_store(store, "audio.logspec", "mouth.roi", models=["concat"], tier=tier)
        steps = features.stream("visual").batch(torch.tensor([2, 0, 1]))
        assert (steps.values.dtype, tuple(steps.values.shape[2:])) == (torch.uint8, (4, 4))
