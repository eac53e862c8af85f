"""The generated data set: real files of LRW's layout, the same from the same seed, whole or not there."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from bmla.extract.datasets.table import find
from bmla.extract.demo import make_demo
from bmla.extract.media import probe, read_audio, read_frames
from bmla.store.errors import UsageError

pytest.importorskip("espeakng_loader", reason="needs the demo extra: pip install 'bmla[demo]'")
pytest.importorskip("skimage", reason="needs the demo extra: pip install 'bmla[demo]'")

WORDS = ("MOTION", "NOTION")


def contents(root: Path) -> dict[str, str]:
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    seen = []
    root = make_demo(
        tmp_path_factory.mktemp("demo") / "data",
        clips_per_word=3,
        words=WORDS,
        workers=2,
        progress=lambda *done: seen.append(done),
    )
    assert seen == [(k, 6) for k in range(1, 7)]
    return root


def test_the_adapter_finds_every_clip_with_sound_and_29_frames(demo):
    found = find("demo").adapter()(demo)
    assert found.classes == WORDS
    assert found.dropped == ()
    assert sorted(c.id for c in found.clips) == sorted(
        f"{s}/{w}_00001" for w in WORDS for s in ("train", "val", "test")
    )
    for clip in found.clips:
        frames = read_frames(found.root / clip.video, clip.start_s, clip.end_s)
        assert frames.images.shape == (29, 256, 256, 3)
        assert frames.present.all()
        sound = read_audio(found.root / clip.audio, clip.start_s, clip.end_s)
        assert sound.shape == (18_560,)
        assert 0.02 < np.abs(sound).max() <= 1.2
        assert probe(found.root / clip.video).fps == 25
        assert 0 < clip.word_start_s < 0.58 < clip.word_end_s < 1.16


def test_the_word_sounds_and_moves_in_the_middle(demo):
    loud, moving = np.zeros(3), np.zeros(3)
    for clip in find("demo").adapter()(demo).clips:
        sound = read_audio(demo / clip.audio, 0, 1.16)
        loud += [np.sqrt((part**2).mean()) for part in np.array_split(sound, 3)]
        picture = read_frames(demo / clip.video, 0, 1.16).images[:, 150:230, 80:176].astype(float).mean(-1)
        moving += [np.abs(np.diff(part, axis=0)).mean() for part in np.array_split(picture, 3)]
    assert loud[1] > 2 * max(loud[0], loud[2])
    assert moving[1] > max(moving[0], moving[2])


def test_the_folder_says_that_it_is_generated(demo):
    text = (demo / "README.txt").read_text()
    assert text.startswith("GENERATED DATA. Nothing in this folder is a recording of speech.")
    assert "6 clips of 2 words" in text
    assert "Voice: gmw/" in (demo / "MOTION/train/MOTION_00001.txt").read_text()
    assert [p.name for p in demo.parent.iterdir()] == [demo.name]


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(demo, tmp_path):
    again = make_demo(tmp_path / "data", clips_per_word=3, words=WORDS, workers=1)
    assert contents(again) == contents(demo)


def test_what_is_there_is_reused_and_other_parameters_replace_it(demo, tmp_path):
    def never(done: int, count: int) -> None:
        raise AssertionError("generated again")

    before = contents(demo)
    assert make_demo(demo, clips_per_word=3, words=tuple(reversed(WORDS)), progress=never) == demo
    assert contents(demo) == before
    other = tmp_path / "data"
    (other / "OLDER" / "train").mkdir(parents=True)
    (other / "generated.json").write_text(json.dumps({"generator": 0}))
    make_demo(other, clips_per_word=3, seed=1, words=WORDS[:1])
    assert not (other / "OLDER").exists()
    assert json.loads((other / "generated.json").read_text())["seed"] == 1
    clip = "MOTION/train/MOTION_00001.mp4"
    assert (other / clip).read_bytes() != (demo / clip).read_bytes()


def test_an_interrupted_generation_leaves_nothing_that_looks_whole(tmp_path):
    def stop(done: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "data", clips_per_word=3, words=WORDS, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something that the demo did not make; name another folder"):
        make_demo(tmp_path, clips_per_word=3)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_wrong_parameters_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="at least 3 clips a word, one for each split; got 2"):
        make_demo(tmp_path / "data", clips_per_word=2)
    with pytest.raises(UsageError, match='no word "HELLO"; known: ABOUT, BILLION'):
        make_demo(tmp_path / "data", words=("HELLO",))
    with pytest.raises(UsageError, match="seed is -1, expected 0 or more"):
        make_demo(tmp_path / "data", seed=-1)
