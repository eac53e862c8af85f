import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bmla.fuse.tasks.train as module
from bmla.fuse.balance.base import Balance, Step
from bmla.fuse.balance.table import BALANCES
from bmla.fuse.checks import fitting
from bmla.fuse.config import RunConfig
from bmla.fuse.data import Features
from bmla.fuse.decision_fit import fit_decision
from bmla.fuse.epochs import by_turns, spread
from bmla.fuse.learner import Learner, clips_of, set_apart
from bmla.fuse.models.balancemla import BalanceMLA
from bmla.fuse.models.single import SingleModality
from bmla.fuse.predictions import predict
from bmla.fuse.standing import Diverged
from bmla.fuse.tasks.part import Part, check_parts
from bmla.fuse.tasks.share import share
from bmla.fuse.tasks.train import train_together
from bmla.fuse.training import Trained, train
from bmla.fuse.unfinished import Unfinished
from bmla.store.errors import UsageError

Parts = Callable[..., list[Part]]
BOTH = ("audio", "visual")
NOISES = ("audio.arrays@a", "visual.arrays@c")


def state(trained: Sequence[Trained]) -> dict[str, torch.Tensor]:
    return dict(nn.ModuleList([t.model for t in trained]).state_dict())


def assert_same(a: Sequence[Trained], b: Sequence[Trained]) -> None:
    assert [t.history for t in a] == [t.history for t in b]
    assert [t.best for t in a] == [t.best for t in b]
    for (name, x), y in zip(state(a).items(), state(b).values(), strict=True):
        assert torch.equal(x, y), name


def test_how_much_noise_a_task_has_is_its_own(parts: Parts) -> None:
    """As that it has some: a task without has no share of it."""
    noisy, plain = parts(augment=NOISES)[0], parts()[1]
    assert noisy.config.noise_share != plain.config.noise_share
    check_parts([noisy, plain])


@pytest.mark.parametrize("wishes", [
    {"balance": "none", "warmup_steps": 5, "patience": 2, "modality_dropout": 0.2, "class_weights": True},
    {"balance": "ogm-ge", "augment": NOISES, "lr_scale_visual": 0.5},
    {"balance": "pmr", "gate_input": "brff", "label_smoothing": 0.1},
    {"balance": "g-blending", "ratio": "1:3"},
], ids=lambda wishes: wishes["balance"])  # fmt: skip
def test_one_task_is_trained_as_a_plain_run_bit_for_bit(
    make_features: Callable[..., Features], tiny: Callable[..., RunConfig], wishes: dict[str, Any]
) -> None:
    features = make_features(clips=60, noises=dict.fromkeys(NOISES, 1.0), drop={"audio": (3,)})
    config = tiny(
        "balancemla", schedule="long", pretrain_epochs=0, brff_layers=1, epochs=2, finetune_epochs=1, **wishes
    )
    plain = train(config, features)
    (together,) = train_together([Part("words", config, features)])
    assert plain.history == together.history
    assert plain.best == together.best
    for (name, a), b in zip(plain.model.state_dict().items(), together.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_step_moves_what_is_shared_and_its_own_tasks_parts_only(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[nn.Module] = []
    seen: list[tuple[int, set[str]]] = []
    before: dict[str, torch.Tensor] = {}

    def watch(given: Sequence[Any], streams: Any) -> None:
        share(given, streams)
        models.extend(given)

    def now() -> dict[str, torch.Tensor]:
        return {f"{k}.{n}": p.detach().clone() for k, m in enumerate(models) for n, p in m.named_parameters()}

    def inputs(self: Balance, audio: Any, visual: Any) -> Any:
        before.update(now())
        return audio, visual

    def updated(self: Balance, step: Step) -> None:
        moved = {name for name, value in now().items() if not torch.equal(value, before[name])}
        seen.append((models.index(step.model), moved))

    monkeypatch.setattr(module, "share", watch)
    monkeypatch.setattr(Balance, "inputs", inputs)
    monkeypatch.setattr(Balance, "updated", updated)
    given = parts(epochs=2, finetune_epochs=0, gate_input="brff", batch_size=16)
    train_together(given)

    batches = [-(-int((part.features.split == "train").sum()) // 16) for part in given]
    assert [k for k, _ in seen] == 2 * spread(batches)
    own = {
        f"{k}.{name}"
        for k, model in enumerate(models)
        for name, p in model.named_parameters()
        if all(p is not q for q in models[1 - k].parameters())
    }
    assert {"0.audio.head.weight", "1.audio.head.weight", "0.decision.weight", "1.decision.bias"} <= own
    for k, moved in seen:
        assert not {name for name in moved & own if not name.startswith(f"{k}.")}
        assert {f"{k}.audio.head.weight", f"{k}.visual.head.weight", f"{k}.decision.weight"} <= moved
        for name in ("audio_brff.blocks.0.attention.out.weight", "visual.encoder.layers.0.widen.weight"):
            assert {f"0.{name}", f"1.{name}"} <= moved


def test_batches_of_tasks_are_spread_evenly_over_an_epoch() -> None:
    assert spread([3]) == [0, 0, 0]
    assert spread([2, 2]) == [0, 1, 0, 1]
    assert spread([3, 1]) == [0, 0, 1, 0]
    assert spread([1, 4, 2]) == [1, 2, 1, 0, 1, 2, 1]
    rng = np.random.default_rng(0)
    for _ in range(50):
        counts = rng.integers(1, 40, rng.integers(1, 5))
        turns = np.array(spread(counts.tolist()))
        for task, count in enumerate(counts):
            done = np.cumsum(turns == task)
            assert done[-1] == count
            due = np.arange(1, len(turns) + 1) * count / counts.sum()
            assert np.abs(done - due).max() < 0.5 + len(counts) / 2


def test_every_batch_of_every_task_is_taken_in_its_order() -> None:
    assert list(by_turns([iter("abc"), iter("x")], spread([3, 1]))) == [(0, "a"), (0, "b"), (1, "x"), (0, "c")]  # type: ignore[list-item]


def test_the_epoch_is_the_best_by_the_mean_of_the_tasks(parts: Parts) -> None:
    given = parts(epochs=4, lr=2e-2)
    told: list[dict[str, Any]] = []
    trained = train_together(given, on_epoch=told.append)
    means = [np.mean([t.history[i]["dev_accuracy"] for t in trained]) for i in range(len(told))]
    losses = [np.mean([t.history[i]["dev_loss"] for t in trained]) for i in range(len(told))]
    best = max(range(len(told)), key=lambda i: (means[i], -losses[i]))
    assert [epoch["dev_accuracy"] for epoch in told] == pytest.approx(means)
    assert [epoch["tasks_dev_accuracy"] for epoch in trained[0].history] == pytest.approx(means)
    train_losses = [np.mean([t.history[i]["train_loss"] for t in trained]) for i in range(len(told))]
    assert [epoch["train_loss"] for epoch in told] == pytest.approx(train_losses)
    for k, (part, task) in enumerate(zip(given, trained, strict=True)):
        assert task.best["epoch"] == best + 1
        assert task.best is task.history[best]
        assert told[best]["tasks"][part.name] is trained[k].best


@pytest.mark.parametrize("gate", ["brff", "reliability"])
def test_the_weights_of_the_best_epoch_answer_for_both_tasks(parts: Parts, gate: str) -> None:
    given = parts(epochs=3, finetune_epochs=0, lr=2e-2, gate_input=gate)
    for part, task in zip(given, train_together(given), strict=True):
        got = predict(task.model, part.features, part.features.clips("dev", BOTH), BOTH)
        assert got.result.shape[1] == len(part.features.classes)
        heads = [("dev_accuracy_audio", got.audio)]
        heads += [("dev_accuracy", got.result)] if gate == "brff" else []  # else fitted after the epoch was chosen
        for name, answers in heads:
            assert answers is not None
            there = got.audio_present | (name == "dev_accuracy")
            right = (answers.argmax(1) == got.labels)[there]
            assert right.mean() == pytest.approx(task.best[name])


def test_each_task_has_decision_weights_fitted_on_its_own_dev_clips(parts: Parts) -> None:
    given = parts()
    trained = train_together(given)
    for part, task in zip(given, trained, strict=True):
        model = task.model
        assert isinstance(model, BalanceMLA)
        again = copy.deepcopy(model)
        for parameter in again.decision.parameters():
            parameter.zero_()
        fit_decision(again, part.features, part.features.clips("dev", BOTH), ())
        assert float(model.decision.weight.abs().sum()) > 0  # type: ignore[union-attr]
        for a, b in zip(model.decision.parameters(), again.decision.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_statistics_are_each_tasks_own(parts: Parts) -> None:
    given = parts(epochs=1, finetune_epochs=0)
    for part, task in zip(given, train_together(given), strict=True):
        audio = part.features.stream("audio")
        steps = torch.cat([
            audio.values[int(audio.starts[i]) : int(audio.starts[i] + audio.lengths[i])]
            for i in np.flatnonzero(part.features.split == "train")
        ])  # fmt: skip
        mean = task.model.state_dict()["audio.project.standardise.mean"]
        torch.testing.assert_close(mean, steps.mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("balance", [n for n in BALANCES if "balancemla" in fitting(n) and not BALANCES[n].teachers])
def test_balance_methods_work_on_each_task_with_a_state_of_its_own(parts: Parts, balance: str) -> None:
    given = parts(epochs=1, finetune_epochs=0, balance=balance)
    for task in train_together(given):
        assert all(np.isfinite(task.best[name]) for name in ("train_loss", "dev_loss", "grad_norm_shared"))


def test_balance_methods_do_not_mix_the_clips_of_tasks(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    owners: dict[int, set[int]] = {}
    real = Balance.updated

    def updated(self: Balance, step: Step) -> None:
        owners.setdefault(id(self), set()).add(step.output.result.shape[1])
        real(self, step)

    monkeypatch.setattr(Balance, "updated", updated)
    train_together(parts(epochs=1, finetune_epochs=0))
    assert sorted(map(tuple, owners.values())) == [(3,), (4,)]


class Killed(BaseException):
    """As a signal would be: nothing catches it."""


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_killed_training_goes_on_to_the_same_weights(parts: Parts, tmp_path: Path, epochs: int) -> None:
    given = parts(warmup_steps=7, modality_dropout=0.3, balance="pmr", gate_input="brff")
    whole = train_together(given)
    unfinished = Unfinished(tmp_path / "run", every_s=0)

    def kill(epoch: dict[str, Any]) -> None:
        if epoch["epoch"] == epochs:
            raise Killed

    with pytest.raises(Killed):
        train_together(given, unfinished=unfinished, on_epoch=kill)
    torch.manual_seed(99)  # another process begins with other random numbers
    told: list[int] = []
    again = train_together(given, unfinished=unfinished, on_epoch=lambda e: told.append(e["epoch"]))
    assert told == list(range(epochs + 1, 4))
    assert_same(whole, again)


def test_when_a_loss_is_no_number_the_tasks_are_named_and_the_best_weights_before_it_are_kept(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parts(epochs=4, finetune_epochs=0)
    good = train_together([replace(part, config=replace(part.config, epochs=1)) for part in given])
    real, calls = Balance.objective, [0]
    batches = [-(-int((part.features.split == "train").sum()) // 32) for part in given]

    def objective(self: Balance, step: Step) -> torch.Tensor:
        calls[0] += 1
        late = calls[0] > sum(batches) and step.output.result.shape[1] == 3
        return real(self, step) * (float("nan") if late else 1.0)

    monkeypatch.setattr(Balance, "objective", objective)
    unfinished = Unfinished(tmp_path / "run")
    with pytest.raises(
        Diverged, match=r"^words \+ letters: balancemla, seed 0: .* in epoch 2 .* of epoch 1 are kept in .*run$"
    ):
        train_together(given, unfinished=unfinished)
    kept = unfinished.read()
    assert kept is not None
    for name, value in state(good).items():
        if name.split(".")[1] != "decision":  # fitted when training is over
            assert torch.equal(kept[0][f"best/{name}"], value), name


def of_one_data_set(part: Part, groups: Sequence[str]) -> Part:
    """Training clips are of these recordings, in turn, and every other clip of one of its own."""
    f = part.features
    named = [groups[i % len(groups)] if s == "train" else f"{part.name}{i}" for i, s in enumerate(f.split)]
    return replace(part, features=replace(f, dataset="both", groups=np.array(named, object)))


def test_recordings_that_are_set_apart_for_one_task_train_no_other_of_the_same_data_set(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, letters = parts(balance="adaptive", holdout=0.2)
    given = [of_one_data_set(words, "abcdefghij"), of_one_data_set(letters, "abcdefg")]
    seen: list[list[Learner]] = []
    real = module.run_epochs

    def run_epochs(learners: list[Learner], *rest: Any) -> Any:
        seen.append(learners)
        return real(learners, *rest)

    monkeypatch.setattr(module, "run_epochs", run_epochs)
    train_together(given)
    groups = {
        name: [
            set(part.features.groups[getattr(learner.clips, name)])
            for part, learner in zip(given, seen[0], strict=True)
        ]
        for name in ("train", "held")
    }
    alone = [set_apart(clips_of(p.features, "train", p.config), p.features, p.config)[1] for p in given]
    first, second = (set(part.features.groups[held]) for part, held in zip(given, alone, strict=True))
    assert first != second  # each by itself would set other recordings apart
    assert set.union(*groups["held"]) == first | second
    assert not set.union(*groups["train"]) & set.union(*groups["held"])
    for learner, part in zip(seen[0], given, strict=True):
        both = np.sort([*learner.clips.train, *learner.clips.held])
        assert both.tolist() == np.flatnonzero(part.features.split == "train").tolist()
    with pytest.raises(UsageError, match="task letters: all of its training clips are of recordings that the holdout"):
        train_together([given[0], of_one_data_set(letters, sorted(first))])


def test_a_training_starts_from_branches_that_were_trained_together(parts: Parts) -> None:
    heads = {}
    for modality, name in (("audio", "balancemla-ao"), ("visual", "balancemla-vo")):
        heads[modality] = [task.model for task in train_together(parts(name, epochs=1))]
    branches = [{m: models[k] for m, models in heads.items()} for k in range(2)]
    assert all(isinstance(model, SingleModality) for own in branches for model in own.values())
    given = parts(epochs=1, finetune_epochs=0, lr=1e-12, brff=False, adf=False, clw=False)
    for k, (part, task) in enumerate(zip(given, train_together(given, branches=branches), strict=True)):  # type: ignore[arg-type]
        clips = part.features.clips("test", BOTH)
        got = predict(task.model, part.features, clips, BOTH)
        alone = predict(heads["audio"][k], part.features, clips, ("audio",))
        np.testing.assert_allclose(got.audio, alone.result, atol=1e-5)


def test_what_cannot_be_tasks_of_one_model_is_one_clear_line(parts: Parts, tiny: Callable[..., RunConfig]) -> None:
    words, letters = parts()
    wrong = {
        'two tasks are called "words"': [words, replace(letters, name="words")],
        "task letters: lr is 0.1, but 0.005 for task words: one model has one": [
            words,
            replace(letters, config=replace(letters.config, lr=0.1)),
        ],
        "joint is a model of one task; of several: balancemla-ao": [replace(words, config=tiny("joint"))],
        "a training of no tasks": [],
        r"\d+ recordings, such as \d+, train task words and choose or test task letters: expected stores with": [
            words,
            replace(letters, features=replace(letters.features, dataset="words")),
        ],
        "the model takes visual features, but no visual stream was loaded": [
            words,
            replace(letters, features=replace(letters.features, visual=None)),
        ],
    }
    for message, given in wrong.items():
        with pytest.raises(UsageError, match=message) as error:
            train_together(given)
        assert "\n" not in str(error.value)
