"""The page of a store says what an independent count says, escapes what the store names, and quality survives every move."""

import base64
import json
import re
from html.parser import HTMLParser
from importlib import import_module
from io import BytesIO

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.image import imread

from bmla.cli import main
from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import StoreError
from bmla.store.exchange import export, own
from bmla.store.ledger import Failure, key_of
from bmla.store.merge import merge
from bmla.store.place import open_place
from bmla.store.preview import render_page, survey
from bmla.store.preview.figures import Panel, bins_of, draw_histograms, drawing, has_long_labels, heat_map, render
from bmla.store.preview.page import duration_text
from bmla.store.preview.sample import jump_of, robust_z
from bmla.store.preview.strips import FRAMES, GAP, MARK, MARK_COLOUR, frames_shown, jpeg, shrunk, strip
from bmla.store.quality import check_quality, columns_of
from bmla.store.sealing import sealed
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.transfer import plan_transfer, run_transfer

ROI = StreamSpec("mouth.roi", "visual", "mouth-roi", "uint8", (12, 10), 25.0, "T = any")
COLOUR = StreamSpec("face.roi", "visual", "face-roi", "uint8", (12, 10, 3), 25.0, "T = any")
SOUND = StreamSpec("audio.toy", "audio", "toy", "float16", (5,), 100.0, "T = any")
EVIL = '<script>alert("x")</script>'
CLASSES = ("a", EVIL, "never")
N, STEPS = 13, 9


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


def clip_of(i):
    label = (CLASSES[i % 2], None)[i == 12]
    return Clip(f"{EVIL}{i:02d}", i, i + 1 + i / 10, label=label, split=("train", "test", "train", None)[i % 4])


def features(spec, i):
    """Failures at 3 and 7; clip 5 jumps once; clip 4 has 2 of its steps interpolated."""
    rng = np.random.default_rng([i, len(spec.name)])
    if i in (3, 7):
        failure = Failure(clip_of(i).id, "faces", "NoFace", f"no face & {EVIL}")
        return ClipFeatures(None, None, failure, {"sound_level_dbfs": -20.0 - i})
    n = int(rng.integers(4, STEPS + 1))
    if spec.dtype == "uint8":
        values = np.full((n, *spec.feature_shape), 100, np.uint8) + rng.integers(
            0, 5, (n, *spec.feature_shape), np.uint8
        )
        values[2:] += np.uint8(90 if i == 5 else 0)
    else:
        values = rng.normal(3, 2, (n, *spec.feature_shape)).astype(spec.dtype)
        values[:, 2] = 7
    valid = np.ones(n, bool)
    valid[: 2 if i == 4 else 0] = False
    quality = (
        {"detector_score": 0.9 - i / 100, "face_width_px": 50.0 + i} if spec.modality == "visual" and i != 6 else {}
    )
    return ClipFeatures(values, valid, quality=quality)


def make(path, specs=(ROI, SOUND, COLOUR), clips=N, done=None, strip_quality=False):
    table = ClipTable.from_clips([clip_of(i) for i in (clips if isinstance(clips, list) else range(clips))])
    store = create_store(path, dataset="toy", task="test", classes=CLASSES, clips=table, shard_size=4)
    rows = clips if isinstance(clips, list) else list(range(clips))
    for spec in specs:
        store.add_stream(spec, STEPS)
        for shard in range(store.shards if done is None else done):
            start, stop = store.extent(shard)
            results = [features(spec, rows[i]) for i in range(start, stop)]
            store.write_shard(spec.name, shard, results, quality={} if strip_quality else None)
    return store


@pytest.fixture
def store(tmp_path):
    return make(tmp_path / "s.zarr")


class Page(HTMLParser):
    """Tags, headings, alternative texts and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.text = [], [], []
        self.feed(text)
        self.headings = [int(tag[1]) for tag in self.tags if re.fullmatch("h[1-6]", tag)]

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.text.append(data)


def test_numbers_equal_an_independent_count(store):
    found = survey(store).to_dict()
    clips = [clip_of(i) for i in range(N)]
    assert found["clips"] == N
    assert found["hours"] == pytest.approx(sum(c.end_s - c.start_s for c in clips) / 3600)
    assert found["unlabelled"] == 1
    for label in CLASSES:
        for split in ("train", "dev", "test", "-"):
            count = sum(c.label == label and (c.split or "-") == split for c in clips)
            assert found["classes"][label][split] == count
    by_split = {s["name"]: s for s in found["splits"]}
    assert {s: v["clips"] for s, v in by_split.items()} == {"train": 7, "dev": 0, "test": 3, "-": 3}
    assert by_split["dev"]["hours"] == by_split["dev"]["classes"] == 0
    assert found["digest"] == store.digest(store.streams())
    lengths = [len(x.values) for i in range(N) if (x := features(SOUND, i)).values is not None]
    sound = next(s for s in found["streams"] if s["name"] == "audio.toy")
    assert (sound["done"], sound["failed"], sound["pending"]) == (11, 2, 0)
    assert sound["steps"]["least"] == min(lengths)
    assert sound["steps"]["median"] == np.median(lengths)
    assert sound["values"]["steps"] == sum(lengths)


def test_values_are_those_of_all_steps_together(store):
    found = next(look for look in survey(store).looks if look.facts.name == "audio.toy").values
    every = np.concatenate([x.values for i in range(N) if (x := features(SOUND, i)).values is not None]).astype(float)
    np.testing.assert_allclose(found.mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, every.std(0), rtol=1e-9, atol=1e-12)
    assert (found.least, found.most, found.not_finite) == (every.min(), every.max(), 0)
    assert found.constant == 1


def test_the_worst_are_found(store):
    roi = next(look for look in survey(store).looks if look.facts.name == "mouth.roi")
    by = {name: [clip.id for clip in clips] for name, clips in roi.worst.items()}
    n = len(features(ROI, 4).values)
    assert by["most steps not valid (interpolated)"] == [clip_of(4).id]
    assert roi.worst["most steps not valid (interpolated)"][0].note == f"{2 / n:.0%} not valid"
    assert by["jumpiest crops"][0] == clip_of(5).id
    assert by["detector_score: lowest"] == [clip_of(i).id for i in (12, 11, 10, 9, 8, 5)]
    assert by["face_width_px: lowest"] == [clip_of(i).id for i in (0, 1, 2, 4, 5, 8)]
    assert all(clip.jpeg for clips in roi.worst.values() for clip in clips)


def test_jump_and_robust_z_are_as_written_out():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 6, 5), np.uint8)
    steps = [np.sqrt(((pictures[t + 1].astype(int) - pictures[t].astype(int)) ** 2).mean()) for t in range(3)]
    assert jump_of(pictures) == pytest.approx(max(steps), rel=1e-5)
    assert np.isnan(jump_of(pictures[:1]))
    np.testing.assert_allclose(robust_z(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))[-1], 97 / 1.4826)
    assert np.isnan(robust_z(np.ones(4))).all()
    assert np.isnan(robust_z(np.array([np.nan]))).all()  # clips of one frame
    assert len(robust_z(np.zeros(0))) == 0


def test_a_strip_shows_frames_evenly_spaced_and_marks_what_is_not_valid():
    assert frames_shown(1).tolist() == [0]
    assert frames_shown(3).tolist() == [0, 1, 2]
    assert frames_shown(29).tolist() == [0, 4, 8, 12, 16, 20, 24, 28]
    pictures = np.arange(29, dtype=np.uint8)[:, None, None].repeat(6, 1).repeat(5, 2)
    valid = np.ones(29, bool)
    valid[4] = False
    row = strip(pictures, valid)
    assert row.shape == (6 + MARK, FRAMES * (5 + GAP) - GAP, 3)
    for place, i in enumerate(frames_shown(29)):
        x = place * (5 + GAP)
        assert (row[:6, x : x + 5] == i).all()
        assert ((row[6:, x : x + 5] == MARK_COLOUR).all()) == (i == 4)


@pytest.mark.parametrize("shape", [(80, 96), (224, 224, 3), (300, 100), (1, 500)])
def test_large_crops_are_shrunk_by_a_mean(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    small = shrunk(picture)
    k = min(-(-max(shape[:2]) // 112), *shape[:2])
    assert small.shape == (shape[0] // k, shape[1] // k, 3)
    assert abs(small[0, 0, 0] - picture.reshape(*shape[:2], -1)[:k, :k, 0].mean()) <= 0.5


def test_jpeg_shows_the_picture():
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, 16:] = (255, 0, 0)
    shown = imread(BytesIO(jpeg(picture)), format="jpg")
    assert np.abs(shown[:, :12].astype(int)).max() < 20
    assert np.abs(shown[:, 20:].astype(int) - (255, 0, 0)).max() < 20


def test_heat_map_runs_to_the_right_and_up():
    values = np.zeros((4, 3))
    values[3, 2] = 1  # last step, last feature: the top right corner
    picture = heat_map(values, 0, 1)
    assert picture[0, -1].tolist() == [253, 231, 37]  # viridis' light end
    assert picture[-1, 0].tolist() == picture[0, 0].tolist() == [68, 1, 84]


def test_page_is_escaped_self_contained_and_accessible(store):
    text = render_page(survey(store))
    page = Page(text)
    assert "script" not in page.tags
    assert EVIL in "".join(page.text)
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", text)
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in page.images)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    for image in page.images:
        kind, data = image["src"].split(";base64,")
        assert base64.b64decode(data)[:2] in (b"\xff\xd8", b"<?"), kind


def test_every_class_with_clips_is_shown_with_clips_of_it(store):
    roi = next(look for look in survey(store).looks if look.facts.name == "face.roi")
    assert list(roi.sheets) == ["a", EVIL, "no class"]
    assert {clip.label for clip in roi.sheets["a"]} == {"a"}
    assert [clip.label for clip in roi.sheets["no class"]] == [None]
    both = [
        {c.id for clips in look.sheets.values() for c in clips} for look in survey(store).looks if look.facts.is_picture
    ]
    assert both[0] == both[1]  # the same clips in both streams


def test_failures_are_counted_with_examples(store):
    groups = {g.stream: g for g in survey(store).failures}
    group = groups["mouth.roi"]
    assert (group.step, group.error, group.count) == ("faces", "NoFace", 2)
    assert group.examples == (clip_of(3).id, clip_of(7).id)
    assert EVIL in "".join(Page(render_page(survey(store))).text)


def test_the_same_store_gives_the_same_page(store):
    assert render_page(survey(store)) == render_page(survey(open_store(store.path)))


@pytest.mark.parametrize(("specs", "done"), [((), None), ((ROI, SOUND), 0), ((ROI, SOUND), 2)])
def test_stores_without_streams_and_unfinished_ones_are_shown(tmp_path, specs, done):
    found = survey(make(tmp_path / "s.zarr", specs, done=done))
    for stream in found.to_dict()["streams"]:
        assert stream["pending"] == N - 4 * done
        assert json.dumps(stream, allow_nan=False)
    assert ("no stream yet" in render_page(found)) == (not specs)


def test_many_classes_are_drawn_and_capped(tmp_path):
    classes = tuple(f"w{i}" for i in range(50))
    clips = ClipTable.from_clips([Clip(f"c{i}", 0, 1, label=classes[i], split="train") for i in range(50)])
    store = create_store(tmp_path / "s.zarr", dataset="t", task="t", classes=classes, clips=clips, shard_size=50)
    store.add_stream(ROI, STEPS)
    one = ClipFeatures(np.zeros((1, 12, 10), np.uint8), np.ones(1, bool))
    store.write_shard("mouth.roi", 0, [one] * 50)
    found = survey(store)
    (look,) = found.looks
    assert len(look.sheets) == 30
    assert list(look.sheets)[::29] == ["w0", "w49"]
    assert look.notes == ("20 classes with clips are not shown; those that are lie evenly spread over the list",)
    assert "Clips a class in each split" in render_page(found)


def test_where_not_all_streams_are_looked_into_crops_are_and_the_others_are_named(store, monkeypatch):
    monkeypatch.setattr(import_module("bmla.store.preview.survey"), "MOST_STREAMS", 2)
    found = survey(store)
    assert [look.facts.name for look in found.looks] == ["face.roi", "mouth.roi"]
    assert [stream.name for stream in found.others] == ["audio.toy"]
    assert "No more on this page of audio.toy: choose them" in render_page(found)


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.0, "0 seconds"),
        (14 / 3600, "14 seconds"),
        (0.5, "30 minutes"),
        (2.25, "2.25 hours"),
        (173.61, "174 hours"),
        (2345.6, "2,346 hours"),
    ],
)
def test_lengths_are_in_a_unit_that_fits(hours, text):
    assert duration_text(hours) == text


def test_numbers_that_differ_late_have_few_labels():
    assert has_long_labels(np.array([0.99991, 0.99994]))
    assert not any(
        map(has_long_labels, (np.array([100.8, 114.1]), np.array([1.0, 1.0]), np.array([-0.02, 0.01]), np.zeros(0)))
    )
    assert bool(draw_histograms([Panel("score", np.array([0.99991, 0.99994]))]).axes[0].get_xticks().size <= 4)


def test_too_many_pictures_are_left_out_and_counted(store, monkeypatch):
    monkeypatch.setattr(import_module("bmla.store.preview.survey"), "PICTURE_BYTES", 10_000)
    found = survey(store)
    for look in (look for look in found.looks if look.facts.is_picture):
        shown = [c for clips in (*look.worst.values(), *look.sheets.values()) for c in clips]
        assert 0 < sum(len(c.jpeg) for c in shown if c.jpeg) <= 5_000
        missing = sum(c.jpeg is None for c in shown)
        assert f"{missing} more pictures would have made this page too large" in look.notes
    render_page(found)


def test_bounds_on_clips_are_kept_and_said(store, monkeypatch):
    monkeypatch.setattr("bmla.store.preview.sample.SAMPLE_CLIPS", 3)
    monkeypatch.setattr("bmla.store.preview.sample.VALID_SHARDS", 2)
    look = next(look for look in survey(store).looks if look.facts.name == "audio.toy")
    assert look.values.clips == 3
    assert look.notes == (
        "validity is that of 4 of 11 clips, in evenly spread shards",  # shards 0 and 3 hold 3 and 1 with features
        "values are those of 3 of 11 clips, drawn at random",
    )
    monkeypatch.setattr("bmla.store.preview.sample.LARGEST_CLIP_BYTES", 0)
    found = survey(store)
    assert "11 clips are too long to be read for this page" in found.looks[0].notes
    render_page(found)


@pytest.mark.parametrize(
    ("values", "whole"),
    [(np.array([3.0]), False), (np.array([5.0] * 3), True), (np.arange(100.0), True), (np.zeros(2), False)],
)
def test_bins_hold_every_number(values, whole):
    edges = bins_of(values, whole)
    assert np.histogram(values, edges)[0].sum() == len(values)
    with drawing():
        assert render(draw_histograms([Panel("$x<&", values, whole)])).startswith(b"<?xml")


def test_quality_is_kept_and_is_not_part_of_the_digest(tmp_path, store):
    plain = make(tmp_path / "plain.zarr", strip_quality=True)
    assert plain.digest(plain.streams()) == store.digest(store.streams())
    entry = list(store.entries("mouth.roi"))[1]
    assert entry.quality == {
        "detector_score": (0.86, 0.85, None, None),
        "face_width_px": (54.0, 55.0, None, None),
        "sound_level_dbfs": (None, None, None, -27.0),
    }
    raw = json.loads((plain.path / key_of("mouth.roi", 1)).read_text())
    assert "quality" not in raw  # as the first stores of format 1 wrote it
    assert not list(plain.entries("mouth.roi"))[1].quality
    assert "detector_score" not in render_page(survey(plain))


def facts_of(store, stream="mouth.roi"):
    ids = store.clips.table["id"].to_pylist()
    return {
        (ids[e.start + i], name): x
        for e in store.entries(stream)
        for name, column in e.quality.items()
        for i, x in enumerate(column)
        if x is not None
    }


def test_quality_survives_transfer_merge_and_export(tmp_path, store):
    expected = facts_of(store)
    assert len(expected) == 2 * 10 + 2
    run_transfer(plan_transfer(store, open_place(tmp_path / "copy.zarr", read_only=False)))
    assert facts_of(open_store(tmp_path / "copy.zarr")) == expected
    halves = [make(tmp_path / f"{k}.zarr", clips=part) for k, part in enumerate((list(range(6)), list(range(6, N))))]
    assert facts_of(merge(halves, tmp_path / "merged.zarr")) == expected
    for format_name, padded in (("h5", False), ("npy", True)):
        out = tmp_path / f"out.{format_name}"
        export.run_export(export.plan_export(store, format_name, padded=padded), format_name, out)
        own.import_export(out, tmp_path / f"{format_name}.zarr")
        assert facts_of(open_store(tmp_path / f"{format_name}.zarr")) == expected
    out = tmp_path / "test.npy"
    export.run_export(export.plan_export(store, "npy", split="test"), "npy", out)
    own.import_export(out, tmp_path / "test.zarr")
    chosen = {clip_of(i).id for i in range(N) if clip_of(i).split == "test"}
    assert facts_of(open_store(tmp_path / "test.zarr")) == {k: v for k, v in expected.items() if k[0] in chosen}


@pytest.mark.parametrize(
    ("quality", "text"),
    [
        ({"a": [1.0]}, "a: expected one number for each of 2 clips"),
        ({"a": "xy"}, "a: expected one number for each of 2 clips"),
        ({"a": [1.0, float("nan")]}, "a: a number is not finite"),
        ({"a": [1.0, 10**400]}, "a: a number is not finite"),
        ({"a": [1.0, "2"]}, "a: a value is neither a number nor missing"),
        ({"a": [1.0, True]}, "a: a value is neither a number nor missing"),
        ({"<b>": [1.0, 2.0]}, "'<b>' is no name"),
        ({f"a{i}": [1, 2] for i in range(33)}, "at most 32 names"),
        ([1, 2], "at most 32 names"),
    ],
)
def test_quality_that_can_not_be_is_refused(quality, text):
    with pytest.raises(ValueError, match=text):
        check_quality(quality, 2)


def test_quality_of_a_stranger_is_checked(store):
    path = store.path / key_of("mouth.roi", 1)
    raw = json.loads(path.read_text())
    del raw["seal"]
    path.write_text(json.dumps(sealed({**raw, "quality": {"detector_score": [1.0]}})))
    with pytest.raises(StoreError, match=r"000001.json: damaged ledger entry .*one number for each of 4 clips"):
        list(store.entries("mouth.roi"))


def test_quality_is_rounded_so_that_machines_agree():
    assert columns_of([{"a": 1 / 3}, {}, {"a": np.float32(0.1)}]) == {"a": (0.333333, None, 0.1)}
    with pytest.raises(ValueError, match="not finite"):
        check_quality(columns_of([{"a": float("inf")}]), 1)


def test_command_writes_the_page_and_prints_numbers(tmp_path, store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(main, ["store", "preview", "s.zarr"])
    assert (made.exit_code, made.output) == (0, "preview.html\n")
    assert (tmp_path / "preview.html").read_text() == render_page(survey(store))
    (tmp_path / "preview.html").unlink()
    words = ["store", "preview", "s.zarr", "--stream", "audio.toy", "--json"]
    numbers = json.loads(CliRunner().invoke(main, words).output)
    assert [s["name"] for s in numbers["streams"]] == ["audio.toy"]
    assert not (tmp_path / "preview.html").exists()
    assert CliRunner().invoke(main, [*words, "--out", "new/p.html"]).exit_code == 0
    assert "mouth.roi" not in (tmp_path / "new/p.html").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nothing.zarr"], "nothing here: expected a feature store"),
        (["s.zarr", "--stream", "audio.none"], 'no stream "audio.none"; it has: audio.toy, face.roi, mouth.roi'),
        (["s.zarr", "--out", "s.zarr"], "cannot write the page here"),
    ],
)
def test_bad_input_is_one_line(tmp_path, store, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["store", "preview", *words])
    assert result.exit_code in (1, 2)
    assert text in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_damaged_shard_is_named(store):
    file = store.path / "streams/mouth.roi/values/c/1/0/0/0"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"mouth\.roi"):
        survey(store)
