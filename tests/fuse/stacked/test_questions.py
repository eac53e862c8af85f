"""What runs of a stack ask at the same time is answered in one go, and as each run alone would answer it."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bmla.fuse.condition import Condition
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.lockstep import alone as driven_alone
from bmla.fuse.models.base import FusionModel
from bmla.fuse.models.reliability import Reliability
from bmla.fuse.models.single import SingleModality
from bmla.fuse.models.table import takes
from bmla.fuse.models.transformer import ConcatTransformer
from bmla.fuse.noise import with_noisy_copies
from bmla.fuse.obtain import test as judged_under
from bmla.fuse.planner import Speed
from bmla.fuse.predictions import Ask, Predictions
from bmla.fuse.run import Run
from bmla.fuse.stacked import questions, stack
from bmla.fuse.stacked.questions import answers, the_same
from bmla.fuse.stacked.stack import Member, Stack, run_stacked
from bmla.fuse.sweep import grid, run_sweep
from bmla.fuse.training import Trained, train, training
from bmla.store.errors import UsageError

Make = Callable[..., Features]
Tiny = Callable[..., RunConfig]
Settings = Callable[..., list[RunConfig]]
Close = Callable[[Trained, Trained], None]
Begin = Callable[..., Stack]
BOTH = ("audio", "visual")
NOISE = "audio.arrays@a"
SMALL = dict(layers=1, width=16, heads=2, epochs=2, finetune_epochs=1, lr=1e-3, finetune_lr=3e-4, batch_size=32)
STREAMS = dict(audio="audio.arrays", visual="visual.arrays")


@pytest.fixture(scope="module")
def ragged(make_features: Make) -> Features:
    """Clips of many lengths; some lack a modality."""
    return make_features(clips=120, drop={"audio": (3, 17, 40, 90), "visual": (5, 60)}, noises={NOISE: 1.0})


@pytest.fixture
def begin() -> Iterator[Begin]:
    """A stack of runs that have just begun; their trainings are ended afterwards."""
    members: list[Member[Any, Any]] = []

    def make(configs: Sequence[RunConfig], features: Features, device: str = "cpu") -> Stack:
        mine = [Member(c, training(c, features, device=device), torch.device(device)) for c in configs]
        members.extend(mine)
        return Stack(mine, whole=True)

    yield make
    for member in members:
        member.training.close()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of clips of every pass that answers a question."""
    seen: list[int] = []
    for kind in (ConcatTransformer, SingleModality):

        def counted(self: Any, audio: Any, visual: Any, plain: Any = kind.forward) -> Any:
            if torch.is_inference_mode_enabled():
                seen.append(len((audio or visual).mask))
            return plain(self, audio, visual)

        monkeypatch.setattr(kind, "forward", counted)
    return seen


def assert_same(found: Predictions, expected: Predictions, atol: float = 1e-5) -> None:
    for field in fields(Predictions):
        mine, other = getattr(found, field.name), getattr(expected, field.name)
        assert (mine is None) == (other is None), field.name
        if mine is None or mine.dtype == object or mine.dtype.kind in "bi":
            assert np.array_equal(mine, other), field.name
        else:
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, atol=atol, err_msg=field.name)


def fitted(models: Sequence[FusionModel]) -> None:
    """Gives what is fitted after training numbers of each model's own, as `fit_decision` does: in other memory."""
    for number, model in enumerate(models):
        if isinstance(decision := getattr(model, "decision", None), Reliability):
            drawn = torch.Generator().manual_seed(number)
            decision.double()
            for value in decision.state_dict().values():
                value.copy_(torch.rand(value.shape, generator=drawn) + 0.5)
            decision.float()


def stacked(configs: Sequence[RunConfig], features: Features) -> list[Any]:
    starts = [(c, partial(training, c, features.folded(c.folds, c.fold, c.fold_by))) for c in configs]
    found = dict(run_stacked(starts, 8, whole=True))
    return [found[c] for c in configs]


@pytest.mark.parametrize(
    "model", ["transformer", "transformer-vo", "balancemla", "joint", "joint-aux", "shared-head", "gated", "film"]
)
def test_answers_in_one_go_are_those_of_each_run(
    settings: Settings, ragged: Features, begin: Begin, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(questions, "AT_ONCE", 24)  # several passes
    runs = begin([replace(c, folds=0, fold=0) for c in settings(model)], ragged)
    fitted(runs.models)
    modalities = takes(model)
    clips = ragged.clips("train", modalities)
    copies, versions = with_noisy_copies(clips, ragged, (NOISE,))
    plain = [Ask(m, ragged, clips, modalities) for m in runs.models]
    ways: list[dict[str, Any]] = [{}, {"clips": copies, "versions": versions, "augment": (NOISE,)}]
    ways += [{"clips": clips[:1]}, {"features": ragged.under((NOISE,))}]
    ways += [{way: (m,)} for way in ("hidden", "mean") for m in modalities] if len(modalities) == 2 else []
    ways += [{"options": {"brff": False}}] if model == "balancemla" else []
    for way in ways:
        asks = [replace(ask, **way) for ask in plain]
        assert the_same(asks)
        for found, ask in zip(answers(runs.model, runs.layout, asks), asks, strict=True):
            assert_same(found, ask.alone())
    assert runs.model.training


@pytest.mark.parametrize("wishes", [{"gate_input": "brff"}, {"gate_input": "encoder", "adf": False}, {"clw": False}])
def test_so_are_those_of_the_forms_of_balancemla(
    settings: Settings, ragged: Features, begin: Begin, wishes: dict[str, Any]
) -> None:
    runs = begin([replace(c, folds=0, fold=0) for c in settings("balancemla", **wishes)], ragged)
    fitted(runs.models)
    asks = [Ask(m, ragged, ragged.clips("dev", BOTH), BOTH) for m in runs.models]
    for found, ask in zip(answers(runs.model, runs.layout, asks), asks, strict=True):
        assert_same(found, ask.alone())


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["transformer", "balancemla"])
def test_so_they_are_on_a_gpu(
    settings: Settings, ragged: Features, on_gpu: Callable[[Features], Features], begin: Begin, model: str
) -> None:
    there = on_gpu(ragged)
    runs = begin([replace(c, folds=0, fold=0) for c in settings(model)], there, "cuda")
    fitted(runs.models)
    for way in ({}, {"hidden": ("audio",)}, {"mean": ("visual",)}):
        asks = [Ask(m, there, there.clips("train", BOTH), BOTH, **way) for m in runs.models]  # type: ignore[arg-type]
        for found, ask in zip(answers(runs.model, runs.layout, asks), asks, strict=True):
            assert_same(found, ask.alone(), atol=1e-3)


def test_what_is_asked_differently_is_told_apart(settings: Settings, ragged: Features, begin: Begin) -> None:
    first, second, _ = begin([replace(c, folds=0, fold=0) for c in settings("transformer")], ragged).models
    clips, versions = with_noisy_copies(ragged.clips("dev", BOTH), ragged, (NOISE,))
    ask = Ask(first, ragged, clips, BOTH, versions, (NOISE,), mean=("audio",))
    again = replace(ask, model=second, clips=clips.copy(), versions={m: v.clone() for m, v in versions.items()})
    assert the_same([ask, replace(again, features=ragged.folded(3, 1, "group"))])  # other splits of the same streams
    others: list[dict[str, Any]] = [
        {"clips": clips[::-1].copy()},
        {"clips": clips[1:]},
        {"versions": {m: 1 - v for m, v in versions.items()}},
        {"versions": {}},
        {"hidden": ("visual",)},
        {"mean": ()},
        {"options": {"brff": False}},
        {"features": replace(ragged, visual=replace(ragged.stream("visual")))},
    ]
    for other in others:
        assert not the_same([ask, replace(again, **other)]), other
    second.set_statistics("audio", *(part + 1 for part in ragged.stream("audio").statistics(clips[:9])))
    assert not the_same([ask, again])
    assert the_same([replace(ask, mean=()), replace(again, mean=())])


def test_all_runs_are_judged_by_one_pass(settings: Settings, ragged: Features, passes: list[int]) -> None:
    configs = [replace(c, folds=0, fold=0, epochs=2, dropout=0.0) for c in settings("transformer")]
    train(configs[0], ragged)
    alone = passes.copy()
    passes.clear()
    stacked(configs, ragged)
    assert passes == [3 * clips for clips in alone]
    assert len(alone) == 2 * 3  # of each epoch: dev, and a few of its clips without either modality


def test_runs_that_ask_different_things_are_answered_one_by_one(
    settings: Settings, assert_close: Close, ragged: Features, passes: list[int]
) -> None:
    configs = [replace(c, folds=3, fold=fold, dropout=0.0) for fold, c in enumerate(settings("transformer"))]
    solos = [train(c, ragged.folded(c.folds, c.fold, c.fold_by)) for c in configs]
    alone = sorted(passes)
    passes.clear()
    found = stacked(configs, ragged)
    assert sorted(passes) == alone
    for solo, other in zip(solos, found, strict=True):
        assert_close(solo, other)
        assert_judged_alike(solo, other)


def test_where_memory_has_no_room_for_all_answers_each_run_is_answered_alone(
    settings: Settings, ragged: Features, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def full(model: FusionModel, layout: Any, asks: Sequence[Ask]) -> list[Predictions]:
        tried.append(len(asks))
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(stack, "answers", full)
    configs = [replace(c, dropout=0.0, folds=0, fold=0) for c in settings("transformer")]
    solos = [train(c, ragged) for c in configs]
    alone = sorted(passes)
    passes.clear()
    for solo, other in zip(solos, stacked(configs, ragged), strict=True):
        assert_judged_alike(solo, other)
    assert 3 in tried
    assert sorted(passes) == alone


def test_a_condition_that_leaves_no_clip_is_refused_by_name(tiny: Tiny, ragged: Features) -> None:
    config = tiny("transformer", epochs=1, finetune_epochs=0)
    deaf, blind = np.array([3, 17]), Condition(hidden=("visual",))
    with pytest.raises(UsageError, match=r"under no-visual no test clip has audio left"):
        driven_alone(judged_under(train(config, ragged).model, config, ragged, deaf, blind))


def test_a_run_that_stops_early_asks_what_is_left_while_others_go_on(tmp_path: Path, ragged: Features) -> None:
    first, *others = (
        replace(c, dropout=0.0, epochs=6) for c in grid(["transformer"], ["1:1", "1:3"], [0, 1], **SMALL, **STREAMS)
    )
    configs = [replace(first, patience=1, lr=0.1), *others]
    alone, together = both_ways(configs, ragged, tmp_path)
    assert len(together[0].history) < len(together[1].history)
    for one, other in zip(alone[1:], together[1:], strict=True):  # not of the first, at its learning rate
        assert_scores_alike(one, other)
    for run in together:
        assert_same(run.predictions, run.predict(ragged))


@pytest.mark.parametrize("model", ["transformer", "balancemla", "joint-aux"])
def test_a_sweep_that_is_judged_together_leaves_what_run_by_run_leaves(
    tmp_path: Path, ragged: Features, model: str
) -> None:
    ratios = ["1:1"] if model == "joint-aux" else ["1:1", "3:1"]
    configs = [replace(c, dropout=0.0) for c in grid([model], ratios, [0, 1], **SMALL, **STREAMS)]
    alone, together = both_ways(configs, ragged, tmp_path)
    for one, other in zip(alone, together, strict=True):
        if model != "balancemla":  # whose decision is fitted by a line search, which ends where rounding lets it
            assert_scores_alike(one, other)
        assert_same(other.predictions, other.predict(ragged))
        assert other.scores["test"]["accuracy"] == (other.predictions.predicted == other.predictions.labels).mean()


def both_ways(configs: Sequence[RunConfig], features: Features, folder: Path) -> tuple[list[Run], list[Run]]:
    """The runs of a sweep one by one, and in a stack that does at once what it can."""
    alone = run_sweep(configs, features, folder / "alone", workers=1)
    asked: list[int] = []

    def counted(model: Any, layout: Any, asks: Sequence[Ask]) -> list[Predictions]:
        asked.append(len(asks))
        return answers(model, layout, asks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "in_one_go_on", lambda device: True)
        patch.setattr(stack, "answers", counted)
        together = run_sweep(configs, features, folder / "together", executor="stacked")
    assert len(configs) in asked
    return alone, together


def assert_judged_alike(one: Trained, other: Trained) -> None:
    for mine, yours in zip(one.history, other.history, strict=True):
        names = [name for name, value in mine.items() if isinstance(value, float)]
        assert {n: mine[n] for n in names} == pytest.approx({n: yours[n] for n in names}, rel=1e-3, abs=1e-5)


def assert_scores_alike(one: Run, other: Run) -> None:
    mine, yours = (json.loads((run.path / "test.json").read_text()) for run in (one, other))
    for part in ("best", "dev", "test"):
        assert mine[part].keys() == yours[part].keys()
        for name, value in mine[part].items():
            if isinstance(value, float):
                assert yours[part][name] == pytest.approx(value, rel=1e-2, abs=1e-4), (part, name)
            elif not isinstance(value, list):
                assert yours[part][name] == value, (part, name)
    np.testing.assert_allclose(other.predictions.result, one.predictions.result, atol=1e-3)


def test_a_plan_knows_that_a_stack_is_judged_together() -> None:
    speed = Speed("transformer", 8, 100, 10, 1.0, 0.25, 8)
    assert speed.seconds("stacked", 1) == 100 * 0.25 + 10 * 1.0
    assert replace(speed, together=True).seconds("stacked", 1) == 110 * 0.25
    assert replace(speed, together=True).seconds("processes", 1) == 110


def test_a_stack_answers_alone_where_it_does_nothing_in_one_go(tiny: Tiny, ragged: Features, passes: list[int]) -> None:
    configs = [tiny("transformer", epochs=1, finetune_epochs=0, seed=seed) for seed in (0, 1)]
    starts = [(c, partial(training, c, ragged)) for c in configs]
    assert all(isinstance(outcome, Trained) for _, outcome in run_stacked(starts, 2, "cpu"))
    assert sorted(passes) == [1, 1, 1, 1, 18, 18]
