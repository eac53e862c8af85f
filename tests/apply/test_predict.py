"""From a file to an answer: as through the store, with what is missing said, and refused where it would be something else."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bmla
from bmla.apply.cuts import Cut, cuts_of
from bmla.apply.loaded import LoadedRun
from bmla.fuse.run import RunDamaged, load_run
from bmla.store import open_store
from bmla.store.errors import StoreMismatch, UsageError

AGREE = 1e-3  # what is promised; on one machine it is 1e-5
GRID = Path(os.environ.get("BMLA_TEST_DATA") or Path(__file__).parents[3] / "shared") / "data" / "grid"


def answers(found):
    return np.stack([p.answer.result for p in found])


def cuts_of_store(store, root):
    return [Cut(root / str(c.video), c.start_s, c.end_s, c.id) for c in store.clips.rows(range(len(store.clips)))]


PAIRS = [
    ("audio.logspec", "mouth.dct"),
    ("audio.logspec@white=0", "mouth.dct.standardise"),
    ("audio.logspec.pca-4.subsample-2", "mouth.dct"),
]


@pytest.mark.parametrize(("audio", "visual"), PAIRS)
def test_a_clip_cut_from_a_store_gets_the_answer_that_it_gets_through_the_store(make_run, store, tree, audio, visual):
    run = make_run("balancemla", audio, visual)
    loaded = LoadedRun(run, store=store)
    cuts = cuts_of_store(store, tree)[::2]
    raw, stored = (
        list(loaded.predict_many(cuts, attention=True)),
        list(loaded.predict_stored(None, attention=True))[::2],
    )
    np.testing.assert_allclose(answers(raw), answers(stored), atol=AGREE)
    assert np.ptp(answers(stored), axis=0).max() > 10 * AGREE, "the model tells the clips apart"
    for one, other in zip(raw, stored, strict=True):
        np.testing.assert_allclose(one.answer.alpha, other.answer.alpha, atol=AGREE)
        for asking in ("audio", "visual"):
            np.testing.assert_allclose(
                one.answer.attention[asking].weights, other.answer.attention[asking].weights, atol=AGREE
            )


@pytest.mark.parametrize(("audio", "visual"), PAIRS)
def test_features_are_those_of_the_store_to_the_bit(make_run, store, tree, audio, visual):
    from bmla.store.merge import ShardReader

    loaded = LoadedRun(make_run("balancemla", audio, visual), store=store)
    clips = [cut.clip() for cut in cuts_of_store(store, tree)[:1]]
    for maker in loaded.makers.values():
        reader = ShardReader(store, maker.spec.name)
        for row, made in enumerate(maker.make(clips, Path("/"))):
            np.testing.assert_array_equal(made.values, reader.clip(row).values)
            np.testing.assert_array_equal(made.valid, reader.clip(row).valid)


def test_a_span_of_a_file_is_what_a_store_of_such_spans_holds(run, store, tree):
    """The file's own time, counted from its start, as `--from` and `--to` say it."""
    path = tree / str(store.clips[0].video)
    loaded = LoadedRun(run)
    part = loaded.predict(path, 0.2, 0.8)
    assert (part.start_s, part.end_s) == (0.2, 0.8)
    (features,) = loaded.makers["visual"].make([Cut(path, 0.2, 0.8).clip()], Path("/"))
    assert len(features.values) == 15
    whole = loaded.predict(path)
    assert np.abs(whole.answer.result - part.answer.result).max() > 1e-4


def test_the_test_scores_of_the_run_are_found_again(run, store):
    found = list(LoadedRun(run, store=store).predict_stored("test"))
    right = np.mean([p.best == p.label for p in found])
    assert right == pytest.approx(run.scores["test"]["accuracy"])


def test_a_clip_without_sound_is_answered_by_sight_and_says_so(run, store, write, portrait, tmp_path):
    images = np.stack([portrait[:256, :256]] * 29)
    write(tmp_path / "mute.mp4", images, 1, sound=False)
    found = LoadedRun(run).predict(tmp_path / "mute.mp4")
    assert found.error is None
    assert "NoSound" in found.missing["audio"]
    assert found.alpha == {"audio": 0.0, "visual": 1.0}
    assert list(found.answer.heads) == ["visual"]
    assert found.answer.attention == {}
    assert any(line.startswith("  without sound, the other answers: NoSound") for line in found.lines())
    assert "  no attention between sound and sight: one of them is missing" in found.lines(attention=True)


def test_a_clip_without_a_face_is_answered_by_sound(run, store, write, blank, tmp_path):
    write(tmp_path / "wall.mp4", blank, 1)
    found = LoadedRun(run).predict(tmp_path / "wall.mp4")
    assert "NoFace" in found.missing["visual"]
    assert found.alpha == {"audio": 1.0, "visual": 0.0}
    assert list(found.answer.heads) == ["audio"]


def test_a_sound_file_will_do_for_a_model_of_both(run, store, write, blank, tmp_path):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes((np.random.default_rng(0).normal(size=16_000) * 1000).astype("<i2").tobytes())
    found = LoadedRun(run).predict(tmp_path / "a.wav")
    assert found.error is None
    assert "no video stream" in found.missing["visual"]


def test_one_clip_that_fails_does_not_stop_the_others(run, store, tree, write, blank, tmp_path):
    write(tmp_path / "b.mp4", blank, 1, sound=False)
    (tmp_path / "c.mp4").write_bytes(b"no media at all")
    (tmp_path / "a.mp4").symlink_to(next(tree.rglob("*.mp4")))
    found = list(LoadedRun(run).predict_many(cuts_of([tmp_path])))
    assert [p.id for p in found] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [p.error is None for p in found] == [True, False, False]
    assert "no sound: NoSound" in found[1].error
    assert "no sight: NoFace" in found[1].error
    assert "error" in found[2].to_dict()


def test_answers_do_not_depend_on_the_other_clips(run, store, tree, write, blank, tmp_path):
    files = sorted(tree.rglob("*.mp4"))[:2]
    write(tmp_path / "wall.mp4", blank, 1)
    loaded = LoadedRun(run)
    together = list(loaded.predict_many([Cut(f) for f in (*files, tmp_path / "wall.mp4")]))
    alone = [loaded.predict(f) for f in files]
    np.testing.assert_allclose(answers(together[:2]), answers(alone), atol=1e-5)


def test_features_of_other_weights_are_refused_in_one_line(make_run, store, tmp_path):
    run = make_run("transformer-vo")
    document = json.loads((run.path / "config.json").read_text())
    stream = document["features"]["streams"]["visual"]
    spec = stream["specification"]
    spec["detector"]["weights"]["sha256"] = "0" * 64
    from bmla.store.spec import StreamSpec

    stream["digest"] = StreamSpec.from_dict(spec).digest()
    (run.path / "config.json").write_text(json.dumps(document))
    with pytest.raises(
        StoreMismatch, match=r"stream mouth.dct: .*detector.weights.sha256: 'b7a7.* here, '0000"
    ) as error:
        _ = LoadedRun(load_run(run.path)).makers
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.__setitem__("threshold", 0.5), "detector.threshold: 0.9 here, 0.5 there"),
        (lambda s: s["landmarks"].__setitem__("square_side", 0.8), "square_side: 0.9 here, 0.8 there"),
    ],
)
def test_whatever_no_option_says_is_compared(make_run, store, change, expected):
    from bmla.extract.rebuild import Means, maker_of

    spec = store.spec("mouth.dct")
    detector = json.loads(json.dumps(spec.detector))
    change(detector)
    with pytest.raises(StoreMismatch, match=expected):
        maker_of(replace(spec, detector=detector), Means())


def test_another_version_of_a_library_is_told_and_let_through(store):
    from bmla.extract.rebuild import Means, maker_of

    spec = store.spec("audio.logspec")
    maker = maker_of(replace(spec, versions={**spec.versions, "numpy": "1.0"}), Means())
    (line,) = maker.versions
    assert line.startswith("audio.logspec: numpy: ")
    assert line.endswith("here, '1.0' there, in training")


def test_a_specification_that_is_not_of_its_digest_is_not_believed(make_run, store):
    run = make_run("transformer-ao")
    document = json.loads((run.path / "config.json").read_text())
    document["features"]["streams"]["audio"]["specification"]["parameters"]["bands"] = 40
    (run.path / "config.json").write_text(json.dumps(document))
    with pytest.raises(RunDamaged, match="the audio stream's specification is not that of its digest"):
        load_run(run.path).specification("audio")


def test_a_run_without_specification_takes_it_from_the_store_of_its_digest(make_run, store, tree):
    run = make_run("transformer-ao")
    expected = LoadedRun(run).predict(tree / str(store.clips[0].video)).answer.result
    document = json.loads((run.path / "config.json").read_text())
    del document["features"]["streams"]["audio"]["specification"]
    (run.path / "config.json").write_text(json.dumps(document))
    old = load_run(run.path)
    with pytest.raises(UsageError, match=r"keeps no specification of audio.logspec: name the store"):
        _ = LoadedRun(old).makers
    found = LoadedRun(old, store=store).predict(tree / str(store.clips[0].video))
    np.testing.assert_array_equal(found.answer.result, expected)
    document["features"]["streams"]["audio"]["digest"] = "0" * 64
    (run.path / "config.json").write_text(json.dumps(document))
    with pytest.raises(StoreMismatch, match=r"was trained on another audio.logspec"):
        _ = LoadedRun(load_run(run.path), store=store).makers


def test_a_derived_stream_asks_for_the_store_of_its_statistics(make_run, store):
    run = make_run("transformer-ao", "audio.logspec.pca-4")
    with pytest.raises(UsageError, match=r"pca of audio.logspec by statistics of its training clips: name the store"):
        _ = LoadedRun(run).makers


@pytest.mark.parametrize("name", ["audio.logspec@babble=0", "audio.logspec@file=10"])
def test_noise_of_other_recordings_is_no_clips_own(store, name):
    from bmla.extract.rebuild import Means, maker_of

    spec = replace(store.spec("audio.logspec@white=0"), name=name)
    with pytest.raises(UsageError, match="which a clip does not bring along: predict through its store"):
        maker_of(spec, Means())


def test_a_clip_of_another_length_than_in_training_is_remarked_on(run, store, tree):
    short = LoadedRun(run).predict(next(tree.rglob("*.mp4")), 0.0, 0.2)
    assert short.notes == (
        "this clip has 0.20 s, the run was trained on clips of 1.14 to 1.16 s: cut such a span out (--from, --to)",
    )
    assert LoadedRun(run).predict(next(tree.rglob("*.mp4"))).notes == ()


@pytest.mark.parametrize("model", ["stconv-vo", "bgru-vo"])
def test_models_of_pictures_are_asked_too(make_run, store, tree, model):
    loaded = LoadedRun(make_run(model, visual="mouth.roi"), store=store)
    raw = list(loaded.predict_many(cuts_of_store(store, tree)[:2]))
    stored = list(loaded.predict_stored(None))[:2]
    np.testing.assert_allclose(answers(raw), answers(stored), atol=AGREE)
    assert raw[0].alpha is None
    assert raw[0].to_dict()["alpha"] is None


def test_the_package_opens_a_run_and_is_light_until_then(run, store, tree):
    import subprocess
    import sys

    code = "import sys, bmla; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
    found = bmla.load_run(run.path).predict(tree / str(store.clips[0].video))
    assert found.best in run.classes
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = bmla.unknown


@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips of ../shared/data/grid are not here")
def test_a_word_of_a_real_sentence_gets_the_answer_of_the_store(make_grid_run):
    run, path = make_grid_run
    loaded = LoadedRun(run, store=open_store(path))
    raw = list(loaded.predict_many(cuts_of_store(loaded.store, GRID)))
    stored = list(loaded.predict_stored(None))
    np.testing.assert_allclose(answers(raw), answers(stored), atol=AGREE)
    assert len(raw) == 18
