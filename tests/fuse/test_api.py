"""`from bmla.fuse import train, evaluate, load_run`: arrays of one's own, a model of one's own, and one clear line."""

import gc
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from bmla.cli import main
from bmla.commands.fuse import fuse
from bmla.fuse import evaluate, load_run, train
from bmla.fuse.arrays import features_from_arrays
from bmla.fuse.given import class_numbers, clips_of
from bmla.fuse.models.base import Input
from bmla.fuse.predictions import Predictions
from bmla.fuse.standing import Diverged
from bmla.store.errors import UsageError

N, SMALL = 90, dict(layers=1, width=16, heads=2, epochs=3, lr=1e-2, finetune_epochs=1, batch_size=16)
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % 3
LENGTHS = {"audio": RNG.integers(8, 16, N), "visual": RNG.integers(4, 8, N)}
PADDED = {
    m: (RNG.normal(size=(N, t, width)) + LABELS[:, None, None]).astype(np.float32)
    for m, t, width in (("audio", 15, 12), ("visual", 7, 8))
}
SPLIT = np.array(["train"] * 60 + ["dev"] * 15 + ["test"] * 15)


class Mine(nn.Module):
    def __init__(self, inputs: Mapping[str, Input], classes: int):
        super().__init__()
        self.audio, self.visual = (nn.Linear(inputs[m].length, classes) for m in ("audio", "visual"))

    def forward(self, audio: Tensor, audio_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        pairs = ((self.audio, audio, audio_mask), (self.visual, visual, visual_mask))
        parts = [(part(x) * m[..., None]).sum(1) / m.sum(1, keepdim=True).clamp(min=1) for part, x, m in pairs]
        return parts[0] + parts[1]


class Sound(nn.Module):
    def __init__(self, inputs: Mapping[str, Input], classes: int):
        super().__init__()
        self.linear = nn.Linear(inputs["audio"].length, classes)

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        return (self.linear(steps) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def padded(**change: Any) -> dict[str, Any]:
    both = {**PADDED, **{f"{m}_lengths": v for m, v in LENGTHS.items()}}
    return {**both, "model": "joint", **SMALL, **change}


def same(a: Predictions, b: Predictions) -> bool:
    return list(a.ids) == list(b.ids) and np.array_equal(a.result, b.result)


def test_padded_arrays_lists_masks_and_tensors_are_the_same_features() -> None:
    lists = {m: [a[:t] for a, t in zip(PADDED[m], LENGTHS[m], strict=True)] for m in PADDED}
    masks = {f"{m}_mask": np.arange(PADDED[m].shape[1]) < LENGTHS[m][:, None] for m in PADDED}
    poisoned = {m: np.where(masks[f"{m}_mask"][..., None], PADDED[m], np.nan) for m in PADDED}
    runs = [
        train(LABELS, SPLIT, **padded()),
        train(LABELS.tolist(), list(SPLIT), **{**lists, "model": "joint", **SMALL}),
        train(torch.from_numpy(LABELS), SPLIT, **{**poisoned, **masks, "model": "joint", **SMALL}),
        train(LABELS, SPLIT, **padded(**{m: torch.from_numpy(a).double() for m, a in PADDED.items()})),
    ]
    assert all(same(runs[0].predictions, run.predictions) for run in runs[1:])
    assert runs[0].scores["test"]["accuracy"] > 0.8


def test_clips_are_cut_behind_their_last_valid_step() -> None:
    values = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    arrays, valid = clips_of("audio", values, mask, None)
    assert [None if a is None else a.tolist() for a in arrays] == [values[0, :3].tolist(), None, values[2].tolist()]
    assert [None if v is None else v.tolist() for v in valid] == [[True, False, True], None, [True] * 4]
    assert clips_of("audio", [None, values[0]], None, [0, 2])[0][0] is None
    assert clips_of("audio", torch.ones(1, 2, 3, dtype=torch.bfloat16), None, None)[0][0].dtype == np.float32


def test_names_of_classes_are_theirs_in_order() -> None:
    numbers, names = class_numbers(["b", None, "a", "b"], None)
    assert (numbers.tolist(), names) == ([1, -1, 0, 1], ("a", "b"))
    assert class_numbers(np.array(["b", "a"]), ("b", "a"))[0].tolist() == [0, 1]
    numbers, names = class_numbers([2, None, 0], None)
    assert (numbers.tolist(), names) == ([2, -1, 0], None)


def test_a_run_without_a_folder_is_gone_with_the_object() -> None:
    run = train(LABELS, SPLIT, **padded())
    folder = run.path
    assert run.history
    assert run.model() is not None
    del run
    gc.collect()
    assert not folder.parent.exists()


def test_a_run_in_a_folder_is_found_again(tmp_path: Path) -> None:
    told: list[int] = []
    first = train(LABELS, SPLIT, **padded(out=tmp_path, on_epoch=lambda epoch: told.append(epoch["epoch"])))
    again = train(LABELS, SPLIT, **padded(out=tmp_path, on_epoch=lambda epoch: told.append(0)))
    assert told == [1, 2, 3, 4]
    assert first.path == again.path
    assert same(load_run(first.path).predictions, again.predictions)
    assert train(LABELS, SPLIT, **padded(out=tmp_path, seed=1)).path != first.path


def test_splits_are_dealt_where_none_are_given_and_groups_stay_together() -> None:
    groups = [f"g{i // 3}" for i in range(N)]
    run = train(LABELS, **padded(groups=groups))
    assert run.scores["test"]["clips"] == N // 5
    tested = {groups[int(i)] for i in run.predictions.ids}
    assert len(tested) == N // 15


def test_folds_keep_speakers_together() -> None:
    speakers = np.array([f"s{i % 6}" for i in range(N)])
    run = train(LABELS, SPLIT, **padded(speakers=speakers, folds=3, fold=1, fold_by="speaker", epochs=1))
    assert len(set(speakers[run.predictions.ids.astype(int)])) == 2


def test_evaluate_answers_about_any_clips_as_the_run_did() -> None:
    noisy = PADDED["audio"] + 2
    run = train(
        LABELS,
        SPLIT,
        **padded(
            variants={"audio.arrays@shift=2": noisy},
            conditions=["audio.arrays@shift=2", "no-visual"],
            model="balancemla",
        ),
    )
    assert run.conditions == ("clean", "audio.arrays@shift=2", "no-visual")
    test = SPLIT == "test"
    parts = {m: PADDED[m][test] for m in PADDED} | {f"{m}_lengths": LENGTHS[m][test] for m in LENGTHS}
    ids = np.flatnonzero(test).astype(str)
    clean = evaluate(run, LABELS[test], ids=ids, **parts)
    assert clean.scores is not None
    for key in ("accuracy", "macro_f1", "alpha", "audio_alone_accuracy"):
        assert clean.scores[key] == pytest.approx(run.scores["test"][key])
    np.testing.assert_allclose(clean.predictions.result, run.predictions.result, atol=1e-5)
    shifted = evaluate(run, LABELS[test], ids=ids, **{**parts, "audio": noisy[test]}).predictions
    np.testing.assert_allclose(shifted.result, run.predictions_under("audio.arrays@shift=2").result, atol=1e-5)
    blind = evaluate(run, LABELS[test], ids=ids, **parts, drop="visual").predictions
    np.testing.assert_allclose(blind.result, run.predictions_under("no-visual").result, atol=1e-5)
    sound = evaluate(run, audio=PADDED["audio"][test], audio_lengths=LENGTHS["audio"][test], ids=ids)
    assert sound.scores is None
    np.testing.assert_allclose(sound.predictions.result, blind.result, atol=1e-5)
    none = evaluate(run, **{**parts, "visual_lengths": np.zeros(15, int)}, ids=ids)
    np.testing.assert_allclose(none.predictions.result, blind.result, atol=1e-5)
    np.testing.assert_allclose(evaluate(run.model(), **parts).predictions.result, clean.predictions.result, atol=1e-6)


def test_pictures_of_ones_own_train_a_model_of_vectors_through_a_front_end() -> None:
    pictures = [(PADDED["visual"][i, :n].repeat(8, 1).reshape(n, 8, 8) * 20 + 100).clip(0, 255).astype(np.uint8)
                for i, n in enumerate(LENGTHS["visual"])]  # fmt: skip
    small = {**SMALL, "front_width": 2, "resnet_depth": 18, "epochs": 1}
    sound = {"audio": PADDED["audio"], "audio_lengths": LENGTHS["audio"]}
    run = train(LABELS, SPLIT, model="balancemla", **sound, visual=pictures, conditions=["no-visual"], **small)
    config = run.config
    assert (config.mixup, config.flip, config.time_mask, config.crop) == (0.4, 0.5, 0.4, 0.9)
    assert train(LABELS, SPLIT, model="balancemla-vo", visual=pictures, mixup=0.0, **small).config.mixup == 0
    test = SPLIT == "test"
    ids = np.flatnonzero(test).astype(str)
    shown = [pictures[i] for i in np.flatnonzero(test)]
    parts = {"audio": sound["audio"][test], "audio_lengths": sound["audio_lengths"][test], "visual": shown}
    again = evaluate(run, LABELS[test], ids=ids, **parts)
    np.testing.assert_allclose(again.predictions.result, run.predictions.result, atol=1e-5)


def test_clips_without_a_label_have_predictions_and_no_score() -> None:
    run = train(LABELS, SPLIT, **padded())
    some = LABELS.copy()
    some[::2] = -1
    found = evaluate(run, some, **PADDED)
    assert len(found.predictions) == N
    assert found.scores is not None
    assert found.scores["clips"] == N // 2


def test_a_class_of_ones_own_is_a_row_of_the_tables_and_must_be_given_again(tmp_path: Path) -> None:
    run = train(LABELS, SPLIT, **padded(model=Mine, name="mine", out=tmp_path))
    assert train(LABELS, SPLIT, **padded(model=Mine, name="mine", out=tmp_path)).path == run.path
    train(LABELS, SPLIT, **padded(out=tmp_path))
    assert run.config.model == "own:mine"
    assert run.config.own.startswith(f"{Mine.__module__}.Mine ")
    shown = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "own:mine" in shown.output
    assert "joint" in shown.output
    alone = load_run(run.path)
    assert same(alone.predictions, run.predictions)
    with pytest.raises(
        UsageError,
        match=r"own:mine: a run keeps no code: give the class again, .* here .*Mine$",
    ):
        evaluate(alone, LABELS, **PADDED)
    again = load_run(run.path, model=Mine)
    assert evaluate(again, LABELS, **PADDED).scores == evaluate(run, LABELS, **PADDED).scores
    with pytest.warns(UserWarning, match=r"trained with .*Mine \w+; what was given is .*<lambda>"):
        load_run(run.path, model=lambda inputs, classes: Mine(inputs, classes)).model()
    with pytest.raises(UsageError, match="joint is a model of the table: no class is needed"):
        load_run(next(tmp_path.glob("joint_*")), model=Mine)


def test_a_class_for_one_modality() -> None:
    run = train(LABELS, SPLIT, audio=PADDED["audio"], model=Sound, **SMALL)
    assert run.config.model == "own:Sound-ao"
    assert run.scores["test"]["accuracy"] > 0.8
    assert evaluate(run, LABELS, audio=PADDED["audio"]).scores is not None


def test_a_class_is_named_on_the_command_line(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    source = (Path(__file__).parent / "test_api.py").read_text("utf-8")
    start, end = source.index("class Mine"), source.index("class Sound")
    head = "from collections.abc import Mapping\nfrom torch import Tensor, nn\nInput = object\n"
    Path("nets_of_mine.py").write_text(head + source[start:end])
    small = ["--epochs", "1", "--finetune-epochs", "0", "--workers", "1", "--threads", "1", "--quiet"]
    words = ["--store", str(tiny_store), "--model", "own:nets_of_mine:Mine", "--balance", "none,ogm", *small]
    result = CliRunner().invoke(fuse, words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "own:nets_of_mine:Mine+ogm" in result.output
    assert len(list(Path("runs/tiny").glob("own-nets_of_mine-Mine_*seed0*"))) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own:Mine", "--model own:Mine: expected own:package.module:ClassName"),
        ("own:no_such_module_here:Mine", "ModuleNotFoundError: No module named"),
        ("own:json:Mine", "AttributeError: module 'json' has no attribute 'Mine'"),
        ("own:json:decoder", "decoder is module, expected a class or a function"),
        ("own:os.path..x:y", "expected own:package.module:ClassName"),
    ],
)
def test_a_class_that_is_not_there_is_told_before_anything_is_read(name: str, message: str) -> None:
    result = CliRunner().invoke(main, ["fuse", "--model", name])
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": None, "audio_lengths": None}, "the model takes audio features, but no audio stream was loaded"),
        (
            {"audio": PADDED["audio"][:5], "audio_lengths": None},
            "audio has 5 entries, expected one for each of the 90 labels",
        ),
        ({"audio_lengths": LENGTHS["audio"][:5]}, "audio: 5 masks or lengths for 90 clips"),
        (
            {"audio_lengths": LENGTHS["audio"] + 99},
            "audio of clip 0: length .*, expected 0 to 15, the steps that there are",
        ),
        ({"audio_mask": np.ones((N, 15), bool)}, "audio: a mask and lengths are given, expected one of them"),
        ({"audio_mask": np.ones((N, 3), bool), "audio_lengths": None}, r"a mask bool \(3,\), expected bool \(15,\)"),
        ({"audio_mask": np.ones((N, 15)), "audio_lengths": None}, r"a mask float32 \(15,\), expected bool"),
        (
            {"audio": PADDED["audio"].astype(np.int64)},
            r"audio of clip 0: int64 .*, expected float16 or float32 \(T, 12\)",
        ),
        ({"labels": np.zeros((N, 3), int)}, r"labels \(90, 3\), expected one for each clip"),
        ({"labels": [[0], [1, 2]] * 45}, "labels are lists of unequal lengths"),
        ({"labels": []}, "labels are empty"),
        ({"audio": 3, "audio_lengths": None}, "audio is int, expected an array or a list of them"),
        ({"audio": LABELS / 2, "audio_lengths": None}, r"audio of clip 0: a single float32, expected \(T, l\)"),
        ({"audio_lengths": LENGTHS["audio"] + 0.5}, r"audio of clip 0: length .*\.5, expected a whole number"),
        ({"audio_lengths": np.ones((N, 2), int)}, r"audio of clip 0: length \[1 1\], expected a whole number"),
        ({"audio_rate_hz": 0}, "audio: 0 steps a second, expected more than 0"),
        ({"visual_rate_hz": float("nan")}, "visual: nan steps a second"),
        ({"ids": ["a", *"abcdefgh"] * 10}, 'ids: two clips are called "a"'),
        (
            {"split": None, "groups": ["g"] * N},
            "1 groups can't be dealt into train, dev and test: expected at least 5, or a",
        ),
        ({"split": None, "groups": ["g"] * 9}, "groups has 9 entries, expected one for each of the 90 labels"),
        ({"augment": ["audio.arrays@white=0"]}, r"no features audio\.arrays@white=0 were loaded"),
        ({"augment": ["audio.typo@white=0"]}, r"audio\.typo@white=0 is no variant of the streams"),
        ({"variants": {"audio.arrays@a": [None] * N}}, "audio.arrays@a: no clip has any step"),
        ({"conditions": "no-visual"}, 'conditions is "no-visual", expected a list of texts'),
        ({"device": "gpu"}, 'device "gpu": expected cpu or cuda:N'),
        ({"device": "cuda:99"}, r'device "cuda:99": torch finds \d+ GPUs on this machine'),
        ({"labels": LABELS / 2}, "labels are float64, expected whole numbers or names"),
        ({"labels": ["a"] * N, "classes": ("b", "c")}, 'the label "a" is none of the classes b, c'),
        ({"split": ["train"] * N}, "no usable clip in the test split"),
        ({"model": "odd"}, 'unknown model "odd"'),
        ({"name": "mine"}, 'name "mine": joint has a name; give one with a class of your own'),
        ({"model": nn.Linear(1, 1)}, "model is a module: give its class"),
        ({"model": lambda inputs, classes: Mine(inputs, classes)}, 'name "<lambda>": expected letters, digits'),
        ({"epoch": 3}, r"unknown keys \['epoch'\]"),
        ({"conditions": ["audio.arrays@white=0"]}, r"no features audio\.arrays@white=0 were loaded"),
        (
            {"variants": {"sound": PADDED["audio"]}},
            'variants: "sound" names no version of audio.arrays or visual.arrays',
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(change: dict[str, Any], message: str) -> None:
    given = padded(**{"split": SPLIT, "labels": LABELS, **change})
    with pytest.raises(UsageError, match=message) as refusal:
        train(given.pop("labels"), given.pop("split"), **given)
    assert "\n" not in str(refusal.value)


def test_evaluate_refuses_what_the_model_was_not_trained_on() -> None:
    run = train(LABELS, SPLIT, **padded(epochs=1, finetune_epochs=0))
    for arrays, message in (
        ({}, "nothing to see: the model takes audio and visual"),
        ({"audio": PADDED["audio"], "drop": "audio"}, "nothing to see"),
        ({"audio": PADDED["audio"], "drop": "sound"}, 'drop is "sound", expected audio or visual'),
        ({"audio": PADDED["visual"]}, "a step of audio was 12 at 50 Hz there, here it is 8 at 50 Hz"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(run, LABELS, **arrays)
    with pytest.raises(UsageError, match="the model takes visual too: give it, or the run instead of its model"):
        evaluate(run.model(), LABELS, audio=PADDED["audio"])
    with pytest.raises(UsageError, match="the model was trained on other steps of audio than 8 at 50 Hz"):
        evaluate(run.model(), LABELS, audio=PADDED["visual"], visual=PADDED["visual"])


def test_a_model_alone_does_not_guess_which_number_a_name_has() -> None:
    """The names in the labels need not be all classes: counted by themselves, they would be other numbers."""
    run = train([f"c{label}" for label in LABELS], SPLIT, **padded(epochs=1, finetune_epochs=0))
    some = np.flatnonzero(LABELS > 0)
    parts = {m: a[some] for m, a in PADDED.items()}
    assert (
        evaluate(run, [f"c{label}" for label in LABELS[some]], **parts).predictions.labels.tolist()
        == LABELS[some].tolist()
    )
    with pytest.raises(UsageError, match=r"labels are names, .* give numbers, or the run instead"):
        evaluate(run.model(), [f"c{label}" for label in LABELS[some]], **parts)
    with pytest.raises(UsageError, match="labels reach to 7, but the model tells 3 classes apart"):
        evaluate(run.model(), np.full(len(some), 7), **parts)
    with pytest.raises(UsageError, match="labels has 5 entries, expected one for each of the 60 clips"):
        evaluate(run, LABELS[:5], **parts)


def test_speakers_are_part_of_what_a_run_was_trained_on(tmp_path: Path) -> None:
    """They make the folds, so other speakers are other splits."""
    names = [[f"s{i % count}" for i in range(N)] for count in (6, 9)]
    settings = padded(folds=3, fold_by="speaker", epochs=1, finetune_epochs=0, out=tmp_path)
    runs = [train(LABELS, SPLIT, **settings, speakers=speakers) for speakers in names]
    assert runs[0].path != runs[1].path
    assert train(LABELS, SPLIT, **settings, speakers=np.array(names[0])).path == runs[0].path


class Odd(Mine):
    """No numbers where it is not trained."""

    def forward(self, *steps: Tensor) -> Tensor:
        return super().forward(*steps) * (1 if self.training else float("nan"))


def test_a_model_that_gives_no_numbers_on_dev_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        Diverged, match=r"own:Odd, seed 0: the loss on dev is no number in epoch 1: .* evaluation mode$"
    ):
        train(LABELS, SPLIT, **padded(model=Odd, out=tmp_path))
    assert not list(tmp_path.glob("own*"))


class Bursting(Mine):
    """No numbers after some steps of training."""

    def forward(self, *steps: Tensor) -> Tensor:
        self.steps = getattr(self, "steps", 0) + self.training
        return super().forward(*steps) * (1 if self.steps < 6 else float("nan"))


def test_the_last_good_weights_are_where_the_error_says() -> None:
    with pytest.raises(Diverged, match="the weights of epoch 1 are kept in") as error:
        train(LABELS, SPLIT, **padded(model=Bursting))
    folder = Path(str(error.value).rpartition(" ")[2])
    assert list(folder.iterdir())
    shutil.rmtree(folder.parent.parent)


def test_a_class_whose_source_cant_be_read_trains_but_is_not_kept(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {"Mine": Mine}
    exec("class Typed(Mine): pass", namespace)  # noqa: S102
    assert train(LABELS, SPLIT, **padded(model=namespace["Typed"])).history
    with pytest.raises(UsageError, match=r"the source of .*Typed can't be read, .* put it in a file"):
        train(LABELS, SPLIT, **padded(model=namespace["Typed"], out=tmp_path))


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, bmla.fuse; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; "
    code += "from bmla.fuse import train, evaluate; import bmla.fuse.training, bmla.fuse.predictions; "
    code += "import bmla.fuse; assert callable(bmla.fuse.train) and callable(bmla.fuse.evaluate)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arrays_of_the_library_stay_as_they_were() -> None:
    lists = {m: [a[:t] for a, t in zip(PADDED[m], LENGTHS[m], strict=True)] for m in PADDED}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = features_from_arrays(LABELS, SPLIT, **lists, speakers=[f"s{i % 5}" for i in range(N)])
    assert set(features.units["speaker"]) == {f"s{i}" for i in range(5)}
