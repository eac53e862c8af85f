"""A model of one's own: what it is called with, what it may answer, and which balance methods it goes with."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmla.fuse.balance.table import BALANCES, NEEDS, entry
from bmla.fuse.balance.table import build as build_balance
from bmla.fuse.checks import fits
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.models.base import Input, Steps
from bmla.fuse.models.own import Own, identity
from bmla.fuse.models.table import build, takes
from bmla.fuse.prerequisites import teachers
from bmla.fuse.training import Trained, train
from bmla.store.errors import UnknownName, UsageError

Make = Callable[..., Features]
Tiny = Callable[..., RunConfig]
INPUTS = {"audio": Input(12, 50.0), "visual": Input(8, 25.0)}
EVERYTHING = ("audio", "visual", "audio_features", "visual_features")


def mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class Towers(nn.Module):
    """Args of init: gives: the keys of its answer besides logits; none: it answers with logits alone."""

    def __init__(self, inputs: Mapping[str, Input], classes: int, gives: tuple[str, ...] = EVERYTHING):
        super().__init__()
        self.gives = gives
        self.audio, self.visual = nn.Linear(inputs["audio"].length, 16), nn.Linear(inputs["visual"].length, 16)
        self.head = nn.Linear(16, classes)
        self.seen: list[Tensor] = []

    def forward(self, audio: Tensor, audio_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Any:
        self.seen = [audio, audio_mask, visual, visual_mask]
        z = [mean(self.audio(audio).relu(), audio_mask), mean(self.visual(visual).relu(), visual_mask)]
        logits = [self.head(each) for each in z]
        answer = dict(zip(("logits", *EVERYTHING), (sum(logits), *logits, *z), strict=True))
        return {key: answer[key] for key in ("logits", *self.gives)} if self.gives else answer["logits"]


class Bare(nn.Module):
    """Nothing but logits, from parts of other names."""

    def __init__(self, inputs: Mapping[str, Input], classes: int):
        super().__init__()
        self.first, self.second = (nn.Linear(source.length, classes) for source in inputs.values())

    def forward(self, audio: Tensor, audio_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        return mean(self.first(audio), audio_mask) + mean(self.second(visual), visual_mask)


class Answering(nn.Module):
    """Answers one thing whatever it is shown."""

    def __init__(self, inputs: Mapping[str, Input], classes: int, answer: Any):
        super().__init__()
        self.weight, self.answer = nn.Parameter(torch.zeros(())), answer

    def forward(self, *steps: Tensor) -> Any:
        return self.answer


class FirstStep(nn.Module):
    """Has nothing to learn."""

    def __init__(self, inputs: Mapping[str, Input], classes: int):
        super().__init__()

    def forward(self, audio: Tensor, mask: Tensor) -> Tensor:
        return audio[:, 0]


def steps(length: int, seed: int) -> Steps:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, 5, generator=generator) < 0.7
    return Steps(torch.randn(3, 5, length, generator=generator).where(mask[..., None], torch.nan), mask)


def test_it_is_called_with_standardised_steps_that_are_zero_where_they_are_not_valid() -> None:
    model = build(RunConfig("own:towers"), INPUTS, 4, Towers)
    assert isinstance(model, Own)
    model.set_statistics("audio", torch.full((12,), 2.0), torch.full((12,), 4.0))
    audio, visual = steps(12, 0), steps(8, 1)
    output = model(audio, visual)
    own = model.own
    assert isinstance(own, Towers)
    expected = ((audio.values - 2) / 4).where(audio.mask[..., None], 0.0)
    torch.testing.assert_close(own.seen[0], expected)
    assert torch.equal(own.seen[1], audio.mask)
    torch.testing.assert_close(output.result.exp().sum(1), torch.ones(3))
    torch.testing.assert_close(output.result, own(*own.seen)["logits"].log_softmax(1))
    assert torch.equal(model.mean_of("audio"), torch.full((12,), 2.0))


def test_features_of_a_modality_that_a_clip_lacks_are_zero_whatever_it_says() -> None:
    ones = {"logits": torch.zeros(1, 4), "audio_features": torch.ones(1, 2), "visual_features": torch.ones(1, 2)}
    model = build(RunConfig("own:odd"), INPUTS, 4, partial(Answering, answer=ones))
    audio, visual = (Steps(s.values[:1], torch.ones(1, 5, dtype=torch.bool)) for s in (steps(12, 0), steps(8, 1)))
    output = model(audio.absent(), visual)
    assert output.pooled_audio is not None
    assert output.pooled_visual is not None
    assert (output.pooled_audio.tolist(), output.pooled_visual.tolist()) == ([[0, 0]], [[1, 1]])


def test_its_parameters_are_of_the_modality_that_their_names_begin_with() -> None:
    groups = build(RunConfig("own:towers"), INPUTS, 4, Towers).parameter_groups()
    assert {owner: sum(p.numel() for p in ps) for owner, ps in groups.items()} == {
        "audio": 13 * 16,
        "visual": 9 * 16,
        "shared": 17 * 4,
    }
    assert set(build(RunConfig("own:bare"), INPUTS, 4, Bare).parameter_groups()) == {"shared"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.zeros(1, 5), r"own:odd: forward gave logits \(1, 5\), expected a tensor \(1, 4\)"),
        (torch.zeros(4), r"logits \(4,\), expected a tensor \(1, 4\)"),
        (None, r"logits NoneType, expected a tensor \(1, 4\)"),
        ({"audio": torch.zeros(1, 4), "visual": torch.zeros(1, 4)}, "gave logits NoneType"),
        ({"logits": torch.zeros(1, 4), "sound": 1}, 'gave the key "sound"; known: logits, audio, visual'),
        (
            {"logits": torch.zeros(1, 4), "audio": torch.zeros(1, 4)},
            "gave one of audio and visual, expected both or none",
        ),
        ({"logits": torch.zeros(1, 4), "alpha": torch.zeros(1, 2)}, r"alpha \(1, 2\), expected a tensor \(1, 1 or 4\)"),
        ({"logits": torch.zeros(1, 4), "audio_features": torch.zeros(2, 9)}, r"audio_features \(2, 9\), .* \(1, d\)"),
        (torch.zeros(1, 4, dtype=torch.int64), r"logits \(1, 4\) of torch.int64, expected a tensor \(1, 4\) of floats"),
    ],
)
def test_an_answer_that_is_none_is_told_in_one_line(answer: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(RunConfig("own:odd"), INPUTS, 4, partial(Answering, answer=answer))


def test_a_class_that_fails_is_told_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"Towers can't be made, .*TypeError: .*unexpected keyword"):
        build(RunConfig("own:odd"), INPUTS, 4, partial(Towers, width=3))
    with pytest.raises(
        UsageError, match=r"forward failed on one clip, called with audio \(1, 16, 12\), mask .*TypeError"
    ):
        build(RunConfig("own:odd-ao"), {"audio": INPUTS["audio"]}, 4, lambda i, c: Towers(INPUTS, c))
    with pytest.raises(UsageError, match=r"made dict, expected an nn\.Module"):
        build(RunConfig("own:odd"), INPUTS, 4, lambda inputs, classes: {})  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="FirstStep made a module without a parameter to train"):
        build(RunConfig("own:odd-ao"), {"audio": INPUTS["audio"]}, 12, FirstStep)
    with pytest.raises(UsageError, match="own:odd: a run keeps no code: give the class again"):
        build(RunConfig("own:odd"), INPUTS, 4)


def test_names_say_the_modality_and_odd_ones_are_unknown() -> None:
    assert takes("own:mine") == takes("own:nets:Mine") == ("audio", "visual")
    assert (takes("own:mine-ao"), takes("own:mine-vo")) == (("audio",), ("visual",))
    for name in ("own:", "own:../../x", "own:a b", "mine"):
        with pytest.raises(UnknownName):
            RunConfig(name)


LEARN = {"epochs": 6, "finetune_epochs": 0, "lr": 3e-2, "batch_size": 8}


@pytest.fixture(scope="module")
def lacking(make_features: Make) -> Features:
    """Some clips lack sight, some sound."""
    return make_features(clips=120, drop={"visual": range(0, 120, 7), "audio": range(3, 120, 11)})


@pytest.fixture(scope="module")
def plain(tiny: Tiny, lacking: Features) -> Trained:
    """By the loss of the whole alone."""
    return train(tiny("own:towers", **LEARN, lambda_audio=0.0, lambda_visual=0.0), lacking, builder=Towers)


@pytest.mark.parametrize("name", list(BALANCES))
def test_it_trains_with_every_method_on_clips_that_lack_a_modality(
    tiny: Tiny, lacking: Features, plain: Trained, name: str
) -> None:
    config = tiny("own:towers", balance=name, **LEARN)
    models = {m: train(c, lacking).model for m, c in teachers(config).items()}
    found = train(config, lacking, teachers=models, builder=Towers)
    assert found.best["dev_accuracy"] > 0.6
    pairs = zip(plain.model.parameters(), found.model.parameters(), strict=name != "mmcosine")
    assert any(not torch.equal(a, b) for a, b in pairs), "the method changes the training"


@pytest.mark.parametrize("name", list(BALANCES))
def test_a_method_that_needs_what_it_does_not_give_refuses(tiny: Tiny, name: str) -> None:
    assert fits(name, "own:bare")
    needs = entry(name).needs
    config = tiny("own:bare", balance=name)
    if not needs:
        build_balance(config, build(config, INPUTS, 4, Bare), 4, {})
        return
    message = "head of cosines needs the keys audio_features" if name == "mmcosine" else f"balance {name} needs "
    with pytest.raises(UsageError, match=message) as refusal:
        build_balance(config, build(config, INPUTS, 4, Bare), 4, {})
    assert "\n" not in str(refusal.value)
    for need in needs if name != "mmcosine" else ():
        assert NEEDS[need] in str(refusal.value)


def test_the_document_says_what_each_method_needs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "python.md").read_text("utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `") and "`balance`" not in line]
    said = {name.strip(" `"): needs for names, needs in rows for name in names.split(",")}
    words = {"answers": "`audio`, `visual`", "features": "_features`", "parts": "parameters", "head": "named `head`"}
    assert said.keys() == BALANCES.keys()
    for name, text in said.items():
        if "all four" not in text:
            assert {need for need, word in words.items() if word in text} == {*entry(name).needs}, name


def test_one_modality_has_nothing_to_balance(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="balance ogm does not go with own:mine-ao"):
        tiny("own:mine-ao", balance="ogm")


def test_the_digest_follows_the_source_of_the_class_and_what_it_is_made_with() -> None:
    plain = identity(Towers, INPUTS, 4)
    assert plain == identity(Towers, INPUTS, 4)
    assert plain.split()[0].endswith("test_own.Towers")
    others = [identity(b, INPUTS, 4) for b in (Bare, partial(Towers, gives=()), lambda i, c: Towers(i, c))]
    assert len({plain, *others}) == 4
    namespace: dict[str, Any] = {"nn": nn}
    exec("class Typed(nn.Module):\n    def __init__(self, inputs, classes): super().__init__()", namespace)  # noqa: S102
    assert " " not in identity(namespace["Typed"], INPUTS, 4)


class Wide(nn.Module):
    """Args of init: two numbers that its source does not tell, one in the shape of a tensor, one in no tensor."""

    def __init__(self, inputs: Mapping[str, Input], classes: int, width: int, slope: float):
        super().__init__()
        self.audio, self.visual = (nn.Linear(source.length, width) for source in inputs.values())
        self.slope, self.head = slope, nn.LazyLinear(classes)


def test_the_digest_follows_what_a_function_reads_from_around_it() -> None:
    def one_of(width: int, slope: float) -> Callable[[Mapping[str, Input], int], nn.Module]:
        return lambda inputs, classes: Wide(inputs, classes, width, slope)

    assert identity(one_of(4, 0.1), INPUTS, 4) == identity(one_of(4, 0.1), INPUTS, 4)
    assert len({identity(one_of(w, s), INPUTS, 4) for w, s in ((4, 0.1), (8, 0.1), (4, 0.2))}) == 3


def test_a_function_that_gives_one_module_each_time_is_refused() -> None:
    """The weights that one run has trained would be where the next one begins: its test clips may have trained them."""
    kept = Towers(INPUTS, 4)
    with pytest.raises(UsageError, match="gives one and the same module each time, expected a new one for every run"):
        identity(lambda inputs, classes: kept, INPUTS, 4)


def test_the_digest_does_not_touch_the_random_numbers_of_training(tiny: Tiny, features: Features) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    identity(Towers, INPUTS, 4)
    build(RunConfig("own:towers"), INPUTS, 4, lambda i, c: Towers(i, c)).gives()
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before)
