"""What features know of the clips: compared clip by clip, by the recording, and never believed before it is checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmla.fuse.fold_streams import asked_names, fold_name, stored_names, without_fold
from bmla.fuse.leakage import Leak, from_bits, leak_lines, leaks_into, seen_by, to_bits
from bmla.fuse.run_clips import NAME, clips_seen
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import BmlaError
from bmla.store.spec import StreamSpec

SPLITS = ("train", "train", "dev", "test", "test", None, "train", "test", "dev")
TABLE = ClipTable.from_clips(Clip(f"c{i}", 0.0, 1.0, split=s, audio="a.wav") for i, s in enumerate(SPLITS))
PLAIN = StreamSpec("visual.made", "visual", "made", "float16", (3,), 25.0, "made")


def mask(*rows: int) -> np.ndarray:
    return np.isin(np.arange(len(SPLITS)), rows)


def made_by(**changes: Any) -> StreamSpec:
    clips = {"table": TABLE.digest(), "train": to_bits(mask(0, 3, 8)), "dev": to_bits(mask(4, 2)), **changes}
    return replace(PLAIN, source={"stream": "mouth.roi", "run": {"dataset": "d", "clips": clips}})


def leaks(spec: StreamSpec, dataset: str = "d") -> set[tuple[str, str, int, int]]:
    splits = np.array([s or "" for s in SPLITS], object)
    return {(k.how, k.split, k.clips, k.of) for k in leaks_into(splits, seen_by(spec, TABLE, dataset))}


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64, 1001])
def test_bits_come_back(count: int) -> None:
    clips = np.random.default_rng(count).random(count) > 0.5
    back = from_bits(to_bits(clips), count)
    assert back is not None
    np.testing.assert_array_equal(back, clips)
    assert from_bits(to_bits(clips), count + 8) is None


@pytest.mark.parametrize("text", [None, 7, "é", "a", "####", ["AA=="], {}])
def test_what_is_no_bits_is_none(text: Any) -> None:
    assert from_bits(text, 8) is None


def test_training_clips_may_be_in_neither_dev_nor_test_and_dev_clips_not_in_test() -> None:
    assert leaks(PLAIN) == set()
    assert leaks(made_by()) == {("trained on", "test", 1, 3), ("trained on", "dev", 1, 2), ("chosen by", "test", 1, 3)}
    assert leaks(made_by(train=to_bits(mask(0, 1, 6)), dev=to_bits(mask(2, 8)))) == set()
    assert leaks(made_by(), "another data set") == set()


def test_what_lies_deeper_counts_as_well() -> None:
    within = {"specification": made_by().to_dict(), "statistics": {"split": "train"}}
    assert leaks(replace(PLAIN, name="visual.made.pca-2", source=within)) == leaks(made_by())
    folded = np.array(["test" if s == "train" else "train" for s in SPLITS], object)
    found = leaks_into(folded, seen_by(replace(PLAIN, source={"statistics": {}}), TABLE, "d"))
    assert [(k.how, k.clips) for k in found] == [("computed from", 3)]
    assert "no labels" in leak_lines(found)[0]


@pytest.mark.parametrize("changes", [{"table": "other"}, {"train": "AA=="}, {"dev": None}])
def test_what_can_not_be_told_is_said(changes: dict[str, Any]) -> None:
    found = leaks_into(np.array(SPLITS, object), seen_by(made_by(**changes), TABLE, "d"))
    (line,) = leak_lines(found)
    assert "can't be told" in line


@pytest.mark.parametrize(
    "source", [{"run": 7}, {"run": {}}, {"run": {"clips": [1]}}, {"specification": 3}, {"stream": "x"}]
)
def test_a_strangers_specification_breaks_nothing(source: dict[str, Any]) -> None:
    seen_by(replace(PLAIN, source=source), TABLE, "d")


def test_a_line_a_stream_over_all_folds() -> None:
    found = [Leak("a.b", "trained on", "test", n, 10) for n in (3, 4)] + [Leak("c.d", "chosen by", "test", 1, 10)]
    first, second = leak_lines(found)
    assert first.startswith("a.b: what made it was trained on 7 of the 20 test clips:")
    assert second.startswith("c.d: what made it was chosen by 1 of the 10 test clips:")


def test_a_clip_was_seen_where_its_recording_was(tmp_path: Path) -> None:
    rows = {"id": ["a", "b", "c"], "group": ["r1", "r2", "c"], "split": ["train", "dev", "train"]}
    pq.write_table(pa.table(rows), tmp_path / NAME)
    ids, groups = np.array(["a", "x", "y", "c", "z"], object), np.array(["r1", "r1", "r2", "c", "z"], object)
    assert clips_seen(tmp_path, ids, groups, "train").tolist() == [True, True, False, True, False]
    (tmp_path / NAME).write_bytes(b"no parquet")
    with pytest.raises(BmlaError, match="can't be read"):
        clips_seen(tmp_path, ids, groups, "train")


def test_names_of_folds() -> None:
    there = ["audio.a", "visual.b.fold-0", "visual.b.fold-0@blur=4", "visual.b.fold-1", "visual.b.fold-1@blur=4"]
    assert fold_name("visual.b@blur=4", 1) == there[4]
    assert stored_names("visual.b", there, 2) == ("visual.b.fold-0", "visual.b.fold-1")
    assert stored_names("visual.b", there, 3) == stored_names("visual.b", there, 0) == ("visual.b",)
    assert stored_names("audio.a", there, 2) == ("audio.a",)
    assert asked_names(there, 2) == sorted([*there, "visual.b", "visual.b@blur=4"])
    assert asked_names(there, 3) == there
    assert without_fold("visual.b.fold-12@blur=4") == "visual.b@blur=4"
    assert without_fold("visual.fold-x") == "visual.fold-x"
