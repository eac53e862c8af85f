"""Streams of sound and sight together, and of whole pictures: what they are given, which half fails, which noise they may have."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from bmla.extract.encoders import table
from bmla.extract.encoders.base import Both, Features, Pictures, Sight, Sound, WithoutNetwork, frames_of
from bmla.extract.executors import run_here, run_in_processes
from bmla.extract.extraction import extract
from bmla.extract.pipeline import Task
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.quality import quality_of_files
from bmla.extract.tools import ToolConfig, Tools
from bmla.fuse.choice import choose_streams
from bmla.fuse.data import features_from_store
from bmla.store import open_store
from bmla.store.errors import UsageError

JOINT, MOUTH, SOUND = "av.avhubert", "mouth.avhubert", "audio.avhubert"
MODELS = dict.fromkeys((JOINT, MOUTH, SOUND), "random:avhubert-tiny")
SMALL = {JOINT: {"crop_px": 32}, MOUTH: {"crop_px": 32}}


def config(*streams: str) -> ToolConfig:
    bases = {name.partition("@")[0] for name in streams}
    return ToolConfig(
        streams,
        models={name: MODELS[name] for name in bases},
        parameters={name: SMALL[name] for name in bases & SMALL.keys()},
    )


@dataclass
class Spy(WithoutNetwork):
    """Keeps what it was given."""

    takes: str
    seen: list[Any]
    feature_shape = (1,)
    dtype = "float16"
    rate_hz = 25.0
    frame_law = "25 a second"

    def steps(self, duration_s: float) -> int:
        return frames_of(duration_s)

    def describe(self) -> dict[str, Any]:
        return {"weights": None, "parameters": {}, "versions": {}}

    def prepare(self, clip: Any) -> Features:
        self.seen.append(clip)
        steps = len((clip.sight if isinstance(clip, Both) else clip).frames)
        return Features(np.ones((steps, 1), np.float16), np.ones(steps, bool))


@pytest.fixture
def spy(monkeypatch):
    """spy(takes, stream) puts an encoder into the table that keeps what it is given, and gives the list of it."""

    def make(takes: str, modality: str, stream: str = "spy.eye") -> list[Any]:
        seen: list[Any] = []
        entry = table.Entry(
            "spy", modality, takes, "a spy", False, lambda request: Spy(takes, seen), table.DlibFaceOptions
        )
        monkeypatch.setitem(table.TABLE, stream, entry)
        return seen

    return make


@pytest.fixture(scope="module")
def plan(tree, tmp_path_factory):
    store = tmp_path_factory.mktemp("joint") / "lrw.zarr"
    return make_plan(ExtractConfig("lrw", tree, store, config(JOINT, MOUTH, SOUND), shard_size=2))


@pytest.fixture(scope="module")
def clips(plan):
    return plan.clips.rows(range(3))


def done(tools: ToolConfig, clips, plan, streams=None):
    task = Task(0, tuple(clips), streams or tools.streams)
    return next(iter(run_here([task], tools, plan.dataset.root, lambda n: None))).results


def test_each_stream_says_what_it_is_of(plan):
    specs = {s.spec.name: s.spec for s in plan.streams}
    assert [specs[n].modality for n in (JOINT, MOUTH, SOUND)] == ["audio-visual", "visual", "audio"]
    assert [specs[n].parameters["modality"] for n in (JOINT, MOUTH, SOUND)] == ["audio-visual", "visual", "audio"]
    assert [bool(specs[n].crop) for n in (JOINT, MOUTH, SOUND)] == [True, True, False]
    assert [bool(specs[n].detector) for n in (JOINT, MOUTH, SOUND)] == [True, True, False]
    assert {"soxr", "dlib-bin"} <= specs[JOINT].versions.keys()
    assert "soxr" not in specs[MOUTH].versions
    assert "dlib-bin" not in specs[SOUND].versions


def test_a_clip_without_sound_or_without_pictures_fails_in_the_joint_stream_alone_by_its_reason(plan, clips):
    silent, blind = replace(clips[0], audio=None), replace(clips[1], video="nothing.mp4")
    results = done(config(JOINT, MOUTH, SOUND), [silent, blind, clips[2]], plan)
    steps = {name: [r.failure and r.failure.step for r in found] for name, found in results.items()}
    assert steps == {JOINT: ["sound", "video", None], MOUTH: [None, "video", None], SOUND: ["sound", None, None]}
    assert results[JOINT][2].values.shape == (29, 32)
    assert {"sound_level_dbfs", "face_width_px"} <= results[JOINT][2].quality.keys()


def test_a_joint_encoder_gets_the_sound_and_the_face_of_one_clip(plan, clips, spy):
    seen = spy("sound+sight", "audio-visual")
    done(ToolConfig(("spy.eye",)), clips[:1], plan)
    (both,) = seen
    assert isinstance(both, Both)
    assert isinstance(both.sound, Sound)
    assert isinstance(both.sight, Sight)
    assert (len(both.sound.samples), len(both.sight.frames)) == (18_560, 29)


def test_whole_pictures_need_no_face_and_nobody_looks_for_one(plan, clips, spy, monkeypatch):
    seen = spy("pictures", "visual")
    tools = Tools(ToolConfig(("spy.eye",)))
    monkeypatch.setattr(type(tools), "detector", property(lambda self: pytest.fail("looked for a face")))
    monkeypatch.setattr(type(tools.kit), "landmarks", property(lambda self: pytest.fail("looked for landmarks")))
    (result,) = done(ToolConfig(("spy.eye",)), clips[:1], plan)["spy.eye"]
    assert result.failure is None
    (pictures,) = seen
    assert isinstance(pictures, Pictures)
    assert pictures.frames.shape == (29, 256, 256, 3)
    facts = quality_of_files(clips[0], plan.dataset.root)
    assert facts
    assert facts.items() <= result.quality.items()
    spec = tools.specification("spy.eye")
    assert (spec.detector, spec.crop) == (None, None)


def test_noise_of_pictures_is_laid_around_the_face_also_for_whole_pictures(plan, clips, spy):
    seen = spy("sound+pictures", "audio-visual")
    names = ("spy.eye", "spy.eye@blur=8", "spy.eye@white=0", "spy.eye@white=0,blur=8")
    done(ToolConfig(names), clips[:1], plan)
    assert [type(both.sight) for both in seen] == [Pictures, Sight, Pictures, Sight]
    plain, blurred, loud, noisy = seen
    same = np.array_equal
    assert same(blurred.sound.samples, plain.sound.samples)
    assert not same(blurred.sight.frames, plain.sight.frames)
    assert same(loud.sight.frames, plain.sight.frames)
    assert not same(loud.sound.samples, plain.sound.samples)
    assert same(noisy.sound.samples, loud.sound.samples)
    assert same(noisy.sight.frames, blurred.sight.frames)
    specs = [Tools(ToolConfig(names)).specification(name) for name in names]
    assert [bool(s.detector) for s in specs] == [False, True, False, True]


def test_noise_of_the_other_modality_is_refused_where_a_stream_has_but_one():
    with pytest.raises(UsageError, match=r"blur is visual noise, the stream is audio"):
        Tools(config(f"{SOUND}@blur=4"))


@pytest.mark.slow
def test_processes_give_what_one_gives_alone(plan, clips):
    tools = config(JOINT, MOUTH)
    tasks = [Task(n, (clip,), tools.streams) for n, clip in enumerate(clips[:2])]
    alone = list(run_here(tasks, tools, plan.dataset.root, lambda n: None))
    others = list(run_in_processes(tasks, tools, plan.dataset.root, lambda n: None, 1))
    for mine, theirs in zip(alone, sorted(others, key=lambda d: d.task.shard), strict=True):
        for name in tools.streams:
            np.testing.assert_array_equal(mine.results[name][0].values, theirs.results[name][0].values)


def test_sound_alone_is_not_sound_with_the_pictures(plan, clips):
    results = done(config(JOINT, MOUTH, SOUND), clips[:1], plan)
    a, b, c = (results[name][0].values for name in (JOINT, MOUTH, SOUND))
    assert a.shape == b.shape == c.shape
    assert not any(np.allclose(x, y, atol=0.01) for x, y in ((a, b), (a, c), (b, c)))


def test_a_joint_stream_is_fused_where_it_is_asked_for_and_chosen_for_nothing(plan):
    extract(plan, lambda *a: None, lambda n: None)
    store = open_store(plan.config.store)
    chosen = choose_streams(store, ("audio", "visual"), None, None)
    assert chosen == {"audio": SOUND, "visual": MOUTH}
    features = features_from_store(store, JOINT, None)
    assert features.audio.length == 32
    with pytest.raises(UsageError, match=r"stream audio\.avhubert is audio, not visual"):
        features_from_store(store, None, SOUND)
